"""What a round's ring encoding is, derived whole from a job's public numbers; nothing in it is the user's to tune."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lepton_core.errors import CodecError
from lepton_core.lane_widths import words_for

#: Name and version of the encoding; bound into a round's terms. Golden vectors hold it in place.
CODEC_VERSION = "ring/3"

Profile = Literal["exact", "default", "lean", "tiny"]

#: Bytes of a round's public codec seed, of a rounding key and of a dither.
SEED_BYTES = 32
#: Rotated blocks are cut down to this size, so that padding stays under 16 values.
SMALLEST_BLOCK = 16
#: Largest rotated block: three 16 x 16 factors. One hot value is spread over this many.
LARGEST_BLOCK = 4096
#: Longest vector: 2^33 values are 32 GiB of float32. A claim beyond it is refused before memory is taken.
LONGEST_VECTOR = 2**33
#: Largest fixed-point width of a value while it is rounded; keeps the arithmetic within int32.
_FIXED_POINT_BITS = 31
#: Two random bytes round a value: its chance of going up is exact to 2^-16 of a level.
_FRACTION_BITS_MAX = 16
#: Lane bits and fraction bits together, so that a rotated sum stays within float64's 53 exact bits: 33 of a sum with
#: its sign and half levels, 20 of the rotation's factors and sums.
_EXACT_BITS = 32

_LANE_BITS: dict[Profile, int] = {"exact": 21, "default": 16, "lean": 12, "tiny": 8}
#: Half the quantizer's range in standard deviations of a rotated value, by whole bits of levels: a wider range makes
#: coarser levels, a narrower one saturates more. Near the least squared error for Gaussian values at each width, and a
#: little above it, because members who agree average their rounding but not what saturates.
_RANGE_SIGMAS = ((1, 1.5), (2, 2.0), (4, 2.8), (8, 4.0), (12, 5.0), (14, 5.5), (17, 6.2))


@dataclass(frozen=True)
class RowGroup:
    """A tensor's rows (a convolution's output channels, a bias's values), of which all members send the same few."""

    rows: int
    #: Values of a row.
    row_length: int
    #: Rows that are sent, at least 1.
    kept_rows: int


@dataclass(frozen=True)
class RingPlan:
    """Everything public about one round's encoding. Made by `derive_plan`, equal for all members."""

    #: Values of the whole update.
    model_length: int
    #: Share of coordinates asked for, in (0, 1].
    kept_fraction: float
    #: Coordinates all members send, at least 1.
    kept_length: int
    #: `kept_length` filled up with zeros to a multiple of 16: the number of lanes.
    padded_length: int
    #: Whole bits a value carries: the most q with members_max * (2^q - 1) < 2^lane_bits.
    value_bits: int
    #: Largest value of a lane before summing, L: floor((2^lane_bits - 1) / members_max), made even where above 1, so
    #: that zero is a level. A lane is in [0, L], a sum of `members` lanes in [0, members * L]; neither can wrap.
    max_value: int
    #: Bits of a lane in the ring.
    lane_bits: int
    #: L2 bound of a member's whole update, C.
    update_norm: float
    #: L2 bound of the kept coordinates, C * sqrt(kept_length / model_length); what a member is clipped to.
    kept_norm: float
    #: Rotated values in [-scale, scale] map onto [0, max_value]; beyond, they saturate.
    scale: float
    #: Most members of a sum.
    members_max: int
    #: `noised`: lanes and levels follow from integer noise (`noised`).
    profile: Profile | Literal["noised"]
    #: True if rounding is subtractively dithered: half the error, not to be used where rounding is a privacy mechanism.
    dithered: bool
    #: Whole rows are kept, so many of each tensor in the layout's order; empty: single coordinates are.
    row_groups: tuple[RowGroup, ...] = ()

    #: Encodings may be added up as integers, and nobody needs to see a single one.
    ring_summable: ClassVar[bool] = True

    @property
    def payload_bytes(self) -> int:
        """Bytes of one member's packed words."""
        return 8 * words_for(self.padded_length, self.lane_bits)

    @property
    def bytes_per_parameter(self) -> float:
        """Payload bytes over all values of the model, padding included."""
        return self.payload_bytes / self.model_length

    @property
    def fraction_bits(self) -> int:
        """Fractional bits of a value while it is rounded, 10 to 16."""
        return min(_FRACTION_BITS_MAX, _FIXED_POINT_BITS - self.max_value.bit_length(), _EXACT_BITS - self.lane_bits)

    @property
    def expected_saturation(self) -> float:
        """Expected share of rotated values beyond `scale`, for an update as long as allowed."""
        return 2.0 * _upper_tail(self._range_sigmas)

    @property
    def expected_encoding_error(self) -> float:
        """Expected squared error of one member's kept coordinates over kept_norm^2, rounding and saturation."""
        k = self._range_sigmas
        level = 2.0 * k / self.max_value
        beyond = 2.0 * ((1.0 + k * k) * _upper_tail(k) - k * math.exp(-k * k / 2.0) / math.sqrt(2.0 * math.pi))
        return level**2 / (12.0 if self.dithered else 6.0) + max(0.0, beyond)

    @property
    def expected_error(self) -> float:
        """Expected ||decoded mean - mean||^2 / C^2 of `members_max` independent updates of norm C, mask included."""
        stretch = self.model_length / self.kept_length
        return (stretch * (1.0 + self.expected_encoding_error) - 1.0) / self.members_max

    @property
    def _range_sigmas(self) -> float:
        """`scale` in standard deviations of a rotated value of an update as long as allowed."""
        return self.scale * math.sqrt(self.padded_length) / self.kept_norm


