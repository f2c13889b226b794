"""Update codecs: what a member's update becomes on its way through secure aggregation, and back."""

from lepton_compression.update.mask import Indices, kept_indices
from lepton_compression.update.pipeline import EncodeReport, decode_sum, encode, encode_with_report
from lepton_compression.update.plan import CODEC_VERSION, SEED_BYTES, Profile, RingPlan, derive_plan
from lepton_compression.update.streams import derive_dither

__all__ = [
    "CODEC_VERSION",
    "SEED_BYTES",
    "EncodeReport",
    "Indices",
    "Profile",
    "RingPlan",
    "decode_sum",
    "derive_dither",
    "derive_plan",
    "encode",
    "encode_with_report",
    "kept_indices",
]
