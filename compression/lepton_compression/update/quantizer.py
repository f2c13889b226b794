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

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lepton_compression.update.plan import RingPlan
from lepton_compression.update.streams import CHUNK, keystream_uint16
from lepton_core.layout import Vector
from lepton_core.ring import Lanes


def quantize(rotated: Vector, plan: RingPlan, rounding_key: bytes) -> tuple[Lanes, int]:
    """The lanes, shape (padded_length,), int64 in [0, max_value], and how many values saturated.

    `rounding_key` keys the 16-bit words that round, one a value: secret and fresh, or the member's dither.
    """
    fraction_bits = plan.fraction_bits
    bound = np.float32(plan.max_value * 2.0 ** (fraction_bits - 1))  # exact: at most 2^30 with 20 significant bits
    unit = np.float32(float(bound) / plan.scale)
    middle = np.int32(plan.max_value << (fraction_bits - 1))
    drop = np.uint16(16 - fraction_bits)
    lanes = np.empty(plan.padded_length, dtype=np.int64)
    saturated = 0
    start = 0
    for random in keystream_uint16(rounding_key, plan.padded_length):
        stop = start + len(random)
        scaled = rotated[start:stop] * unit
        saturated += int(np.count_nonzero(np.abs(scaled) > bound))
        np.clip(scaled, -bound, bound, out=scaled)
        fixed = np.rint(scaled, out=scaled).astype(np.int32)
        fixed += middle
        fixed += random >> drop
        fixed >>= np.int32(fraction_bits)
        lanes[start:stop] = fixed
        start = stop
    return lanes, saturated


def dequantize_sum(total: Lanes, members: int, plan: RingPlan, dithers: Sequence[bytes]) -> npt.NDArray[np.float64]:
    """The summed rotated values in steps of half a level's 2^-f, shape (padded_length,).

    Every value is an integer of at most 2^33, so that its rotation is exact in float64; `step_size` is its unit.
    """
    fraction_bits = plan.fraction_bits
    drop = np.uint16(16 - fraction_bits)
    streams = [keystream_uint16(dither, plan.padded_length) for dither in dithers]
    steps = np.empty(plan.padded_length, dtype=np.float64)
    for start in range(0, plan.padded_length, CHUNK):
        # floor(v + u) - (u - mean of u): twice the level, so that the middle L / 2 and the mean of u are whole.
        exact = total[start : start + CHUNK] * 2 - members * plan.max_value
        exact <<= fraction_bits
        for stream in streams:
            exact -= 2 * (next(stream) >> drop).astype(np.int64) - (2**fraction_bits - 1)
        steps[start : start + CHUNK] = exact
    return steps


def step_size(plan: RingPlan) -> float:
    """The rotated value that one step of `dequantize_sum` stands for."""
    return plan.scale / (plan.max_value * 2.0**plan.fraction_bits)
