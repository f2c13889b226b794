"""What a job would cost before it is one: the noise that keeps an epsilon, and how epsilon grows with the rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lepton_core.privacy.accountant import epsilon_of, noise_multiplier_for, sum_noise_multiplier_for
from lepton_core.privacy.events import SampledGaussian
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
    """Noise at each site, for one record, added or removed."""

    noise_multiplier: float
    #: Epsilon that the noise really gives after all rounds; at most what was asked.
    epsilon: float
    delta: float
    rounds: int
    local_steps: int
    sampling_rate: float
    #: (round, epsilon spent by its end), evenly over the job; the last is the last round.
    by_round: tuple[tuple[int, float], ...]


def plan_local(epsilon: float, delta: float, rounds: int, *, local_steps: int, sampling_rate: float) -> LocalPlan:
    """The plan of a job in the mode `record-local`.

    Raises:
        InputError: a number out of range.
        RefusedError: no noise is enough.
    """
    noise = noise_multiplier_for(epsilon, delta, sampling_rate, rounds * local_steps)
    told = sorted({max(1, round(rounds * part / _MOST_TOLD)) for part in range(1, _MOST_TOLD + 1)})
    by_round = tuple(
        (number, epsilon_of([SampledGaussian(noise, sampling_rate, number * local_steps)], delta)) for number in told
    )
    return LocalPlan(noise, by_round[-1][1], delta, rounds, local_steps, sampling_rate, by_round)
