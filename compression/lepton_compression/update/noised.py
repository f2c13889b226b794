"""Integer noise in shares: a bounded vector as integers with a member's share of noise, and their sum as a mean.

    encode_noised:  1 kept coordinates, bounded  2 rotate  3 round to integers  4 add the share of noise
    decode_noised:  1 the sum out of its lanes  2 rotate back  3 mean, times 1/p, onto the kept coordinates

One unit of privacy moves a member's vector by at most `unit_norm` in L2 norm. Bounding the vector's norm and each of
its values moves no two vectors apart; a rotation moves them neither together nor apart; and rounding moves each value's
difference by less than one level, whatever the rounding bits are, as both neighbours may be rounded with the same. So
the integers of neighbours are at most `sensitivity` = unit_norm * s + sqrt(padded_length) apart, s the levels of 1.
All of it is computed in float64.

Where the unit is the whole vector, which is there or is zero, rounding need not keep neighbours together: it is enough
that what is rounded is not long. Rounding is then repeated until it is no longer than it nearly always is. The levels
may be coarser by a factor of about sqrt(padded_length) over what the noise needs, which spares three to four bits.

Sums of lanes are taken modulo 2^64 of a word. The sum of the signal always fits; the noise of all members has eight
standard deviations of room on both sides, and beyond these a carry would cost accuracy and never privacy, as what a
word shows is a function of the exact integer sums.

Source: Kairouz, Liu & Steinke 2021, algorithms 1 and 2; with their conditional rounding for whole vectors, and
unconditional rounding, its worst case charged, for all others.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_compression.update.mask import kept_indices
from lepton_compression.update.pipeline import decode_lanes
from lepton_compression.update.plan import RingPlan, derive_lengths
from lepton_compression.update.rotation import rotation_of
from lepton_compression.update.streams import require_seed
from lepton_core.errors import CodecError, FaultError
from lepton_core.lane_widths import words_for
from lepton_core.privacy.discrete_gaussian import LARGEST_VARIANCE, sample_discrete_gaussian
from lepton_core.ring import Lanes, Words, pack, unpack

Doubles = npt.NDArray[np.float64]
#: Uniform 64-bit words from a secret source, shape (count,).
SecretWords = Callable[[int], npt.NDArray[np.uint64]]

#: Widths that are tried, the narrowest first.
_WIDTHS = (12, 16, 21, 32)
#: Most that rounding may add to the sensitivity: a finer level costs a wider lane.
_MOST_INFLATION = 1.05
#: Finer levels than this many in `unit_norm`, over sqrt(padded_length), would spare less than 0.2 % of the noise.
_FINEST = 500.0
#: Charged on top of the sensitivity for what floating-point numbers err by: float32 in a row's norm and gradient, by
#: some 2^-20 of it; float64 in all that follows, by less than 2^-40 of a member's bound.
_ROUNDING_SLACK = 1.0 + 2.0**-10
#: A share's variance where discreteness costs nothing: tau of Kairouz et al. is then below 10^-400.
_LEAST_SHARE_VARIANCE = 100
#: Half the range of a rotated value, in standard deviations of the longest vector allowed.
_RANGE_SIGMAS = 5.0
#: Room for noise on each side of a sum, in standard deviations.
_NOISE_SIGMAS = 8.0
#: Longest vector over `unit_norm`: beyond it float64 would err by more than the slack.
_MOST_UNITS = 2.0**40
#: -ln of the chance beta that conditional rounding has to be repeated. That it was is no secret that anybody keeps: it
#: takes time. So beta, over all rounds and members that a job can have, is far below the last digit of any delta.
_REPEATED = 80.0 * math.log(2.0)
#: More repetitions in a row than ever happen.
_MOST_REPETITIONS = 8


@dataclass(frozen=True)
class Noise:
    """Whose noise keeps what promise."""

    #: Standard deviation of the noise that is surely there, over the sensitivity.
    multiplier: float
    #: m, the fewest members whose sum is ever revealed.
    contributors: int
    #: c, members that may tell their shares; below `contributors`.
    colluders: int

    @property
    def honest(self) -> int:
        """H = m - c, the shares that are surely there and unknown."""
        return self.contributors - self.colluders


@dataclass(frozen=True)
class NoisedPlan:
    """Everything public about one round's encoding with integer noise. Made by `derive_noised_plan`."""

    #: Coordinates, lanes and levels; its `kept_norm` is the bound on a member's whole vector.
    ring: RingPlan
    #: L2 norm by which one unit of privacy moves a member's vector at most.
    unit_norm: float
    #: The same after rotation and rounding, in levels, with the slack for floating-point numbers.
    sensitivity: float
    #: Parameter v of each member's discrete Gaussian.
    share_variance: int
    noise: Noise
    #: Largest squared L2 norm, in levels from zero, of what a whole vector is rounded to; None where the unit is a part
    #: of the vector.
    largest_square: int | None = None

    @property
    def levels_per_unit(self) -> float:
        """s: levels in 1 of a rotated value."""
        return self.ring.max_value / (2.0 * self.ring.scale)

    @property
    def inflation(self) -> float:
        """What rounding and slack have made of the sensitivity, as a factor; at most 1.05 and the slack."""
        return self.sensitivity / (self.unit_norm * self.levels_per_unit)

    @property
    def expected_error(self) -> float:
        """Expected ||decoded mean - mean||^2 over the squared bound, of the fewest members: noise and rounding.

        What a mask leaves out is not in it.
        """
        ring = self.ring
        each = (self.share_variance + 0.25) / self.noise.contributors / self.levels_per_unit**2
        stretch = ring.model_length / ring.kept_length
        return stretch**2 * ring.padded_length * each / ring.kept_norm**2