def derive_plan(
    *,
    model_length: int,
    kept_fraction: float,
    profile: Profile,
    update_norm: float,
    members_max: int,
    dithered: bool = False,
    shapes: Sequence[tuple[int, ...]] = (),
) -> RingPlan:
    """The one encoding that these public numbers allow.

    The lanes hold as many levels as a sum of `members_max` leaves room for; a wrap-around is impossible. With `shapes`,
    those of the model's tensors in order, whole rows are kept, of each tensor the fraction rounded up; without, single
    coordinates, their number rounded down to fill blocks and lanes, so that no padding is paid for.

    Raises:
        CodecError: a number out of its range, or so many members that a lane leaves them less than two levels.
    """
    lengths = derive_lengths(model_length, kept_fraction, shapes)
    _require(profile in _LANE_BITS, "profile", ", ".join(_LANE_BITS), profile)
    _require(1e-20 <= update_norm <= 1e20, "update_norm", "1e-20 to 1e20", update_norm)
    _require(members_max >= 1, "members_max", "at least 1", members_max)
    lane_bits = _LANE_BITS[profile]
    max_value = (2**lane_bits - 1) // members_max
    if max_value < 1:
        raise CodecError(
            "so many members leave no level in a lane",
            where="members_max",
            expected=f"at most {2**lane_bits - 1} members for profile {profile}",
            got=str(members_max),
            hint="take a wider profile or a smaller cohort",
        )
    value_bits = (max_value + 1).bit_length() - 1
    if max_value > 1:
        max_value -= max_value % 2  # zero lies on a level, so a member that learnt nothing adds exactly nothing
    kept_norm = update_norm * math.sqrt(lengths.kept / model_length)
    return RingPlan(
        model_length=model_length,
        kept_fraction=kept_fraction,
        kept_length=lengths.kept,
        padded_length=lengths.padded,
        value_bits=value_bits,
        max_value=max_value,
        lane_bits=lane_bits,
        update_norm=update_norm,
        kept_norm=kept_norm,
        scale=kept_norm * min(1.0, _range_sigmas(value_bits) / math.sqrt(lengths.padded)),
        members_max=members_max,
        profile=profile,
        dithered=dithered,
        row_groups=lengths.row_groups,
    )


@dataclass(frozen=True)
class Lengths:
    """How many coordinates of a model are sent."""

    kept: int
    #: `kept` filled up with zeros to a multiple of 16.
    padded: int
    row_groups: tuple[RowGroup, ...]


def derive_lengths(model_length: int, kept_fraction: float, shapes: Sequence[tuple[int, ...]]) -> Lengths:
    """The coordinates that `derive_plan` says are kept.

    Raises:
        CodecError: a number out of its range, or shapes of another model.
    """
    _require(1 <= model_length <= LONGEST_VECTOR, "model_length", f"1 to {LONGEST_VECTOR}", model_length)
    _require(0.0 < kept_fraction <= 1.0, "kept_fraction", "above 0, at most 1", kept_fraction)
    _require(
        not shapes or sum(math.prod(shape) for shape in shapes) == model_length,
        "shapes",
        f"{model_length} values in all",
        shapes,
    )
    row_groups = _row_groups(shapes, kept_fraction) if kept_fraction < 1.0 else ()
    kept = sum(group.kept_rows * group.row_length for group in row_groups) or _kept_length(model_length, kept_fraction)
    return Lengths(kept, -(-kept // SMALLEST_BLOCK) * SMALLEST_BLOCK, row_groups)


def _kept_length(model_length: int, kept_fraction: float) -> int:
    """Coordinates to keep: whole blocks of 16, unless they are all or fewer."""
    kept = round(model_length * kept_fraction)
    if kept == model_length or kept < SMALLEST_BLOCK:
        return max(1, kept)
    return kept - kept % SMALLEST_BLOCK


def _row_groups(shapes: Sequence[tuple[int, ...]], kept_fraction: float) -> tuple[RowGroup, ...]:
    """Rows along each tensor's first axis."""
    groups = []
    for shape in shapes:
        rows = shape[0] if shape else 1
        groups.append(RowGroup(rows, math.prod(shape[1:]), math.ceil(rows * kept_fraction)))
    return tuple(groups)


def _upper_tail(x: float) -> float:
    """P(Z > x) of a standard normal value."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


def _range_sigmas(value_bits: int) -> float:
    """The range of `_RANGE_SIGMAS`, linear between its rows and flat beyond them."""
    for (low_bits, low), (high_bits, high) in itertools.pairwise(_RANGE_SIGMAS):
        if value_bits <= high_bits:
            return low + (high - low) * (value_bits - low_bits) / (high_bits - low_bits)
    return _RANGE_SIGMAS[-1][1]


def _require(holds: bool, where: str, expected: str, got: object) -> None:  # noqa: FBT001 (the condition itself)
    if not holds:
        raise CodecError("no encoding can be derived", where=where, expected=expected, got=str(got))
