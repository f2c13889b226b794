"""Concentrated privacy of integer noise: what a sum of discrete Gaussians costs, and what epsilon that is.

rho-zCDP bounds the Rényi divergence of every order a > 1 by a rho; compositions add their rho.
"""

from __future__ import annotations

import math

from lepton_core.errors import InputError, RefusedError

#: Orders that are tried: 1 + exp(u), u from -12 to 18. Every order gives a bound that holds; the best is searched.
_LEAST_LOG_ORDER, _MOST_LOG_ORDER = -12.0, 18.0
_COARSE_STEPS = 300
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_REFINEMENTS = 60
#: Terms of tau that are added one by one.
_MOST_TERMS = 10_000


def sum_rho(*, sensitivity: float, share_variance: float, shares: int, dimension: int) -> float:
    """What it costs to add `shares` independent discrete Gaussians of this parameter to each coordinate, as rho.

    `sensitivity` is the largest L2 distance of neighbours' integer vectors, `dimension` their length: rounding, padding
    and rotation included. `shares` are those that are surely there: of the fewest survivors, less the colluders.

    Source: Kairouz, Liu & Steinke 2021, proposition 14: the divergence of order a is at most
    min(a D^2 / 2s + tau d, a (D / sqrt(s) + tau sqrt(d))^2 / 2), where s is the sum's variance and
    tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 v k / (k + 1)); a > 1 makes both multiples of a.

    Raises:
        InputError: a number out of range.
    """
    if not (math.isfinite(sensitivity) and sensitivity >= 0.0):
        raise _out_of_range("sensitivity", "finite, at least 0", sensitivity)
    if not (math.isfinite(share_variance) and share_variance > 0.0):
        raise _out_of_range("share_variance", "finite, above 0", share_variance)
    if shares < 1:
        raise _out_of_range("shares", "at least 1", shares)
    if dimension < 1:
        raise _out_of_range("dimension", "at least 1", dimension)
    # A term falls with k, so that those left out count as one that is not; none counts as nothing.
    terms = [_tau_term(share_variance, k) for k in range(1, min(shares, _MOST_TERMS))]
    tau = 10.0 * (math.fsum(terms) + max(0, shares - _MOST_TERMS) * _tau_term(share_variance, _MOST_TERMS))
    ratio = sensitivity / math.sqrt(share_variance * shares)
    inflated = ratio + tau * math.sqrt(dimension)
    return min(ratio * ratio / 2.0 + tau * dimension, inflated * inflated / 2.0)


def sampled_divergence(rho: float, sampling_rate: float, order: int) -> float:
    """The Rényi divergence of a whole order >= 2 of a rho-zCDP mechanism on a Poisson sample of the records.

    Source: Zhu & Wang 2019, theorem 5, which holds for every mechanism, for neighbours by adding or removing a record;
    the smaller bound of their theorem 6 is for Gaussian noise and not used, as sums of discrete Gaussians are none.

    Raises:
        InputError: a number out of range.
    """
    if not (math.isfinite(rho) and rho >= 0.0):
        raise _out_of_range("rho", "finite, at least 0", rho)
    if not 0.0 < sampling_rate <= 1.0:
        raise _out_of_range("sampling_rate", "above 0, at most 1", sampling_rate)
    _require_order(order)
    # Sampling never costs more than taking all.
    return min(order * rho, _divergence_of_sample(rho, sampling_rate, order, general=True))


