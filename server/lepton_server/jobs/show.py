"""A job's view and its rounds', from its facts and its phase."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from lepton_core.ids import MemberId, ModelVersion
from lepton_core.job import Job
from lepton_core.privacy.units import NEIGHBOURS
from lepton_core.views import EncodingView, JobState, JobView, OwnerMatch, RoundView
from lepton_pool.terms import expected_encoding
from lepton_server.jobs.events import AggregateDone
from lepton_server.jobs.phases import (
    Aggregating,
    Ended,
    Facts,
    Finishing,
    Matching,
    Phase,
    Rounding,
    RoundRecord,
    Waiting,
)
from lepton_server.jobs.protocols import step_of, waiting_for


def job_view(facts: Facts, phase: Phase) -> JobView:
    """What is told of the job now, without its rounds and models."""
    job, roll = facts.job, phase.roll
    return JobView(
        job=facts.job_id,
        name=job.name,
        state=_state(phase),
        reason=phase.reason if isinstance(phase, Ended) else "",
        researcher=facts.researcher,
        submitted=facts.submitted,
        ended=phase.time if isinstance(phase, Ended) else 0.0,
        rounds_planned=job.training.rounds,
        model_version=roll.version,
        owners=_owners(facts, phase),
        privacy=_privacy(job),
        epsilon=job.privacy.epsilon if job.privacy.mode != "none" else 0.0,
        delta=job.privacy.delta if job.privacy.mode != "none" else 0.0,
        model_parameters=facts.terms.model_length,
        bytes_per_parameter=facts.bytes_per_parameter,
        job_digest=job.digest().hex(),
        rounds=(),
        models=(),
    )


def round_view(
    facts: Facts,
    record: RoundRecord,
    version: ModelVersion,
    *,
    state: str,
    step: str,
    reason: str = "",
    awaited: tuple[MemberId, ...] = (),
    survivors: tuple[MemberId, ...] = (),
    ended: float = 0.0,
    done: AggregateDone | None = None,
) -> RoundView:
    """What is told of a round on a model version; `done` once its sum has become the next."""
    return RoundView(
        job=facts.job_id,
        round=record.number,
        model_version=version,
        state=state,
        step=step,
        cohort=facts.owners(record.cohort),
        waiting_for=facts.owners(awaited),
        survivors=facts.owners(survivors),
        dropped=record.dropped,
        reason=reason,
        started=record.started,
        ended=ended,
        payload_bytes=facts.terms.payload_bytes,
        message_bytes=record.message_bytes,
        pair_masks_reconstructed=done.pair_masks_reconstructed if done is not None else 0,
        encoding=_encoding(facts, done),
    )


def _encoding(facts: Facts, done: AggregateDone | None) -> EncodingView:
    expected = expected_encoding(facts.job)
    if done is None:
        return expected
    return replace(
        expected,
        bytes_down=done.bytes_down,
        clipped_members=done.clipped_members,
        saturated_share=done.saturated_share,
        squared_error=done.squared_error,
        decode_residual=done.decode_residual,
    )


def running_round(facts: Facts, phase: Rounding) -> RoundView:
    """What is told of the running round now; its row is written when a step ends only."""
    return round_view(
        facts,
        phase.record,
        phase.roll.version,
        state="running",
        step=step_of(phase.protocol).name.lower(),
        awaited=waiting_for(phase.protocol),
    )


def _state(phase: Phase) -> JobState:
    match phase:
        case Matching():
            return JobState.MATCHING
        case Waiting() | Rounding() | Aggregating() | Finishing():
            return JobState.RUNNING
        case Ended(state=state):
            return state
        case _:
            assert_never(phase)


def _owners(facts: Facts, phase: Phase) -> tuple[OwnerMatch, ...]:
    answers = phase.roll.answers
    matches = []
    for member, peer in facts.peers.items():
        if member not in answers:
            matches.append(OwnerMatch(peer.owner, "pending"))
            continue
        refusal = answers[member]
        if refusal is None:
            matches.append(OwnerMatch(peer.owner, "can", coverage=phase.roll.coverage.get(member, "")))
        else:
            matches.append(OwnerMatch(peer.owner, "cannot", refusal.code, refusal.reason, refusal.subject))
    return tuple(sorted(matches, key=lambda match: match.owner))


def _privacy(job: Job) -> str:
    privacy, training = job.privacy, job.training
    seen = "" if job.aggregation.secure else "; the coordinator sees every owner's update"
    if privacy.mode == "none":
        return f"none: no differential privacy{seen}"
    noise = f"noise multiplier {privacy.noise_multiplier:g}"
    promise = (
        f"{privacy.mode}: epsilon at most {privacy.epsilon:g} at delta {privacy.delta:g} for {NEIGHBOURS[privacy.unit]}"
    )
    if privacy.mode == "client-distributed":
        return f"{promise}; {noise} in sums of at least {_honest(job)} honest members, {training.rounds} sums"
    rate = f"sampling rate {training.record_rate:g}"
    if privacy.distributed:
        return f"{promise}; {noise} in sums of at least {_honest(job)} honest members, {rate}, {training.rounds} sums"
    return f"{promise}; {noise}, {rate}, {training.rounds * training.local_steps} steps{seen}"


def _honest(job: Job) -> int:
    return job.aggregation.min_cohort - job.privacy.colluders
