"""Write the golden vectors of the codec: `python -m tests.vectors.codec.generate`.

The update is made of integers by a formula, so that no generator's stream can change it. A change of any output is a
change of the wire: it needs a new CODEC_VERSION and a new file, never a new version of these.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compression.update import (
    CODEC_VERSION,
    Eden,
    Float16,
    Float32,
    Noise,
    PlainCodec,
    Profile,
    SecretKeystream,
    Sign,
    TopK,
    decode_noised,
    decode_plain_update,
    decode_sum,
    derive_dither,
    derive_noised_plan,
    derive_plan,
    encode,
    encode_noised,
    encode_plain_update,
    kept_indices,
)
from lepton_compression.update.delta import apply_delta, encode_delta
from lepton_compression.update.floats import pack_floats
from lepton_core.layout import Vector
from lepton_core.ring import pack

FOLDER = Path(__file__).parent
CASES: tuple[tuple[int, float, Profile, bool], ...] = (
    (1, 1.0, "default", False),
    (17, 1.0, "exact", False),
    (997, 0.5, "default", False),
    (4097, 1.0, "lean", False),
    (4097, 0.3, "tiny", True),
    (20_011, 0.9, "default", True),
)
#: Length, kept fraction, colluders, and whether the unit is the whole vector.
NOISED: tuple[tuple[int, float, int, bool], ...] = (
    (1, 1.0, 0, False),
    (17, 1.0, 1, False),
    (997, 0.5, 0, False),
    (997, 0.5, 0, True),
    (4097, 1.0, 2, False),
    (20_011, 0.9, 0, False),
    (20_011, 0.9, 0, True),
)
MEMBERS = 3
PLAIN: tuple[PlainCodec, ...] = (
    Float32(),
    Float16(),
    *(Eden(bits) for bits in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)),
    TopK(0.01),
    TopK(0.2),
    Sign(),
)
PLAIN_LENGTHS = (1, 17, 997, 4097)


class FixedBytes:
    """A source that gives the same bytes each time, for vectors only."""

    def __init__(self, fill: int) -> None:
        self._fill = fill

    def token(self, length: int) -> bytes:
        return bytes([self._fill]) * length


def make_update(length: int, member: int) -> Vector:
    """Heavy-tailed integers below 2^11 over 2^20, from a linear congruence, cubed.

    Blocks of 4096 of them are rotated without rounding in float32, so every machine makes the same lanes.
    """
    steps = (np.arange(length, dtype=np.int64) * 7919 + member * 104_729) % 2003 - 1001
    return ((steps**3 >> 19) / 2.0**20).astype(np.float32)


def make_case(length: int, kept_fraction: float, profile: Profile, *, dithered: bool) -> dict[str, Any]:
    """One case's terms and outputs."""
    seed = hashlib.sha256(f"codec vector {length} {kept_fraction} {profile} {dithered}".encode()).digest()
    plan = derive_plan(
        model_length=length,
        kept_fraction=kept_fraction,
        profile=profile,
        update_norm=0.5,
        members_max=10,
        dithered=dithered,
    )
    dithers = [derive_dither(seed, bytes([member])) for member in range(MEMBERS)] if dithered else []
    lanes = [
        encode(
            make_update(length, member), plan, seed, FixedBytes(member), dither=dithers[member] if dithered else None
        )
        for member in range(MEMBERS)
    ]
    mean = decode_sum(sum(lanes[1:], start=lanes[0]), MEMBERS, plan, seed, dithers=dithers)
    return {
        "model_length": length,
        "kept_fraction": kept_fraction,
        "profile": profile,
        "dithered": dithered,
        "seed": seed.hex(),
        "padded_length": plan.padded_length,
        "max_value": plan.max_value,
        "lane_bits": plan.lane_bits,
        "scale": plan.scale.hex(),
        "kept_sha256": hashlib.sha256(kept_indices(plan, seed).astype("<i8").tobytes()).hexdigest(),
        "first_kept": kept_indices(plan, seed)[:8].tolist(),
        "first_lanes": [member[:16].tolist() for member in lanes],
        "lanes_sha256": [hashlib.sha256(member.astype("<i8").tobytes()).hexdigest() for member in lanes],
        "words_sha256": [
            hashlib.sha256(pack(member, plan.lane_bits).astype("<u8").tobytes()).hexdigest() for member in lanes
        ],
        "mean_sha256": hashlib.sha256(mean.astype("<f4").tobytes()).hexdigest(),
    }


