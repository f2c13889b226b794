"""Update codecs: what a member's update becomes on its way through secure aggregation, and back."""

from lepton_compression.update.mask import Indices, kept_indices
from lepton_compression.update.pipeline import EncodeReport, decode_sum, encode, encode_with_report
from lepton_compression.update.plan import CODEC_VERSION, SEED_BYTES, Profile, RingPlan, RowGroup, derive_plan
from lepton_compression.update.streams import derive_dither
from lepton_compression.update.targets import Numbers, plan_for_bytes, plan_for_error

__all__ = [
    "CODEC_VERSION",
    "SEED_BYTES",
    "EncodeReport",
    "Indices",
    "Numbers",
    "Profile",
    "RingPlan",
    "RowGroup",
    "decode_sum",
    "derive_dither",
    "derive_plan",
    "encode",
    "encode_with_report",
    "kept_indices",
    "plan_for_bytes",
    "plan_for_error",
]