def derive_noised_plan(
    *,
    model_length: int,
    kept_fraction: float,
    unit_norm: float,
    largest_norm: float,
    members_max: int,
    noise: Noise,
    whole: bool = False,
    shapes: Sequence[tuple[int, ...]] = (),
) -> NoisedPlan:
    """The one encoding that these public numbers allow: the narrowest lane whose levels inflate by at most 5 %.

    `largest_norm`, at least `unit_norm`, bounds a member's vector. `whole`: the unit of privacy is that vector, there
    or zero, so that both norms are the same. `shapes` as in `derive_plan`.

    Raises:
        CodecError: a number out of its range, or no lane is wide enough.
    """
    if not (0.0 < unit_norm <= largest_norm <= _MOST_UNITS * unit_norm and math.isfinite(largest_norm)):
        raise CodecError(
            "no encoding can be derived",
            where="largest_norm",
            expected=f"{unit_norm:g} to {_MOST_UNITS * unit_norm:g}",
            got=f"{largest_norm:g}",
        )
    if whole and largest_norm != unit_norm:
        raise CodecError(
            "no encoding can be derived", where="largest_norm", expected=f"{unit_norm:g}", got=f"{largest_norm:g}"
        )
    if not (0 <= noise.colluders < noise.contributors <= members_max) or not noise.multiplier > 0.0:
        raise CodecError(
            "no encoding can be derived",
            where="noise",
            expected=f"a multiplier above 0, and colluders below contributors, at most {members_max}",
            got=str(noise),
        )
    lengths = derive_lengths(model_length, kept_fraction, shapes)
    root = math.sqrt(lengths.padded)
    scale = largest_norm * min(1.0, _RANGE_SIGMAS / root)

    def of_levels(max_value: int) -> tuple[float, float, int, int | None]:
        """The unit in levels, its sensitivity, the variance of a share for that, and the bound on what is rounded."""
        units = unit_norm * max_value / (2.0 * scale)
        square = _largest_square(units, lengths.padded) if whole else None
        sensitivity = (units + root if square is None else math.sqrt(square)) * _ROUNDING_SLACK
        variance = max(_LEAST_SHARE_VARIANCE, math.ceil((noise.multiplier * sensitivity) ** 2 / noise.honest))
        return units, sensitivity, variance, square

    finest = math.floor(_FINEST * root * 2.0 * scale / unit_norm)
    for bits in _WIDTHS:

        def is_too_fine(half: int, bits: int = bits) -> bool:
            variance = of_levels(2 * half)[2]
            needed = members_max * 2 * half + 2.0 * _NOISE_SIGMAS * math.sqrt(members_max * variance)
            return needed >= 2**bits or variance > LARGEST_VARIANCE

        # The finest levels that the lane has room for: with finer ones, signal and noise only grow.
        halves = range(min(finest, 2**bits) // 2 + 1)
        max_value = 2 * (bisect.bisect_left(halves, True, key=is_too_fine) - 1)
        if max_value < 2:
            continue
        units, sensitivity, variance, square = of_levels(max_value)
        if sensitivity > _MOST_INFLATION * _ROUNDING_SLACK * units:
            continue
        ring = RingPlan(
            model_length=model_length,
            kept_fraction=kept_fraction,
            kept_length=lengths.kept,
            padded_length=lengths.padded,
            value_bits=(max_value + 1).bit_length() - 1,
            max_value=max_value,
            lane_bits=bits,
            update_norm=largest_norm,
            kept_norm=largest_norm,
            scale=scale,
            members_max=members_max,
            profile="noised",
            dithered=False,
            row_groups=lengths.row_groups,
        )
        return NoisedPlan(ring, unit_norm, sensitivity, variance, noise, square)
    raise CodecError(
        "no lane is wide enough for the noise and so fine a level",
        where="aggregation",
        expected=f"at most {_WIDTHS[-1]} bits a value",
        got=f"{lengths.padded} values, noise {noise.multiplier:g} times the sensitivity, sums of {members_max} members",
        hint="take a larger epsilon, fewer rounds, a smaller max_cohort or a smaller kept_fraction",
    )


def _largest_square(norm: float, length: int) -> int:
    """What the squared norm of a vector of `norm` levels exceeds with chance beta at most once its values are rounded.

    A value x becomes a or a + 1, whichever way the bit b falls, and its square a^2 + (2a + 1) b. Their sum has the mean
    ||x||^2 and length / 4 at most, and by Hoeffding's lemma it is subgaussian with the variance sum (2a + 1)^2 / 4, at
    most (norm + sqrt(length) / 2)^2. As in algorithm 1 of Kairouz, Liu & Steinke 2021; and never more than is possible.
    """
    root = math.sqrt(length)
    usual = norm**2 + length / 4.0 + math.sqrt(2.0 * _REPEATED) * (norm + root / 2.0)
    return math.ceil(min(usual, (norm + root) ** 2))


def encode_noised(
    vector: Doubles, plan: NoisedPlan, seed: bytes, *, rounding: SecretWords, noise: SecretWords
) -> Words:
    """One member's words without masks, shape (words,), uint64; `vector`, (model_length,) float64, is left as it was.

    `seed` is the round's public codec seed, 32 bytes; both sources are secret and fresh. What a unit of privacy adds
    to `vector` must be at most `plan.unit_norm` long.

    Raises:
        CodecError: NaN or Inf, another shape or type, or a seed that is not 32 bytes.
    """
    integers = round_to_integers(vector, plan, seed, rounding)
    # 4. Any size and sign: packing is linear modulo 2^64.
    integers += sample_discrete_gaussian(plan.share_variance, len(integers), noise)
    return pack(integers, plan.ring.lane_bits)


def round_to_integers(vector: Doubles, plan: NoisedPlan, seed: bytes, rounding: SecretWords) -> Lanes:
    """A member's integers before noise, shape (padded_length,), int64 in [0, max_value]; nothing of it may leave.

    Raises:
        CodecError: as `encode_noised`.
    """
    ring = plan.ring
    require_seed(seed, "codec seed")
    if vector.shape != (ring.model_length,) or vector.dtype != np.float64:
        raise CodecError(
            "not the vector this plan encodes",
            where="update",
            expected=f"float64 of shape ({ring.model_length},)",
            got=f"{vector.dtype} of shape {vector.shape}",
        )
    if not bool(np.isfinite(vector).all()):
        raise CodecError("an update that is not finite", where="update", expected="finite values")

    # 1. The coordinates that all members send, no longer than the bound.
    kept = np.zeros(ring.padded_length)
    kept[: ring.kept_length] = vector if ring.kept_length == ring.model_length else vector[kept_indices(ring, seed)]
    norm = float(np.linalg.norm(kept))
    if norm > ring.kept_norm:
        kept *= ring.kept_norm / norm

    # 2. Spread over all values alike.
    rotated = rotation_of(seed, ring.padded_length).forward(kept)

    # 3. Up or down by chance, to a level; zero is one.
    np.clip(rotated, -ring.scale, ring.scale, out=rotated)
    rotated += ring.scale
    rotated *= plan.levels_per_unit
    for _ in range(_MOST_REPETITIONS):
        integers = _rounded(rotated, ring.max_value, rounding)
        if plan.largest_square is None or _square_from_zero(integers, ring.max_value) <= plan.largest_square:
            return integers
    raise FaultError("rounding does not end", where="update", hint="the source of secret words is broken")


def _rounded(levels: Doubles, max_value: int, rounding: SecretWords) -> Lanes:
    up = (rounding(len(levels)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    up += levels
    np.floor(up, out=up)
    integers: Lanes = np.clip(up, 0, max_value).astype(np.int64)
    return integers


def _square_from_zero(integers: Lanes, max_value: int) -> int:
    """Exact: no level is finer than `_FINEST` sqrt(length) in a vector, so that squares and their sum fit 63 bits."""
    from_zero = integers - max_value // 2
    return int(np.dot(from_zero, from_zero))


def decode_noised(
    words: Words, members: int, plan: NoisedPlan, seed: bytes, *, self_test: bool = False
) -> tuple[npt.NDArray[np.float32], float]:
    """The mean of the members' vectors and the noise, (model_length,), and the self-test's residual or 0.

    Zero off the kept coordinates, times 1/p on them, as `decode_sum`. `words` is the unmasked sum.

    Raises:
        CodecError: words of another length, members outside [1, members_max], or a seed that is not 32 bytes.
        FaultError: as `decode_and_test`.
    """
    ring = plan.ring
    require_seed(seed, "codec seed")
    if not 1 <= members <= ring.members_max:
        raise CodecError("no such sum", where="members", expected=f"1 to {ring.members_max}", got=str(members))
    if words.shape != (words_for(ring.padded_length, ring.lane_bits),) or words.dtype != np.uint64:
        raise CodecError(
            "not a sum of this plan's words",
            where="total",
            expected=f"uint64 of shape ({words_for(ring.padded_length, ring.lane_bits)},)",
            got=f"{words.dtype} of shape {words.shape}",
        )
    # 1. The middle of what the sum may be, in the middle of the lane.
    shift = 2 ** (ring.lane_bits - 1) - members * ring.max_value // 2
    centred = words + pack(np.full(ring.padded_length, shift, dtype=np.int64), ring.lane_bits)
    total = unpack(centred, ring.lane_bits, ring.padded_length) - shift

    # 2. and 3. As in every round.
    return decode_lanes(total, members, ring, seed, test=self_test)
