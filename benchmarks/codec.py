"""Error, size and speed of the update codecs on heavy-tailed vectors.

A row is one codec and cohort: `n` members, `bits` a lane, `nmse` = ||mean_hat - mean||^2 / mean ||x_i||^2, and the
best of several timings of one member's encoding and of the decoding of the sum, packing included.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.secure_round.plot import Line, draw_plot
from lepton_compression.native import load_kernels
from lepton_compression.update import (
    Eden,
    Float16,
    PlainCodec,
    Profile,
    RingPlan,
    Sign,
    TopK,
    decode_plain_update,
    decode_sum,
    derive_dither,
    derive_plan,
    encode,
    encode_plain_update,
)
from lepton_compression.update.rotation import Rotation, rotation_of
from lepton_core.layout import Vector
from lepton_core.ports import SystemRandomness
from lepton_core.ring import Words, pack, unpack
from lepton_pool.memory import keep_freed_memory

_RANDOMNESS = SystemRandomness()
#: What is compared beside the ring's profiles; those with feedback are measured without it, one update alone.
PLAIN: tuple[PlainCodec, ...] = (
    *(Eden(bits) for bits in (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)),
    TopK(0.01),
    TopK(0.1),
    Sign(),
    Float16(),
)
_MOST_PLAIN = 4
#: What is measured beside the rows: profiles whose members send a share of the coordinates.
MASKED: tuple[tuple[Profile, float], ...] = (
    ("default", 0.05),
    ("default", 0.1),
    ("default", 0.5),
    ("tiny", 0.1),
    ("tiny", 0.2),
    ("tiny", 0.5),
)


@dataclass
class _Cell:
    """One row while it is measured."""

    plan: RingPlan
    words: Words
    encode_s: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes and seeds."""
    parser.add_argument("--length", type=int, default=2**20, help="values a vector")
    parser.add_argument("--members", type=int, nargs="+", default=[10, 100], help="cohorts to measure")
    parser.add_argument("--kept-fraction", type=float, default=1.0, help="share of coordinates in the common mask")
    parser.add_argument("--repeats", type=int, default=5, help="timings, of which the best counts")
    parser.add_argument(
        "--undithered", action="store_true", help="also rounding as it is where it is part of a privacy mechanism"
    )
    parser.add_argument("--plot", type=Path, help="write an SVG of error over bytes here")
    parser.add_argument("--seed", type=int, default=0, help="seed of vectors and codec")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a codec and cohort, the time of a bare rotation, and whether the loops were compiled ones."""
    keep_freed_memory()  # as daemon and coordinator do
    seed = hashlib.sha256(f"lepton/benchmark/codec {args.seed}".encode()).digest()
    rows = [row for members in args.members for row in _measure_cohort(members, seed, args)]
    for members in args.members:
        rows += [_measure_plain(codec, members, args) for codec in PLAIN]
    padded = -(-args.length // 16) * 16
    vector = np.random.default_rng(args.seed).standard_normal(padded, dtype=np.float32)
    rotate_s = _best(lambda: Rotation(seed, padded).forward(vector), args.repeats)
    masked = [_measure_masked(profile, fraction, seed, args) for profile, fraction in MASKED]
    if args.plot is not None:
        args.plot.write_text(_plot(rows, masked, args.members[0]), encoding="utf-8")
    return {
        "rows": rows,
        "masked": masked,
        "length": args.length,
        "rotate_ms": 1e3 * rotate_s,
        "compiled": load_kernels() is not None,
    }


def _plot(rows: list[dict[str, Any]], masked: list[dict[str, Any]], members: int) -> str:
    """Error over bytes, a line a family of codecs."""
    families = (
        ("ring, masked sums", "ring", "#c0392b"),
        ("EDEN", "eden", "#2471a3"),
        ("top-k, once", "topk", "#7d6608"),
        ("sign, once", "sign", "#117a65"),
        ("float16", "float16", "#6c3483"),
    )
    lines = []
    for name, start, colour in families:
        points = sorted(
            (row["bytes_per_parameter"], row["nmse"])
            for row in rows
            if row["n"] == members and row["codec"].startswith(start)
        )
        lines.append(Line(name, points if len(points) > 1 else points * 2, colour))
    lines += [
        Line(
            f"ring with a mask, {profile}",
            [(row["bytes_per_parameter"], row["nmse"]) for row in masked if row["profile"] == profile],
            colour,
            dashed=True,
        )
        for profile, colour in (("default", "#e67e22"), ("tiny", "#f1948a"))
    ]
    return draw_plot(f"Error of the mean of {members} over bytes a parameter", lines)


def _measure_masked(profile: Profile, fraction: float, seed: bytes, args: argparse.Namespace) -> dict[str, Any]:
    """The first cohort's mean, of which only a share is sent; what is not sent is most of the error."""
    members = args.members[0]
    plan = derive_plan(
        model_length=args.length,
        kept_fraction=fraction,
        profile=profile,
        update_norm=1.0,
        members_max=members,
        dithered=True,
    )
    total = np.zeros(plan.padded_length, dtype=np.int64)
    mean: npt.NDArray[np.float64] = np.zeros(args.length)
    for member in range(members):
        update = _make_update(args.length, args.seed, member)
        mean += update / members
        total += encode(update, plan, seed, _RANDOMNESS, dither=_dither(seed, member))
    found = decode_sum(total, members, plan, seed, dithers=[_dither(seed, member) for member in range(members)])
    return {
        "profile": profile,
        "kept_fraction": fraction,
        "n": members,
        "bytes_per_parameter": plan.bytes_per_parameter,
        "nmse": float(np.sum((found - mean) ** 2)),
    }


