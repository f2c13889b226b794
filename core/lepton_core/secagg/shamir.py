"""Shamir's secret sharing over the field of integers modulo p = 2^256 - 189.

Source: Shamir 1979, "How to share a secret". Fewer than `threshold` shares say nothing about the secret.
Python integers are not constant-time; they are used on the member's own machine only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from lepton_core.errors import InputError
from lepton_core.ports import Randomness

#: The largest prime below 2^256, so that a uniform 32-byte string is a field element but with chance 2^-248.
PRIME = 2**256 - 189
ELEMENT_BYTES = 32


def draw_element(randomness: Randomness) -> int:
    """A uniform field element, by rejection."""
    while True:
        candidate = int.from_bytes(randomness.token(ELEMENT_BYTES), "big")
        if candidate < PRIME:
            return candidate


def encode_element(element: int) -> bytes:
    """32 bytes, big-endian."""
    return element.to_bytes(ELEMENT_BYTES, "big")


def parse_element(data: bytes) -> int:
    """The field element in 32 big-endian bytes.

    Raises:
        InputError: another length, or p or more; the value is not told.
    """
    if len(data) != ELEMENT_BYTES:
        raise InputError("a field element of another length", expected="32 bytes", got=f"{len(data)} bytes")
    element = int.from_bytes(data, "big")
    if element >= PRIME:
        raise InputError("not a field element", expected="less than 2^256 - 189", got="a larger number")
    return element


def split(secret: int, threshold: int, xs: Sequence[int], randomness: Randomness) -> tuple[int, ...]:
    """One share for each x, any `threshold` of which rebuild the secret.

    The polynomial is secret + sum_j c_j x^j with c_1 .. c_{threshold-1} uniform, drawn in that order.

    Raises:
        InputError: the secret is no field element, an x is 0, p or more, or repeated, or too few xs.
    """
    if not 0 <= secret < PRIME:
        raise InputError("a secret that is no field element", expected="0 <= secret < p")
    _require_points(xs)
    if not 1 <= threshold <= len(xs):
        raise InputError("a threshold that cannot be met", expected=f"1 to {len(xs)}", got=str(threshold))
    coefficients = [secret, *(draw_element(randomness) for _ in range(threshold - 1))]
    return tuple(_evaluate(coefficients, x) for x in xs)


def reconstruct(shares: Sequence[int], xs: Sequence[int], threshold: int) -> int:
    """The secret behind exactly `threshold` shares; `shares[i]` was dealt for `xs[i]`.

    Wrong shares give a wrong secret: the caller checks shares against the dealer's digests, and the secret against
    the dealer's commitment.

    Raises:
        InputError: not exactly `threshold` shares, a repeated x, or x = 0.
    """
    if len(shares) != threshold or len(xs) != threshold:
        raise InputError("reconstruction takes exactly the threshold", expected=str(threshold), got=str(len(shares)))
    return combine(shares, weights_at_zero(xs))


def weights_at_zero(xs: Sequence[int]) -> tuple[int, ...]:
    """Lagrange's coefficients at 0: l_i = prod_{j != i} x_j / (x_j - x_i) mod p. They depend on the xs only.

    Raises:
        InputError: a repeated x, or x = 0.
    """
    _require_points(xs)
    # l_i = P / d_i with P the product of all xs and d_i = x_i prod_{j != i} (x_j - x_i). One inversion serves all:
    # 1 / d_i = (d_1 .. d_{i-1}) (d_{i+1} .. d_n) / (d_1 .. d_n).
    everything = math.prod(xs) % PRIME
    divisors = [x * math.prod([other - x for other in xs if other != x]) % PRIME for x in xs]
    before = [1, *accumulate(divisors, _times)]
    inverse = pow(before[-1], -1, PRIME) * everything % PRIME
    weights = []
    for divisor, product in zip(reversed(divisors), reversed(before[:-1]), strict=True):
        weights.append(inverse * product % PRIME)
        inverse = inverse * divisor % PRIME
    return tuple(reversed(weights))


def combine(shares: Sequence[int], weights: Sequence[int]) -> int:
    """sum_i weights_i shares_i mod p."""
    return sum(weight * share for weight, share in zip(weights, shares, strict=True)) % PRIME


def _times(left: int, right: int) -> int:
    return left * right % PRIME


def _evaluate(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):  # Horner
        value = (value * x + coefficient) % PRIME
    return value


def _require_points(xs: Sequence[int]) -> None:
    if any(not 0 < x < PRIME for x in xs) or len(set(xs)) != len(xs):
        raise InputError("share points must be distinct and not 0", expected="0 < x < p, each once")
