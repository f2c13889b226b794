"""Reals onto the levels of a lane by unconditional stochastic rounding, and sums of lanes back.

A rotated value z in [-c, c] becomes v = (z / c + 1) L / 2 in [0, L] and is rounded to floor(v + u), u uniform and
independent of the data. It is computed in int32 fixed point with f fraction bits, so that the chance of going up is
exact to 2^-f of a level. Values outside [-c, c] saturate; the map is 1-Lipschitz, so it never adds sensitivity.

Guarantees, for |z| <= c:

| rounding | error of a value | expected squared error |
|---|---|---|
| stochastic, u secret | unbiased, less than one level | at most 1/4, mean 1/6 level^2 |
| dithered, u subtracted by the decoder | uniform on half a level each way, independent of z | 1/12 level^2 |

One level is 2 c / L.
Source: Alistarh et al. 2017 (QSGD), section 3.1; Roberts 1962 and Schuchman 1964 for subtractive dither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_compression.native import load_kernels
from lepton_compression.update.plan import RingPlan
from lepton_compression.update.streams import CHUNK
from lepton_core.layout import Vector
from lepton_core.ring import Lanes

#: One 16-bit word a value, in pieces of at most `CHUNK`.
RoundingWords = Iterator[npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Quantized:
    """One member's rounded values, and what rounding them has cost."""

    #: Shape (padded_length,), int64 in [0, max_value].
    lanes: Lanes
    #: Values beyond the plan's scale.
    saturated: int
    #: Sum of the squared differences to what a decoder makes of the lanes, saturation included.
    squared_error: float


def quantize(rotated: Vector, plan: RingPlan, words: RoundingWords, *, offset: int = 0) -> Quantized:
    """The rotated values, shape (padded_length,), on the levels of a lane.

    `words` round: secret and fresh, or the round's dither words, to which `offset` is added modulo 2^16.
    """
    lanes = np.empty(plan.padded_length, dtype=np.int64)
    levels = _Levels.of(plan)
    saturated, squared_error = 0, 0.0
    start = 0
    for common in words:
        stop = start + len(common)
        difference = np.empty(len(common), dtype=np.float32)
        saturated += levels.round(rotated[start:stop], common, offset, lanes[start:stop], difference)
        squared_error += float(difference @ difference)
        start = stop
    return Quantized(lanes, saturated, squared_error / float(levels.unit) ** 2)


@dataclass(frozen=True)
class _Levels:
    """The levels of a lane, in fixed point with `fraction_bits` bits below a level."""

    fraction_bits: int
    #: Half of the levels; exact: at most 2^30 with 20 significant bits.
    bound: np.float32
    #: Steps in one unit of a rotated value.
    unit: np.float32
    #: Steps from level 0 to the value 0.
    middle: int
    dithered: bool

    @classmethod
    def of(cls, plan: RingPlan) -> _Levels:
        bound = np.float32(plan.max_value * 2.0 ** (plan.fraction_bits - 1))
        return cls(
            plan.fraction_bits,
            bound,
            np.float32(float(bound) / plan.scale),
            plan.max_value << (plan.fraction_bits - 1),
            plan.dithered,
        )

    def round(
        self,
        rotated: Vector,
        common: npt.NDArray[np.uint16],
        offset: int,
        lanes: Lanes,
        difference: npt.NDArray[np.float32],
    ) -> int:
        """Fill lanes, and the steps by which each is off; how many values lay beyond the bound."""
        kernels = load_kernels()
        if kernels is not None:
            return kernels.quantize(
                rotated,
                common,
                lanes,
                difference,
                offset=offset,
                fraction_bits=self.fraction_bits,
                middle=self.middle,
                bound=float(self.bound),
                unit=float(self.unit),
                dithered=self.dithered,
            )
        random = (common + np.uint16(offset)) >> np.uint16(16 - self.fraction_bits)
        np.multiply(rotated, self.unit, out=difference)
        beyond = np.abs(difference)
        saturated = int(np.count_nonzero(beyond > self.bound))
        fixed = np.rint(np.clip(difference, -self.bound, self.bound, out=beyond)).astype(np.int32)
        fixed += np.int32(self.middle)
        fixed += random
        fixed >>= np.int32(self.fraction_bits)
        lanes[:] = fixed
        fixed <<= np.int32(self.fraction_bits)
        fixed -= np.int32(self.middle)
        if self.dithered:
            fixed -= random
            difference -= np.float32(2.0 ** (self.fraction_bits - 1) - 0.5)
        difference -= fixed
        return saturated


def dequantize_sum(
    total: Lanes, members: int, plan: RingPlan, words: RoundingWords | None = None, offsets: Sequence[int] = ()
) -> npt.NDArray[np.float64]:
    """The summed rotated values in steps of half a level's 2^-f, shape (padded_length,).

    `words` are the round's dither words and `offsets` those of the members, if the plan is dithered. Every value is an
    integer of at most 2^33, so that its rotation is exact in float64; `step_size` is its unit.
    """
    fraction_bits = plan.fraction_bits
    taken = _dither_sums(offsets, fraction_bits) if words is not None else None
    middle = members * plan.max_value
    kernels = load_kernels()
    steps = np.empty(plan.padded_length, dtype=np.float64)
    for start in range(0, plan.padded_length, CHUNK):
        # floor(v + u) - (u - mean of u): twice the level, so that the middle L / 2 and the mean of u are whole.
        piece, target = total[start : start + CHUNK], steps[start : start + CHUNK]
        common = next(words) if words is not None else None
        if kernels is not None:
            kernels.dequantize(piece, common, taken, target, middle=middle, fraction_bits=fraction_bits)
            continue
        exact = piece * 2 - middle
        exact <<= fraction_bits
        if common is not None and taken is not None:
            exact -= taken[common]
        target[:] = exact
    return steps


def step_size(plan: RingPlan) -> float:
    """The rotated value that one step of `dequantize_sum` stands for."""
    return plan.scale / (plan.max_value * 2.0**plan.fraction_bits)


def _dither_sums(offsets: Iterable[int], fraction_bits: int) -> npt.NDArray[np.int64]:
    """By common dither word, shape (2^16,): the steps that the members' dithers have added at it, less their mean."""
    every = np.arange(2**16, dtype=np.uint16)
    sums = np.zeros(2**16, dtype=np.int64)
    for offset in offsets:
        sums += ((every + np.uint16(offset)) >> np.uint16(16 - fraction_bits)).astype(np.int64) * 2
        sums -= 2**fraction_bits - 1
    return sums
