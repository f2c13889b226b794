"""What a job's rounds do to one unit of privacy, as events for the accountant, and the epsilons that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lepton_core.job import Job
from lepton_core.privacy.accountant import Observer, epsilon_of
from lepton_core.privacy.events import Event, SampledGaussian, SummedDiscreteGaussian
from lepton_core.privacy.plan import told_rounds
from lepton_core.privacy.units import Unit
from lepton_pool.terms import derive_noise_plan


def rounds_event(job: Job, rounds: int) -> Event | None:
    """What that many rounds of the job do, as one event; None if that is nothing.

    Raises:
        CodecError, JobError: as `derive_noise_plan`.
    """
    privacy = job.privacy
    if rounds < 1 or privacy.mode == "none" or privacy.noise_multiplier is None:
        return None
    if not privacy.distributed:
        return SampledGaussian(
            noise_multiplier=privacy.noise_multiplier,
            sampling_rate=job.training.record_rate,
            steps=job.training.local_steps * rounds,
        )
    plan = derive_noise_plan(job)
    return SummedDiscreteGaussian(
        sensitivity=plan.sensitivity,
        share_variance=plan.share_variance,
        contributors=plan.noise.contributors,
        colluders=plan.noise.colluders,
        dimension=plan.ring.padded_length,
        steps=rounds,
        # A member is in a round because the coordinator chose it, which amplifies nothing.
        sampling_rate=1.0 if privacy.mode == "client-distributed" else job.training.record_rate,
    )


def round_event(job: Job) -> Event | None:
    """What one round of the job does; None if the job protects nothing."""
    return rounds_event(job, 1)


def epsilon_after(job: Job, rounds: int, observer: Observer = Observer.COLLUDERS) -> float:
    """Upper bound for a unit that was in each of so many rounds, at the job's delta; 0 without privacy.

    Raises:
        CodecError, JobError, InputError, RefusedError: numbers that no epsilon can be worked out from.
    """
    event = rounds_event(job, rounds)
    return 0.0 if event is None else epsilon_of([event], job.privacy.delta, observer)


def epsilon_if_all_collude(job: Job, rounds: int) -> float:
    """The same if all other members tell the coordinator what they know: then a member's own share of noise holds.

    Raises:
        CodecError, JobError, InputError, RefusedError: as `epsilon_after`.
    """
    event = rounds_event(job, rounds)
    if event is None:
        return 0.0
    if isinstance(event, SummedDiscreteGaussian):
        event = replace(event, colluders=event.contributors - 1)
    return epsilon_of([event], job.privacy.delta)


def promised_epsilon(job: Job) -> float:
    """Epsilon that the job's noise really gives over its planned rounds, at the job's delta; 0 without privacy."""
    return epsilon_after(job, job.training.rounds)


@dataclass(frozen=True)
class PrivacyPlan:
    """What a private job promises, before it is submitted."""

    mode: str
    unit: Unit
    delta: float
    noise_multiplier: float
    rounds: int
    #: Against those who see the sums; against the coordinator with the colluders that the job names; with all others.
    epsilon_against_sums: float
    epsilon: float
    epsilon_if_all_collude: float
    #: Members whose noise is surely there, and colluders among them; 0 where each member's noise is whole.
    contributors: int
    colluders: int
    #: Parameter of a share of integer noise, in levels; 0 where the noise is no integer.
    share_variance: int
    #: What rounding adds to the sensitivity, as a factor.
    inflation: float
    #: (round, epsilon spent by its end), evenly over the job; the last is the last round.
    by_round: tuple[tuple[int, float], ...]


def plan_privacy(job: Job) -> PrivacyPlan | None:
    """The promise of a resolved job; None if it makes none.

    Raises:
        CodecError, JobError, InputError, RefusedError: numbers that no epsilon can be worked out from.
    """
    privacy, rounds = job.privacy, job.training.rounds
    if privacy.mode == "none" or privacy.noise_multiplier is None:
        return None
    by_round = tuple((number, epsilon_after(job, number)) for number in told_rounds(rounds))
    noised = derive_noise_plan(job) if privacy.distributed else None
    return PrivacyPlan(
        mode=privacy.mode,
        unit=privacy.unit,
        delta=privacy.delta,
        noise_multiplier=privacy.noise_multiplier,
        rounds=rounds,
        epsilon_against_sums=epsilon_after(job, rounds, Observer.SUMS),
        epsilon=by_round[-1][1],
        epsilon_if_all_collude=epsilon_if_all_collude(job, rounds),
        contributors=noised.noise.contributors if noised is not None else 0,
        colluders=noised.noise.colluders if noised is not None else 0,
        share_variance=noised.share_variance if noised is not None else 0,
        inflation=noised.inflation if noised is not None else 1.0,
        by_round=by_round,
    )
