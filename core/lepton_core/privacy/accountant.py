"""What events cost: epsilon of a composition, and the noise that keeps a composition below an epsilon.

The authority is dp-accounting's privacy loss distribution (Doroshenko et al. 2022, "Connect the Dots"), rounded
pessimistically, so the result is an upper bound. Neighbours differ by one record, added or removed.
dp-accounting is imported at the first question, as that takes about a second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from lepton_core.errors import InputError, RefusedError
from lepton_core.privacy.events import Event, SampledGaussian

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


def epsilon_of(events: Sequence[Event], delta: float) -> float:
    """The smallest epsilon known to hold for all the events together at this delta; an upper bound.

    Events are composed; epsilons are never summed. No events cost 0. Events whose noise is so small that nothing
    can be promised cost infinity.

    Raises:
        InputError: delta is not strictly between 0 and 1.
        RefusedError: an event of a kind that the accountant does not know.
    """
    _require_delta(delta)
    groups = _groups(events)
    return _composed_epsilon(groups, delta, _LOSS_INTERVAL) if groups else 0.0


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
        event = SampledGaussian(_grid(index), sampling_rate, steps)
        return _composed_epsilon(_groups([event]), delta, interval) <= epsilon

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


def _grid(index: int) -> float:
    """The index-th multiplier of three significant digits, from 0.1 up; increasing."""
    decade, mantissa = divmod(index, _MANTISSAS)
    return float(f"{mantissa + 10 ** (_DIGITS - 1)}e{decade - _DIGITS}")


def _require_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise InputError("delta is out of range", where="delta", expected="0 < delta < 1", got=repr(delta))


def _groups(events: Sequence[Event]) -> tuple[tuple[float, float, int], ...]:
    """(noise multiplier, sampling rate, steps) of events that are alike, in a fixed order."""
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        if not isinstance(event, SampledGaussian):
            raise RefusedError(
                "the accountant does not know this event", expected=SampledGaussian.__name__, got=type(event).__name__
            )
        key = (event.noise_multiplier, event.sampling_rate)
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(sorted((*key, count) for key, count in steps.items()))


@functools.lru_cache(maxsize=1024)
def _composed_epsilon(groups: tuple[tuple[float, float, int], ...], delta: float, interval: float) -> float:
    """Epsilon of at least one group (noise multiplier, sampling rate, steps), composed."""
    from dp_accounting.pld import privacy_loss_distribution as losses

    composed, *others = [
        losses.from_gaussian_mechanism(
            noise_multiplier,
            pessimistic_estimate=True,
            value_discretization_interval=interval,
            sampling_prob=sampling_rate,
            neighboring_relation=losses.NeighborRel.ADD_OR_REMOVE_ONE,
        ).self_compose(steps)
        for noise_multiplier, sampling_rate, steps in groups
    ]
    for other in others:
        composed = composed.compose(other)
    return float(composed.get_epsilon_for_delta(delta))
