"""What a job would cost before it is one: the noise that keeps an epsilon, and how epsilon grows with the rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from lepton_core.privacy.accountant import Observer, epsilon_of, noise_multiplier_for, sum_noise_multiplier_for
from lepton_core.privacy.events import Replaced, SampledGaussian, SummedDiscreteGaussian
from lepton_core.privacy.rules import Privacy

#: Rounds whose epsilon is told; each costs an answer of the accountant.
_MOST_TOLD = 10


class _Recipe(Protocol):
    """What a job's noise depends on beside its promise."""

    @property
    def rounds(self) -> int: ...
    @property
    def local_steps(self) -> int: ...
    @property
    def record_rate(self) -> float: ...


def required_noise(privacy: Privacy, recipe: _Recipe) -> float:
    """The smallest noise multiplier of three significant digits that keeps a private job's promise.

    Raises:
        InputError: a number out of range.
        RefusedError: no noise is enough.
    """
    if not privacy.distributed:
        steps = recipe.rounds * recipe.local_steps
        return noise_multiplier_for(privacy.epsilon, privacy.delta, recipe.record_rate, steps)
    # A member is in a round because the coordinator chose it, which amplifies nothing.
    rate = 1.0 if privacy.mode == "client-distributed" else recipe.record_rate
    return sum_noise_multiplier_for(privacy.epsilon, privacy.delta, rate, recipe.rounds)


@dataclass(frozen=True)
class LocalPlan:
    """Noise at each site, for one unit, a record or a subject, added or removed."""

    noise_multiplier: float
    #: Epsilon that the noise really gives after all rounds; at most what was asked.
    epsilon: float
    delta: float
    rounds: int
    local_steps: int
    sampling_rate: float
    #: (round, epsilon spent by its end), evenly over the job; the last is the last round.
    by_round: tuple[tuple[int, float], ...]
    #: After all rounds, for one record of a unit that is a subject.
    epsilon_if_replaced: float


def plan_local(epsilon: float, delta: float, rounds: int, *, local_steps: int, sampling_rate: float) -> LocalPlan:
    """The plan of a job in the mode `record-local`.

    Raises:
        InputError: a number out of range.
        RefusedError: no noise is enough.
    """
    noise = noise_multiplier_for(epsilon, delta, sampling_rate, rounds * local_steps)
    by_round = tuple(
        (number, epsilon_of([SampledGaussian(noise, sampling_rate, number * local_steps)], delta))
        for number in told_rounds(rounds)
    )
    replaced = epsilon_of([Replaced(SampledGaussian(noise, sampling_rate, rounds * local_steps))], delta)
    return LocalPlan(noise, by_round[-1][1], delta, rounds, local_steps, sampling_rate, by_round, replaced)


@dataclass(frozen=True)
class SumsPlan:
    """Noise in shares, on one sum a round, for one unit of privacy, added or removed."""

    #: Of the shares that are surely there and unknown, over the sensitivity of a sum.
    noise_multiplier: float
    #: The same of one member's share.
    share_multiplier: float
    #: Epsilon against the coordinator with the colluders named; at most what was asked.
    epsilon: float
    #: Against those who see the sums and nobody's share; and against the coordinator with all other members.
    epsilon_against_sums: float
    epsilon_if_all_collude: float
    delta: float
    rounds: int
    contributors: int
    colluders: int
    sampling_rate: float
    by_round: tuple[tuple[int, float], ...]
    #: Against the coordinator with the colluders named, for one record of a unit that is a subject.
    epsilon_if_replaced: float


def plan_sums(
    epsilon: float, delta: float, rounds: int, *, contributors: int, colluders: int = 0, sampling_rate: float = 1.0
) -> SumsPlan:
    """The plan of a job in the mode `record-distributed`, or with every record in every sum `client-distributed`.

    Raises:
        InputError: a number out of range.
        RefusedError: no noise is enough.
    """
    noise = sum_noise_multiplier_for(epsilon, delta, sampling_rate, rounds)
    # Levels so fine that discreteness costs nothing that a double shows, as a job's own are.
    sensitivity = 1e6
    honest = max(1, contributors - colluders)

    def event_of(number: int, known: int) -> SummedDiscreteGaussian:
        return SummedDiscreteGaussian(
            sensitivity=sensitivity,
            share_variance=math.ceil((noise * sensitivity) ** 2 / honest),
            contributors=contributors,
            colluders=known,
            dimension=1,
            steps=number,
            sampling_rate=sampling_rate,
        )

    def spent(number: int, known: int, observer: Observer = Observer.COLLUDERS) -> float:
        return epsilon_of([event_of(number, known)], delta, observer)

    by_round = tuple((number, spent(number, colluders)) for number in told_rounds(rounds))
    return SumsPlan(
        noise_multiplier=noise,
        share_multiplier=noise / math.sqrt(honest),
        epsilon=by_round[-1][1],
        epsilon_against_sums=spent(rounds, colluders, Observer.SUMS),
        epsilon_if_all_collude=spent(rounds, contributors - 1),
        delta=delta,
        rounds=rounds,
        contributors=contributors,
        colluders=colluders,
        sampling_rate=sampling_rate,
        by_round=by_round,
        epsilon_if_replaced=epsilon_of([Replaced(event_of(rounds, colluders))], delta),
    )


def told_rounds(rounds: int) -> list[int]:
    """Rounds whose epsilon a plan tells, evenly over the job; the last is the last."""
    return sorted({max(1, round(rounds * part / _MOST_TOLD)) for part in range(1, _MOST_TOLD + 1)})
