"""The ring encoding of one round, top to bottom: an update into lanes that may be summed, and the sum into a mean.

    encode:      1 kept coordinates  2 clip, weigh  3 rotate  4 round into lanes
    decode_sum:  1 check  2 lanes into reals  3 rotate back  4 mean, times 1/p, onto the kept coordinates
    decode_and_test: the same, and step 3 undone again to see whether this machine computes it rightly

The masked sum of members' lanes is all the server ever decodes. Only the decoder multiplies by 1/p: a member that
did would multiply its sensitivity. The encoding is ring-summable; it has no state, and no error feedback.

Decoding is exact integer arithmetic up to one last scaling, so that everybody who holds the published sum computes
the same next model, bit for bit, on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_compression.update.mask import kept_indices, kept_stretch
from lepton_compression.update.plan import SEED_BYTES, RingPlan
from lepton_compression.update.quantizer import dequantize_sum, quantize, step_size
from lepton_compression.update.rotation import rotation_of
from lepton_compression.update.streams import CHUNK, dither_offset, dither_words, keystream_uint16, require_seed
from lepton_core.errors import CodecError, FaultError
from lepton_core.layout import Vector, require_finite
from lepton_core.ports import Randomness
from lepton_core.ring import Lanes

#: Largest relative error of rotating there and back in float64; no sum of rounding errors comes near it.
_LARGEST_RESIDUAL = 1e-9


@dataclass(frozen=True)
class EncodeReport:
    """What happened to one member's update. Computed from private values: it stays with the member."""

    #: True if the kept coordinates were longer than the plan's `kept_norm`.
    norm_clipped: bool
    #: Share of rotated values beyond the plan's `scale`, in [0, 1].
    saturated_fraction: float
    #: E = sum (x - x_hat)^2 over the kept coordinates: x as clipped and weighted, x_hat as decoded by itself.
    squared_error: float


def encode(
    update: Vector,
    plan: RingPlan,
    seed: bytes,
    randomness: Randomness,
    *,
    dither: bytes | None = None,
    weight: float = 1.0,
) -> Lanes:
    """One member's lanes, shape (padded_length,), int64 in [0, max_value]; `update` is left as it was.

    `seed` is the round's public codec seed, 32 bytes; `dither` is `derive_dither(seed, member)` if the plan is
    dithered and None otherwise. Without dither, rounding takes 32 bytes of `randomness`. What the member weighs, in
    [0, 1], multiplies its kept coordinates after they are clipped.

    Guarantees: with stochastic rounding and nothing clipped or saturated, `decode_sum` of a sum of encodings has the
    mean of the kept parts of the updates as its expectation, up to float32 rounding.

    Raises:
        CodecError: NaN or Inf, another shape or type, a seed that is not 32 bytes, a weight outside [0, 1], or a
            dither the plan does not ask for or one that it misses.
    """
    return encode_with_report(update, plan, seed, randomness, dither=dither, weight=weight)[0]


def encode_with_report(
    update: Vector,
    plan: RingPlan,
    seed: bytes,
    randomness: Randomness,
    *,
    dither: bytes | None = None,
    weight: float = 1.0,
) -> tuple[Lanes, EncodeReport]:
    """`encode`, and what it clipped."""
    require_seed(seed, "codec seed")
    _require_vector(update, plan)
    if plan.dithered != (dither is not None):
        expected = "the member's dither" if plan.dithered else "no dither"
        raise CodecError("the plan and the dither do not agree", where="dither", expected=expected)
    if dither is None:
        offset, words = 0, keystream_uint16(randomness.token(SEED_BYTES), plan.padded_length)
    else:
        offset, words = dither_offset(dither), dither_words(seed, plan.padded_length)

    # 1. The coordinates that all members of the round send, filled up with zeros.
    kept = update
    if plan.padded_length != plan.model_length or not _keeps_all(plan):
        kept = np.zeros(plan.padded_length, dtype=np.float32)
        kept[: plan.kept_length] = update if _keeps_all(plan) else update[kept_indices(plan, seed)]

    # 2. Their L2 norm, bounded; then what the member weighs.
    if not 0.0 <= weight <= 1.0:
        raise CodecError("not a weight", where="weight", expected="0 to 1", got=repr(weight))
    norm = _norm(kept)
    norm_clipped = norm > plan.kept_norm
    factor = weight * (plan.kept_norm / norm if norm_clipped else 1.0)
    if factor != 1.0:
        # In float64, as the factor may be below what float32 can hold.
        kept = np.multiply(kept, factor, out=np.empty_like(kept), dtype=np.float64, casting="same_kind")

    # 3. Spread over all values alike.
    rotated = rotation_of(seed, plan.padded_length).forward(kept)

    # 4. Rounded to the levels of a lane.
    quantized = quantize(rotated, plan, words, offset=offset)
    return quantized.lanes, EncodeReport(
        norm_clipped=norm_clipped,
        saturated_fraction=quantized.saturated / plan.padded_length,
        squared_error=quantized.squared_error,
    )


def decode_sum(
    total: Lanes,
    members: int,
    plan: RingPlan,
    seed: bytes,
    *,
    dithers: Sequence[bytes] = (),
    weights: float | None = None,
) -> Vector:
    """The members' mean update, shape (model_length,), float32: zero off the kept coordinates, times 1/p on them.

    `total` is the sum of the lanes of `members` members; `dithers` holds the dither of each of them, in any order, if
    the plan is dithered. p is kept_length / model_length, the chance of each coordinate to be kept. `weights` is the
    sum of the members' weights, above 0; None where each weighs 1.

    Raises:
        CodecError: a total of another shape or type, or outside [0, members * max_value]; members outside
            [1, members_max]; a seed that is not 32 bytes; dithers that are not as many as the plan asks for.
    """
    return _decode(total, members, plan, seed, dithers=dithers, weights=weights, test=False)[0]


