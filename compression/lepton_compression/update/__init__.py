"""Update codecs: what a member's update becomes on its way through secure aggregation, and back."""

from lepton_compression.update.codecs import (
    Eden,
    EncodedUpdate,
    Float16,
    Float32,
    PlainCodec,
    Sign,
    TopK,
    decode_plain_update,
    encode_plain_update,
    payload_bytes,
)
from lepton_compression.update.mask import Indices, kept_indices
from lepton_compression.update.noised import Noise, NoisedPlan, decode_noised, derive_noised_plan, encode_noised
from lepton_compression.update.pipeline import EncodeReport, decode_and_test, decode_sum, encode, encode_with_report
from lepton_compression.update.plan import CODEC_VERSION, SEED_BYTES, Profile, RingPlan, RowGroup, derive_plan
from lepton_compression.update.streams import SecretKeystream, derive_dither
from lepton_compression.update.targets import Numbers, plan_for_bytes, plan_for_error

__all__ = [
    "CODEC_VERSION",
    "SEED_BYTES",
    "Eden",
    "EncodeReport",
    "EncodedUpdate",
    "Float16",
    "Float32",
    "Indices",
    "Noise",
    "NoisedPlan",
    "Numbers",
    "PlainCodec",
    "Profile",
    "RingPlan",
    "RowGroup",
    "SecretKeystream",
    "Sign",
    "TopK",
    "decode_and_test",
    "decode_noised",
    "decode_plain_update",
    "decode_sum",
    "derive_dither",
    "derive_noised_plan",
    "derive_plan",
    "encode",
    "encode_noised",
    "encode_plain_update",
    "encode_with_report",
    "kept_indices",
    "payload_bytes",
    "plan_for_bytes",
    "plan_for_error",
]
