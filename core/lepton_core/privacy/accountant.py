"""What events cost: epsilon of a composition, and the noise that keeps a composition below an epsilon.

| events | bound |
|---|---|
| sampled Gaussians | privacy loss distributions (Doroshenko et al. 2022, "Connect the Dots"), rounded up |
| sums of discrete Gaussians | zCDP, and the best conversion (`concentrated`) |
| several of these, or sums over samples | Rényi divergences, added at each order, and the best conversion over them |

Every one is an upper bound. Neighbours differ by one unit, added or removed. dp-accounting computes the first and the
last; it is imported at the first such question, as that takes half a second.

`Replaced` events are for neighbours of which one vector is replaced by another of norm at most C. Sums of integers, and
Gaussians without sampling, then have twice the sensitivity. With sampling the worst pair is
    (1 - q) N(0) + q N(C)  against  (1 - q) N(0) + q N(-C),
which dp-accounting calls REPLACE_ONE: the hockey stick divergence at any alpha >= 1 is the mean, over x ~ N(0, I), of
(q L_v(x) - alpha q L_w(x) - (alpha - 1)(1 - q))^+ with the lognormal likelihood ratios L_v = exp(<v, x> - |v|^2 / 2) of
the two vectors (in units of the noise). That is convex in (L_v, L_w), so that it grows when v and w get longer by parts
at right angles to both (Jensen); and its mixed derivative is nowhere positive, so that at given lengths it is largest
where v and w are opposite (Plackett 1954). Below alpha = 1 the same holds with the pair turned round, and the worst
pair is its own mirror image.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import NamedTuple, TypeAlias

from lepton_core.errors import InputError, RefusedError
from lepton_core.privacy.accounting_library import load_losses, load_rdp
from lepton_core.privacy.concentrated import epsilon_of_rho, gaussian_divergence, sampled_divergence, sum_rho
from lepton_core.privacy.events import Counted, Replaced, SampledGaussian, SummedDiscreteGaussian

#: Width of a bucket of privacy loss. dp-accounting's default is 1e-4; at 5e-4 an epsilon of 8 after 200 steps is
#: larger by less than 1e-4 and found in a fifth of the time. Wider buckets only ever make the bound looser.
_LOSS_INTERVAL = 5e-4
#: Width used to find the neighbourhood in which the search above is made.
_COARSE_INTERVAL = 1e-2
#: Noise multipliers have this many significant digits, so that everybody writes the same number.
_DIGITS = 3
_MANTISSAS = 9 * 10 ** (_DIGITS - 1)
#: Multipliers are searched from 0.1 * 3.00 up, as below 0.3 an epsilon says nothing, to below 10^6.
_DECADES = 7
_FIRST_INDEX = 200
#: Below this noise nothing is promised: a record sampled with a chance below delta would be shown nearly as it is,
#: which the definition allows and no owner wants. It is also where the distributions grow beyond any memory.
LEAST_NOISE = 0.3
#: Events with more noise are counted as if they had this much, which only makes the bound larger.
_MOST_NOISE = 1e6
#: More steps, or a composition further from private than this Gaussian parameter, are not worked out but infinite:
#: an epsilon in the thousands promises nothing, and a job must not decide how much memory an owner spends on it.
_MOST_STEPS = 200_000
_MOST_MU = 64.0
#: Rényi orders that mixed events are composed at: whole ones, whose divergence is a finite sum of as many terms.
_ORDERS = (*range(2, 65), *range(68, 129, 4), *range(144, 257, 16), 320, 384, 512, 768, 1024)


class Observer(Enum):
    """Against whom epsilon holds."""

    #: Everybody who sees the sums, and no member's share of noise.
    SUMS = "sums"
    #: The coordinator, with as many colluding members as the events say.
    COLLUDERS = "colluders"


class _Steps(NamedTuple):
    """Steps of sampled Gaussians that are alike."""

    noise: float
    rate: float
    #: Whether neighbours have another vector in place of one (`Replaced`), with a rate below 1.
    replaced: bool
    steps: int


def epsilon_of(events: Sequence[Counted], delta: float, observer: Observer = Observer.COLLUDERS) -> float:
    """The smallest epsilon known to hold for all the events together at this delta; an upper bound.

    Events are composed; epsilons are never summed. No events cost 0. Events with noise below `LEAST_NOISE`, of more
    than 200,000 steps, or so many that epsilon is in the thousands cost infinity. Whatever the numbers, the answer
    takes seconds and bounded memory.

    Raises:
        InputError: delta is not strictly between 0 and 1.
        RefusedError: an event of a kind that the accountant does not know.
    """
    _require_delta(delta)
    groups, (rho, sampled) = _groups(events), _sums_of(events, observer)
    if rho == 0.0 and not groups and not sampled:
        return 0.0
    if _is_hopeless(groups, rho, sampled):
        return math.inf
    if sampled or (groups and rho > 0.0):
        return _mixed_epsilon(groups, rho, sampled, delta)
    return _composed_epsilon(groups, delta, _LOSS_INTERVAL) if groups else _concentrated_epsilon(rho, delta)


def noise_multiplier_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier of three significant digits, and at least 0.3, that keeps `steps` within epsilon.

    `epsilon_of([SampledGaussian(result, sampling_rate, steps)], delta) <= epsilon` always holds.

    Raises:
        InputError: epsilon, delta, sampling_rate or steps is out of range.
        RefusedError: no multiplier below a million suffices.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InputError("epsilon must be positive", where="epsilon", expected="finite, above 0", got=repr(epsilon))
    _require_delta(delta)

    def suffices(index: int, interval: float) -> bool:
        groups = _groups([SampledGaussian(_grid(index), sampling_rate, steps)])
        return not _is_hopeless(groups) and _composed_epsilon(groups, delta, interval) <= epsilon

    last = _DECADES * _MANTISSAS - 1
    low, high = _FIRST_INDEX - 1, _MANTISSAS
    while high < last and not suffices(high, _COARSE_INTERVAL):
        low, high = high, min(last, high + _MANTISSAS)
    while high - low > 1:
        middle = (low + high) // 2
        if suffices(middle, _COARSE_INTERVAL):
            high = middle
        else:
            low = middle
    # The coarse distribution overstates epsilon a little, so the answer is `high` or a few below it.
    while high < last and not suffices(high, _LOSS_INTERVAL):
        high += 1
    while high > _FIRST_INDEX and suffices(high - 1, _LOSS_INTERVAL):
        high -= 1
    if not suffices(high, _LOSS_INTERVAL):
        raise RefusedError(
            "no noise is enough for this epsilon",
            where="privacy.epsilon",
            expected=f"reachable with {steps} steps at delta {delta}",
            got=repr(epsilon),
            hint="take fewer rounds or local steps, a lower sampling_rate, or a larger epsilon",
        )
    return _grid(high)


def sum_noise_multiplier_for(epsilon: float, delta: float, sampling_rate: float, sums: int) -> float:
    """The smallest noise over the sensitivity of a sum, of three significant digits, that keeps `sums` within epsilon.

    It is that of all shares which are surely there, colluders' left out: a sum of discrete Gaussians whose variance is
    at least (result * sensitivity)^2, each share's at least 100, where discreteness costs nothing that a double shows.

    Raises:
        InputError: epsilon, delta, sampling_rate or sums is out of range.
        RefusedError: no multiplier below a million suffices.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InputError("epsilon must be positive", where="epsilon", expected="finite, above 0", got=repr(epsilon))
    _require_delta(delta)

    def suffices(index: int) -> bool:
        rho = 0.5 / _grid(index) ** 2
        if sampling_rate == 1.0:
            return epsilon_of_rho(sums * rho, delta) <= epsilon
        sampled = ((rho, sampling_rate, sums),)
        return not _is_hopeless((), 0.0, sampled) and _mixed_epsilon((), 0.0, sampled, delta) <= epsilon

    low, high = _FIRST_INDEX - 1, _DECADES * _MANTISSAS - 1
    if not suffices(high):
        raise RefusedError(
            "no noise is enough for this epsilon",
            where="privacy.epsilon",
            expected=f"reachable with {sums} rounds at delta {delta}",
            got=repr(epsilon),
            hint="take fewer rounds, or a larger epsilon",
        )
    while high - low > 1:
        middle = (low + high) // 2
        if suffices(middle):
            high = middle
        else:
            low = middle
    return _grid(high)