def gaussian_divergence(noise_multiplier: float, sampling_rate: float, order: int) -> float:
    """The Rényi divergence of a whole order >= 2 of Gaussian noise on the sum of a Poisson sample of the records.

    Source: Mironov, Talwar & Zhang 2019, section 3.3, equation 6.

    Raises:
        InputError: a number out of range.
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0.0):
        raise _out_of_range("noise_multiplier", "finite, above 0", noise_multiplier)
    if not 0.0 < sampling_rate <= 1.0:
        raise _out_of_range("sampling_rate", "above 0, at most 1", sampling_rate)
    _require_order(order)
    return _divergence_of_sample(0.5 / noise_multiplier**2, sampling_rate, order, general=False)


def _divergence_of_sample(rho: float, sampling_rate: float, order: int, *, general: bool) -> float:
    """Theorem 5 of Zhu & Wang 2019, or without the factor 3 its theorem 6."""
    if sampling_rate == 1.0:
        return order * rho
    log_in, log_out = math.log(sampling_rate), math.log1p(-sampling_rate)
    logs = [(order - 1) * log_out + math.log1p((order - 1) * sampling_rate)]
    for drawn in range(2, order + 1):
        chance = _log_choose(order, drawn) + (order - drawn) * log_out + drawn * log_in
        logs.append(chance + (drawn - 1) * drawn * rho + (math.log(3.0) if general and drawn > 2 else 0.0))
    largest = max(logs)
    total = largest + math.log(math.fsum(math.exp(one - largest) for one in logs))
    return max(0.0, total) / (order - 1)


def _require_order(order: int) -> None:
    if order < 2:
        raise _out_of_range("order", "a whole number of at least 2", order)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _tau_term(share_variance: float, k: int) -> float:
    return max(5e-324, math.exp(-2.0 * math.pi**2 * share_variance * k / (k + 1)))


def epsilon_of_rho(rho: float, delta: float) -> float:
    """The smallest epsilon known for rho-zCDP at this delta; an upper bound whatever the search finds.

    Source: Canonne, Kamath & Steinke 2020, corollary 13 (proposition 12 of the longer version): for every order a > 1,
    epsilon = a rho + log(1 - 1/a) - (log delta + log a) / (a - 1).

    Raises:
        InputError: rho below 0 or not a number, or delta not strictly between 0 and 1.
    """
    if not rho >= 0.0:
        raise _out_of_range("rho", "at least 0", rho)
    if not 0.0 < delta < 1.0:
        raise _out_of_range("delta", "above 0, below 1", delta)
    if rho == 0.0:
        return 0.0
    if not math.isfinite(rho):
        return math.inf
    width = (_MOST_LOG_ORDER - _LEAST_LOG_ORDER) / _COARSE_STEPS
    places = [_LEAST_LOG_ORDER + width * step for step in range(_COARSE_STEPS + 1)]
    best = min(places, key=lambda place: _epsilon_at(place, rho, delta))
    low, high = best - width, best + width
    for _ in range(_REFINEMENTS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _epsilon_at(left, rho, delta) < _epsilon_at(right, rho, delta):
            high = right
        else:
            low = left
    return max(0.0, min(_epsilon_at(place, rho, delta) for place in (best, low, high)))


def rho_for_epsilon(epsilon: float, delta: float) -> float:
    """The largest rho whose epsilon at this delta is at most `epsilon`, rounded down.

    Raises:
        InputError: epsilon is not finite and above 0, or delta not strictly between 0 and 1.
        RefusedError: no rho above 1e-18 is that private.
    """
    if not (math.isfinite(epsilon) and epsilon > 0.0):
        raise _out_of_range("epsilon", "finite, above 0", epsilon)
    low, high = 1e-18, 1.0
    if epsilon_of_rho(low, delta) > epsilon:
        raise RefusedError("no noise is enough for this epsilon", where="epsilon", got=repr(epsilon))
    while epsilon_of_rho(high, delta) <= epsilon:
        low, high = high, 2.0 * high
    while high - low > 1e-9 * low:
        middle = math.sqrt(low * high)
        if epsilon_of_rho(middle, delta) <= epsilon:
            low = middle
        else:
            high = middle
    return low


def _epsilon_at(log_order: float, rho: float, delta: float) -> float:
    """The bound at the order 1 + exp(log_order)."""
    above = math.exp(log_order)  # a - 1
    order = 1.0 + above
    return order * rho + (log_order - math.log1p(above)) - (math.log(delta) + math.log1p(above)) / above


def _out_of_range(name: str, expected: str, got: float) -> InputError:
    return InputError("a number that privacy cannot be worked out from", where=name, expected=expected, got=repr(got))
