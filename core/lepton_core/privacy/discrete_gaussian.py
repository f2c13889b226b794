"""Exact samples of the discrete Gaussian, for noise that is added to integers: P(x) is proportional to exp(-x^2 / 2v).

Rejection from a discrete Laplace distribution (Canonne, Kamath & Steinke 2020, algorithm 3), vectorized, with each
random decision made as if on real numbers:

1. Propose. With t a power of two near sqrt(v): u uniform in (0, 1), m = floor(-t ln u), and a sign; a negative zero
   is thrown away. As P(m >= j) = P(u <= exp(-j / t)), m is geometric with ratio exp(-1 / t), and x = sign * m is
   discrete Laplace: P(x) is proportional to exp(-|x| / t).
2. Accept with probability exp(-(|x| - v / t)^2 / 2v). The product with step 1's probability is exp(-x^2 / 2v) times a
   constant, so that what is accepted has exactly the distribution asked for.

Why it is exact, though numpy's doubles are not: u is a real number of which 64 bits are drawn first. A decision is
taken from doubles only if it stays the same for every u with these bits and every error that doubles can make here;
the bounds below leave more than a hundred times what IEEE 754 and numpy's logarithm and exponential (4 units in the
last place) can err by. Any other decision, one of 10^4 at the most, is made on integers: exp is enclosed between two
multiples of 2^-p, and u gets more bits until it lies on one side. The tests compare both with rational arithmetic.

The time taken depends on the samples' number of proposals and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import numpy.typing as npt

from lepton_core.errors import InputError

#: Uniform 64-bit words from a secret source, shape (count,).
Words = Callable[[int], npt.NDArray[np.uint64]]
Integers = npt.NDArray[np.int64]

#: Standard deviations up to 2^25: the proposals' scale stays below 2^26, and x * t below 2^63.
LARGEST_VARIANCE = 2**50
#: Proposals at a time; the temporaries stay in the cache.
_CHUNK = 2**14
#: Below this word, u is known too coarsely for a double's logarithm: one of 2^20.
_LEAST_WORD = np.uint64(2**44)
#: ln u errs by at most 2^-44 (64 bits of a word above 2^44), and 2^-49 (rounding): far less than this.
_LOG_ERROR = 2.0**-41
#: exp(-y) and u err by at most 2^-49 together.
_CHANCE_ERROR = 2.0**-42


def sample_discrete_gaussian(variance: int, count: int, words: Words) -> Integers:
    """`count` independent discrete Gaussians of this parameter v, shape (count,), int64.

    The distribution's variance is below v, and above v (1 - 1e-6). `words` must be secret and uniform.

    Raises:
        InputError: v is not an integer in [1, 2^50], or a negative count.
    """
    if not 1 <= variance <= LARGEST_VARIANCE or variance != int(variance):
        raise InputError("not a noise that can be drawn", where="variance", expected="1 to 2^50", got=repr(variance))
    if count < 0:
        raise InputError("not a number of samples", where="count", expected="0 or more", got=str(count))
    scale = _scale_for(variance)
    samples, filled = np.empty(count, dtype=np.int64), 0
    while filled < count:
        proposed = _propose(scale, min(_CHUNK, 13 * (count - filled) // 8 + 32), words)
        taken = proposed[_accept(proposed, variance, scale, words)][: count - filled]
        samples[filled : filled + len(taken)] = taken
        filled += len(taken)
    return samples


def _scale_for(variance: int) -> int:
    """The smallest power of two at or above three quarters of the standard deviation: at least .64 are accepted."""
    scale = 1
    while 16 * scale * scale < 9 * variance:
        scale *= 2
    return scale


def _propose(scale: int, count: int, words: Words) -> Integers:
    """Discrete Laplace samples, a few fewer than `count`: step 1."""
    first = words(count)
    x = np.log(_as_unit(first)) * -scale
    magnitudes = x.astype(np.int64)
    rest = x - magnitudes
    margin = scale * _LOG_ERROR
    for place in np.flatnonzero((rest <= margin) | (rest >= 1.0 - margin) | (first < _LEAST_WORD)):
        magnitudes[place] = exact_magnitude(int(first[place]), scale, words)
    bits = np.unpackbits(words(-(-count // 64)).view(np.uint8), count=count).view(np.bool_)
    kept: Integers = np.where(bits, -magnitudes, magnitudes)[~(bits & (magnitudes == 0))]
    return kept


def _accept(proposed: Integers, variance: int, scale: int, words: Words) -> npt.NDArray[np.bool_]:
    """Which proposals stay: step 2."""
    first = words(len(proposed))
    distance = np.abs(proposed) - variance / scale
    above = _as_unit(first) - np.exp(distance * distance * (-0.5 / variance))
    accepted: npt.NDArray[np.bool_] = above < 0.0
    for place in np.flatnonzero(np.abs(above) <= _CHANCE_ERROR):
        gap = abs(int(proposed[place])) * scale - variance
        accepted[place] = is_below(int(first[place]), gap * gap, 2 * variance * scale * scale, words)
    return accepted


def _as_unit(first: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The middle of what these first 64 bits leave open of u, to 53 bits."""
    return (first.astype(np.float64) + 0.5) * 2.0**-64


def exact_magnitude(first: int, scale: int, words: Words) -> int:
    """floor(-scale ln u) of the real u whose first 64 bits are these, and whose others `words` gives."""
    value, bits = first, 64
    while True:
        near = int(scale * (bits * log(2.0) - log(value + 0.5))) if value else 0
        precision = bits + 64
        for magnitude in range(max(0, near - 1), near + 2) if value else ():
            # All of [value, value + 1) / 2^bits lies in (exp(-(m + 1) / t), exp(-m / t)].
            above = enclose_exp(magnitude, scale, precision)[0] >= (value + 1) << 64
            if above and value << 64 >= enclose_exp(magnitude + 1, scale, precision)[1]:
                return magnitude
        value, bits = value << 64 | int(words(1)[0]), bits + 64


def is_below(first: int, numerator: int, denominator: int, words: Words) -> bool:
    """True if u < exp(-numerator / denominator), of the real u whose first 64 bits are these."""
    value, bits = first, 64
    while True:
        low, high = enclose_exp(numerator, denominator, bits + 64)
        if (value + 1) << 64 <= low:
            return True
        if value << 64 >= high:
            return False
        value, bits = value << 64 | int(words(1)[0]), bits + 64


def enclose_exp(numerator: int, denominator: int, precision: int) -> tuple[int, int]:
    """Integers low <= 2^precision exp(-numerator / denominator) <= high, that differ by few units.

    exp(-r / 2^s) by its series, r / 2^s at most 1/2, in fixed point with guard bits; then squared s times, low down and
    high up. Every term of the series errs by less than 4 units: each step halves the error before it and adds 2.
    """
    halvings = (numerator // denominator).bit_length() + 1
    guarded = precision + 2 * halvings + 64
    small = (numerator << guarded) // (denominator << halvings)
    total = term = 1 << guarded
    count = 0
    while term:
        count += 1
        term = (term * small >> guarded) // count
        total += -term if count % 2 else term
    error = 4 * count + 4
    low, high = max(0, total - error), total + error
    for _ in range(halvings):
        low, high = low * low >> guarded, -(-high * high >> guarded)
    drop = guarded - precision
    return low >> drop, -(-high >> drop)
