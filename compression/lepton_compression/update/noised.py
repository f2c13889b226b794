"""Integer noise in shares: a bounded vector as integers with a member's share of noise, and their sum as a mean.

    encode_noised:  1 kept coordinates, bounded  2 rotate  3 round to integers  4 add the share of noise
    decode_noised:  1 the sum out of its lanes  2 rotate back  3 mean, times 1/p, onto the kept coordinates

One unit of privacy moves a member's vector by at most `unit_norm` in L2 norm. Bounding the vector's norm and each of
its values moves no two vectors apart; a rotation moves them neither together nor apart; and rounding moves each value's
difference by less than one level, whatever the rounding bits are, as both neighbours may be rounded with the same. So
the integers of neighbours are at most `sensitivity` = unit_norm * s + sqrt(padded_length) apart, s the levels of 1.
All of it is computed in float64.

Sums of lanes are taken modulo 2^64 of a word. The sum of the signal always fits; the noise of all members has eight
standard deviations of room on both sides, and beyond these a carry would cost accuracy and never privacy, as what a
word shows is a function of the exact integer sums.

Source: Kairouz, Liu & Steinke 2021, algorithms 1 and 2, with unconditional rounding and its worst case charged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_compression.update.mask import kept_indices
from lepton_compression.update.pipeline import decode_lanes
from lepton_compression.update.plan import RingPlan, derive_lengths
from lepton_compression.update.rotation import Rotation
from lepton_compression.update.streams import require_seed
from lepton_core.errors import CodecError
from lepton_core.privacy.discrete_gaussian import LARGEST_VARIANCE, sample_discrete_gaussian
from lepton_core.ring import Lanes, Words, pack, unpack, words_for

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
    shapes: Sequence[tuple[int, ...]] = (),
) -> NoisedPlan:
    """The one encoding that these public numbers allow: the narrowest lane whose levels inflate by at most 5 %.

    `largest_norm`, at least `unit_norm`, bounds a member's vector; `shapes` as in `derive_plan`.

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
    #: Standard deviations of all members' noise, over the sensitivity, that a lane has room for.
    room = 2.0 * _NOISE_SIGMAS * noise.multiplier * math.sqrt(members_max / noise.honest) * _ROUNDING_SLACK
    # Levels in `unit_norm` that a share's deviation and the last percents of inflation leave a use for.
    largest_deviation = math.sqrt(LARGEST_VARIANCE * noise.honest) / noise.multiplier / _ROUNDING_SLACK
    finest = min(_FINEST * root, 0.999 * largest_deviation - root)
    for bits in _WIDTHS:
        # room (unit_norm L / 2 scale + root) + members L <= 2^bits - 1, solved for L.
        most = (2**bits - 1 - room * root) / (room * unit_norm / (2.0 * scale) + members_max)
        max_value = max(0, math.floor(min(most, finest * 2.0 * scale / unit_norm))) & ~1
        if max_value < 2:
            continue
        units = unit_norm * max_value / (2.0 * scale)
        sensitivity = (units + root) * _ROUNDING_SLACK
        variance = max(_LEAST_SHARE_VARIANCE, math.ceil((noise.multiplier * sensitivity) ** 2 / noise.honest))
        needed = members_max * max_value + 2.0 * _NOISE_SIGMAS * math.sqrt(members_max * variance)
        if units + root > _MOST_INFLATION * units or needed >= 2**bits or variance > LARGEST_VARIANCE:
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
        return NoisedPlan(ring, unit_norm, sensitivity, variance, noise)
    raise CodecError(
        "no lane is wide enough for the noise and so fine a level",
        where="aggregation",
        expected=f"at most {_WIDTHS[-1]} bits a value",
        got=f"{lengths.padded} values, noise {noise.multiplier:g} times the sensitivity, sums of {members_max} members",
        hint="take a larger epsilon, fewer rounds, a smaller max_cohort or a smaller kept_fraction",
    )


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
    rotated = Rotation(seed, ring.padded_length).forward(kept)

    # 3. Up or down by chance, to a level; zero is one.
    np.clip(rotated, -ring.scale, ring.scale, out=rotated)
    rotated += ring.scale
    rotated *= plan.levels_per_unit
    rotated += (rounding(ring.padded_length) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    np.floor(rotated, out=rotated)
    integers: Lanes = np.clip(rotated, 0, ring.max_value).astype(np.int64)
    return integers


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