def _grid(index: int) -> float:
    """The index-th multiplier of three significant digits, from 0.1 up; increasing."""
    decade, mantissa = divmod(index, _MANTISSAS)
    return float(f"{mantissa + 10 ** (_DIGITS - 1)}e{decade - _DIGITS}")


def _require_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise InputError("delta is out of range", where="delta", expected="0 < delta < 1", got=repr(delta))


#: (rho of one sum, sampling rate, sums) of sums over Poisson samples.
_Sampled: TypeAlias = tuple[tuple[float, float, int], ...]


def _removal(event: Counted) -> Counted:
    """The event itself, or of a replaced one what it is for a removal, where that is exact or an upper bound."""
    one = event.event if isinstance(event, Replaced) else None
    if isinstance(one, SummedDiscreteGaussian):
        # Sampling never costs more than taking all.
        return replace(one, sensitivity=2 * one.sensitivity, sampling_rate=1.0)
    if isinstance(one, SampledGaussian) and one.sampling_rate == 1.0:
        return replace(one, noise_multiplier=one.noise_multiplier / 2)
    return event


def _sums_of(events: Sequence[Counted], observer: Observer) -> tuple[float, _Sampled]:
    """The zCDP of all sums over all records together; and the sums over samples, those alike together, in order."""
    steps: dict[tuple[float, float], int] = {}
    for event, count in _alike(events):
        if isinstance(event, SummedDiscreteGaussian):
            shares = event.contributors - (event.colluders if observer is Observer.COLLUDERS else 0)
            key = (_sum_rho(event.sensitivity, event.share_variance, shares, event.dimension), event.sampling_rate)
            steps[key] = steps.get(key, 0) + count * event.steps
    # Counted first and multiplied then, so that a job's rounds come to the same however many of them are charged.
    rho = math.fsum(count * one for (one, rate), count in steps.items() if rate == 1.0)
    return rho, tuple(sorted((*key, count) for key, count in steps.items() if key[1] != 1.0))