def make_noised_case(length: int, kept_fraction: float, colluders: int, whole: bool) -> dict[str, Any]:
    """One case of integers with noise, for which every source of secret words is a fixed stream."""
    seed = hashlib.sha256(f"noised vector {length} {kept_fraction} {colluders}".encode()).digest()
    plan = derive_noised_plan(
        model_length=length,
        kept_fraction=kept_fraction,
        unit_norm=1.0 if whole else 2.0**-6,
        largest_norm=1.0,
        members_max=4,
        noise=Noise(multiplier=6.5, contributors=MEMBERS, colluders=colluders),
        whole=whole,
    )
    words = [
        encode_noised(
            # Halved until no norm is bounded: a norm's last digits are a matter of the machine.
            make_update(length, member).astype(np.float64) / 2.0**4,
            plan,
            seed,
            rounding=SecretKeystream(bytes([member]) * 32),
            noise=SecretKeystream(bytes([16 + member]) * 32),
        )
        for member in range(MEMBERS)
    ]
    mean, _ = decode_noised(sum(words[1:], start=words[0]), MEMBERS, plan, seed)
    return {
        "model_length": length,
        "kept_fraction": kept_fraction,
        "colluders": colluders,
        "whole": whole,
        "seed": seed.hex(),
        "padded_length": plan.ring.padded_length,
        "max_value": plan.ring.max_value,
        "lane_bits": plan.ring.lane_bits,
        "scale": plan.ring.scale.hex(),
        "sensitivity": plan.sensitivity.hex(),
        "share_variance": plan.share_variance,
        "first_words": [[f"{word:016x}" for word in member[:4]] for member in words],
        "words_sha256": [hashlib.sha256(member.astype("<u8").tobytes()).hexdigest() for member in words],
        "mean_sha256": hashlib.sha256(mean.astype("<f4").tobytes()).hexdigest(),
    }


def make_plain_case(codec: PlainCodec, length: int) -> dict[str, Any]:
    """One codec's payload and what it decodes to."""
    seed = hashlib.sha256(f"plain vector {codec} {length}".encode()).digest()
    encoded = encode_plain_update(codec, make_update(length, 1), seed)
    decoded = decode_plain_update(codec, encoded.payload, length, seed)
    return {
        "codec": str(codec),
        "length": length,
        "seed": seed.hex(),
        "payload_bytes": len(encoded.payload),
        "payload_start": encoded.payload[:64].hex(),
        "payload_sha256": hashlib.sha256(encoded.payload).hexdigest(),
        # Rotated back in float32, whose last digits are a matter of the machine.
        "decoded_start": [f"{value:.5g}" for value in decoded[:8]],
    }


def make_down_case(length: int) -> dict[str, Any]:
    """A snapshot in each precision, and a difference."""
    seed = hashlib.sha256(f"downlink vector {length}".encode()).digest()
    base = make_update(length, 1).astype(np.float16).astype(np.float32)
    target = base + make_update(length, 2)
    delta = encode_delta(base, target, base_digest=hashlib.sha256(base.tobytes()).digest(), seed=seed)
    after = apply_delta(base, hashlib.sha256(base.tobytes()).digest(), delta)
    return {
        "length": length,
        "seed": seed.hex(),
        "delta_sha256": hashlib.sha256(delta).hexdigest(),
        "after_sha256": hashlib.sha256(after.astype("<f4").tobytes()).hexdigest(),
        "half_snapshot": len(pack_floats(base)),
        "single_snapshot": len(pack_floats(target)),
    }


def main() -> None:
    document = {
        "generator": "tests/vectors/codec/generate.py",
        "source": "lepton_compression.update, design page codec.md: under secure aggregation",
        "codec_version": CODEC_VERSION,
        "update_norm": 0.5,
        "members_max": 10,
        "members": MEMBERS,
        "cases": [
            make_case(length, kept_fraction, profile, dithered=dithered)
            for length, kept_fraction, profile, dithered in CASES
        ],
    }
    plain = {
        "generator": "tests/vectors/codec/generate.py",
        "source": "lepton_compression.update.codecs, design page codec.md: without secure aggregation",
        "cases": [make_plain_case(codec, length) for codec in PLAIN for length in PLAIN_LENGTHS],
    }
    down = {
        "generator": "tests/vectors/codec/generate.py",
        "source": "lepton_compression.update.floats and delta, design page codec.md: downlink",
        "cases": [make_down_case(length) for length in PLAIN_LENGTHS],
    }
    noised = {
        "generator": "tests/vectors/codec/generate.py",
        "source": "lepton_compression.update.noised, design page privacy.md: mechanisms",
        "codec_version": CODEC_VERSION,
        "cases": [make_noised_case(*case) for case in NOISED],
    }
    every = (("ring-3", document), ("noised-3", noised), ("plain-1", plain), ("downlink-1", down))
    for name, content in every:
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