def decode_and_test(
    total: Lanes,
    members: int,
    plan: RingPlan,
    seed: bytes,
    *,
    dithers: Sequence[bytes] = (),
    weights: float | None = None,
) -> tuple[Vector, float]:
    """`decode_sum`, and its self-test's residual: the relative error of rotating what was decoded forward again.

    It is below 1e-15 on a machine that computes rightly: a broken processor, memory or library shows here, before
    anybody trains on what it made.

    Raises:
        CodecError: as `decode_sum`.
        FaultError: a residual above 1e-9.
    """
    return _decode(total, members, plan, seed, dithers=dithers, weights=weights, test=True)


def _decode(
    total: Lanes,
    members: int,
    plan: RingPlan,
    seed: bytes,
    *,
    dithers: Sequence[bytes],
    weights: float | None,
    test: bool,
) -> tuple[Vector, float]:
    # 1. Nothing is decoded that no sum of encodings can be.
    require_seed(seed, "codec seed")
    _require_total(total, members, plan)
    if len(dithers) != (members if plan.dithered else 0):
        raise CodecError(
            "not one dither a member",
            where="dithers",
            expected=str(members if plan.dithered else 0),
            got=str(len(dithers)),
        )
    if _is_nothing(total, members, plan):
        return np.zeros(plan.model_length, dtype=np.float32), 0.0
    return decode_lanes(total, members, plan, seed, dithers=dithers, weights=weights, test=test)


def decode_lanes(
    total: Lanes,
    members: int,
    plan: RingPlan,
    seed: bytes,
    *,
    dithers: Sequence[bytes] = (),
    weights: float | None = None,
    test: bool = False,
) -> tuple[Vector, float]:
    """Steps 2 to 4 on a total that was checked, as `decode_and_test`; 2 * total - members * L within 2^33 is exact."""
    # 2. and 3. Whole steps, and their exact rotation back.
    words = dither_words(seed, plan.padded_length) if plan.dithered else None
    steps = dequantize_sum(total, members, plan, words, [dither_offset(dither) for dither in dithers])
    rotation = rotation_of(seed, plan.padded_length)
    back = rotation.inverse(steps)
    residual = _require_inverse(rotation.forward(back), steps) if test else 0.0

    # 4. One factor for the unit, the mean and 1/p.
    factor = step_size(plan) / (members if weights is None else weights) * kept_stretch(plan)
    mean = (back[: plan.kept_length] * factor).astype(np.float32)
    if _keeps_all(plan):
        return mean, residual
    update = np.zeros(plan.model_length, dtype=np.float32)
    update[kept_indices(plan, seed)] = mean
    return update, residual


def _require_inverse(found: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]) -> float:
    """The relative L2 error of what should be `steps`, shape (padded_length,); `found` is altered."""
    found -= steps
    residual = float(np.linalg.norm(found)) / (float(np.linalg.norm(steps)) or 1.0)
    if not residual <= _LARGEST_RESIDUAL:
        raise FaultError(
            "a sum was decoded wrongly: rotated forward again it is another",
            where="decoding of a round",
            expected=f"a relative error of at most {_LARGEST_RESIDUAL:g}",
            got=f"{residual:.3g}",
            hint="this machine computes wrongly; test its memory and processor, and reinstall numpy",
            reason="DECODE_SELF_TEST",
        )
    return residual


def _keeps_all(plan: RingPlan) -> bool:
    return plan.kept_length == plan.model_length


def _is_nothing(total: Lanes, members: int, plan: RingPlan) -> bool:
    """True if every lane is the sum of members' zeros: then nothing was learnt, and dither must not look like it."""
    return plan.max_value % 2 == 0 and bool(np.all(total == members * (plan.max_value // 2)))


def _norm(vector: Vector) -> float:
    """L2 norm, summed in float64: float32 squares overflow from 2e19 on."""
    total = 0.0
    for start in range(0, len(vector), CHUNK):
        chunk = vector[start : start + CHUNK].astype(np.float64)
        total += float(chunk @ chunk)
    return math.sqrt(total)


def _require_vector(update: Vector, plan: RingPlan) -> None:
    if update.shape != (plan.model_length,) or update.dtype != np.float32:
        raise CodecError(
            "not the update this plan encodes",
            where="update",
            expected=f"float32 of shape ({plan.model_length},)",
            got=f"{update.dtype} of shape {update.shape}",
        )
    require_finite(update, "update")


def _require_total(total: Lanes, members: int, plan: RingPlan) -> None:
    if not 1 <= members <= plan.members_max:
        raise CodecError(
            "so many members do not fit the plan",
            where="members",
            expected=f"1 to {plan.members_max}",
            got=str(members),
        )
    if total.shape != (plan.padded_length,) or total.dtype != np.int64:
        raise CodecError(
            "not a sum of this plan's lanes",
            where="total",
            expected=f"int64 of shape ({plan.padded_length},)",
            got=f"{total.dtype} of shape {total.shape}",
        )
    largest = members * plan.max_value
    outside = int(np.count_nonzero((total < 0) | (total > largest)))
    if outside:
        raise CodecError(
            "a sum that no members' lanes can give",
            where="total",
            expected=f"values in [0, {largest}]",
            got=f"{outside} values outside",
        )