def _groups(events: Sequence[Counted]) -> tuple[_Steps, ...]:
    """Sampled Gaussians, those that are alike together, in a fixed order."""
    steps: dict[tuple[float, float, bool], int] = {}
    for event, count in _alike(events):
        if isinstance(event, SummedDiscreteGaussian):
            continue
        one = event.event if isinstance(event, Replaced) else event
        if not isinstance(one, SampledGaussian):
            raise RefusedError(
                "the accountant does not know this event", expected=SampledGaussian.__name__, got=type(one).__name__
            )
        key = (min(one.noise_multiplier, _MOST_NOISE), one.sampling_rate, one is not event)
        steps[key] = steps.get(key, 0) + count * one.steps
    return tuple(sorted(_Steps(*key, count) for key, count in steps.items()))


def _alike(events: Sequence[Counted]) -> Iterator[tuple[Counted, int]]:
    """Each event as it counts, and how often it follows itself: a ledger charges hundreds of rounds that are alike."""
    return ((_removal(event), len(list(same))) for event, same in itertools.groupby(events))


def _is_hopeless(groups: tuple[_Steps, ...], rho: float = 0.0, sampled: _Sampled = ()) -> bool:
    """True if epsilon is called infinite instead of being worked out. rho-zCDP counts as mu = sqrt(2 rho).

    The central limit of the composition is a Gaussian mechanism of parameter mu (Bu, Dong, Long, Su 2020, theorem 5;
    without sampling exactly sqrt(steps) / noise, which sampling never exceeds). Replacing is removing and adding, at
    most twice mu.
    """
    sums = (_Steps(1.0 / math.sqrt(2.0 * one), rate, False, count) for one, rate, count in sampled if one > 0.0)
    every = (*groups, *sums)
    if any(one.noise < LEAST_NOISE for one in every) or sum(one.steps for one in every) > _MOST_STEPS:
        return True
    squared = 2.0 * rho
    for one in every:
        single = min(one.noise**-2, one.rate**2 * math.expm1(one.noise**-2))
        squared += one.steps * single * (4.0 if one.replaced else 1.0)
    return squared > _MOST_MU**2


@functools.lru_cache(maxsize=1024)
def _sum_rho(sensitivity: float, share_variance: float, shares: int, dimension: int) -> float:
    return sum_rho(sensitivity=sensitivity, share_variance=share_variance, shares=shares, dimension=dimension)


@functools.lru_cache(maxsize=1024)
def _concentrated_epsilon(rho: float, delta: float) -> float:
    return epsilon_of_rho(rho, delta)


@functools.lru_cache(maxsize=1024)
def _composed_epsilon(groups: tuple[_Steps, ...], delta: float, interval: float) -> float:
    """Epsilon of at least one group, composed."""
    losses = load_losses()
    composed, *others = [
        losses.from_gaussian_mechanism(
            one.noise,
            pessimistic_estimate=True,
            value_discretization_interval=interval,
            sampling_prob=one.rate,
            neighboring_relation=(
                losses.NeighborRel.REPLACE_ONE if one.replaced else losses.NeighborRel.ADD_OR_REMOVE_ONE
            ),
        ).self_compose(one.steps)
        for one in groups
    ]
    for other in others:
        composed = composed.compose(other)
    return float(composed.get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=1024)
def _mixed_epsilon(groups: tuple[_Steps, ...], rho: float, sampled: _Sampled, delta: float) -> float:
    """Epsilon of groups as above together with rho-zCDP and with sums over samples."""
    divergences = [
        order * rho
        + math.fsum(count * sampled_divergence(one, rate, order) for one, rate, count in sampled)
        + math.fsum(one.steps * _divergence(one, order) for one in groups)
        for order in _ORDERS
    ]
    return float(load_rdp().compute_epsilon(_ORDERS, divergences, delta)[0])


def _divergence(one: _Steps, order: int) -> float:
    """An upper bound of the Rényi divergence of neighbours in one step, whichever of them comes first.

    Replaced: through the data without either vector (Mironov 2017, proposition 11, with p = q = 2).
    """
    if not one.replaced:
        return gaussian_divergence(one.noise, one.rate, order)
    there = (order - 0.5) / (order - 1) * gaussian_divergence(one.noise, one.rate, 2 * order)
    return there + gaussian_divergence(one.noise, one.rate, 2 * order - 1)