def _measure_cohort(members: int, seed: bytes, args: argparse.Namespace) -> list[dict[str, Any]]:
    cells = [
        _cell(profile, members, args, dithered=dithered)
        for profile in get_args(Profile)
        for dithered in ((True, False) if args.undithered else (True,))
    ]
    mean: npt.NDArray[np.float64] = np.zeros(args.length)
    for member in range(members):
        update = _make_update(args.length, args.seed, member)
        mean += update
        for cell in cells:
            rotation_of.cache_clear()  # a member encodes once a round
            started = time.perf_counter()
            cell.words += _encode(update, cell.plan, seed, member)
            cell.encode_s.append(time.perf_counter() - started)
    mean /= members
    rows: list[dict[str, Any]] = []
    for cell in cells:
        plan = cell.plan
        dithers = [_dither(seed, member) for member in range(members)] if plan.dithered else []

        def decode(cell: _Cell = cell, dithers: list[bytes] = dithers) -> Vector:
            rotation_of.cache_clear()
            total = unpack(cell.words, cell.plan.lane_bits, cell.plan.padded_length)
            return decode_sum(total, members, cell.plan, seed, dithers=dithers)

        error = float(np.sum((decode() - mean) ** 2))
        rows.append(
            {
                "codec": f"ring-{plan.profile}" + ("" if plan.dithered else "-undithered"),
                "n": members,
                "bits": plan.lane_bits,
                "bytes_per_parameter": plan.bytes_per_parameter,
                "nmse": error,
                "encode_ms": 1e3 * min(cell.encode_s),
                "decode_ms": 1e3 * _best(decode, 1 if plan.dithered else args.repeats),
            }
        )
    return rows


def _measure_plain(codec: PlainCodec, members: int, args: argparse.Namespace) -> dict[str, Any]:
    """A codec that nothing masks, of a few members: more would only say again that errors fall with their number."""
    measured = min(members, _MOST_PLAIN)
    mean: npt.NDArray[np.float64] = np.zeros(args.length)
    found: npt.NDArray[np.float64] = np.zeros(args.length)
    encode_s, decode_s, size = [], [], 0
    for member in range(measured):
        update = _make_update(args.length, args.seed, member)
        seed = hashlib.sha256(f"lepton/benchmark/plain {args.seed} {member}".encode()).digest()
        started = time.perf_counter()
        payload = encode_plain_update(codec, update, seed).payload
        encoded = time.perf_counter()
        found += decode_plain_update(codec, payload, args.length, seed)
        decode_s.append(time.perf_counter() - encoded)
        encode_s.append(encoded - started)
        mean += update
        size = len(payload)
    error = float(np.sum((found / measured - mean / measured) ** 2)) * measured / members
    return {
        "codec": str(codec).lower().replace("()", ""),
        "n": members,
        "bits": 8.0 * size / args.length,
        "bytes_per_parameter": size / args.length,
        "nmse": error,
        "encode_ms": 1e3 * min(encode_s),
        "decode_ms": 1e3 * min(decode_s),
    }


def _cell(profile: Profile, members: int, args: argparse.Namespace, *, dithered: bool) -> _Cell:
    plan = derive_plan(
        model_length=args.length,
        kept_fraction=args.kept_fraction,
        profile=profile,
        update_norm=1.0,
        members_max=members,
        dithered=dithered,
    )
    return _Cell(plan, np.zeros(plan.payload_bytes // 8, dtype=np.uint64))


def _make_update(length: int, seed: int, member: int) -> Vector:
    """Student's t with 3 degrees of freedom, of norm 1."""
    values = np.random.default_rng([seed, member]).standard_t(3, length)
    return (values / np.linalg.norm(values)).astype(np.float32)


def _dither(seed: bytes, member: int) -> bytes:
    return derive_dither(seed, member.to_bytes(16, "big"))


def _encode(update: Vector, plan: RingPlan, seed: bytes, member: int) -> Words:
    lanes = encode(update, plan, seed, _RANDOMNESS, dither=_dither(seed, member) if plan.dithered else None)
    return pack(lanes, plan.lane_bits)


def _best(call: Callable[[], object], repeats: int) -> float:
    """Fewest seconds of `repeats` calls."""
    times = []
    for _ in range(max(1, repeats)):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
