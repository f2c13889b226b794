"""The life of a job as a machine: events in, effects out; everything that can change a job's state starts here.

Rules
  1. `step` is a function of (facts, phase, stamped event): replaying the journal gives the same phase and effects.
  2. What a member should do next is a function of the phase (`outstanding`), so it can be repeated at any time.
  3. A member that may have answered on a model version is never asked again on that version.
  4. A job that contributes nothing, or whose model does not move, fails at once and says so.

| phase       | event                         | next                                                                |
|-------------|-------------------------------|---------------------------------------------------------------------|
| Matching    | all answered, or deadline     | Waiting, or Ended if fewer than the minimum cohort can              |
| Waiting     | RoundBegun                    | Rounding                                                            |
| Rounding    | messages, losses, deadlines   | Rounding, Aggregating (sum complete), Waiting or Ended (aborted)    |
| Aggregating | AggregateDone                 | Waiting, Finishing (last version), Ended (unchanged)                |
| Finishing   | EvaluateDone of the last      | Ended                                                               |
| any         | AbortRequested                | Ended                                                               |

Between the first and the last round another may be opened ahead (`RoundOpened`, in Waiting, Rounding and Aggregating).
Rounds and what becomes of them are in `rounding` and `ahead`, the turns that phases share in `turns`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from lepton_core.ids import Digest, MemberId, ModelVersion
from lepton_core.session import RoundCommand, RoundInvite, ServerCommand
from lepton_core.views import JobState, ModelView
from lepton_server.jobs import events as ev
from lepton_server.jobs import protocols
from lepton_server.jobs.ahead import open_ahead, took_ahead
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import Aggregating, Ended, Facts, Finishing, Matching, Phase, Roll, Rounding, Waiting
from lepton_server.jobs.rounding import aggregate_effect, aggregating, begin_round, rounding
from lepton_server.jobs.turns import (
    PATIENCE,
    Result,
    end,
    match_key,
    match_request,
    round_key,
    step_name,
    took_answer,
    took_metrics,
    wait,
    wait_key,
)


def start(facts: Facts) -> Result:
    """A submitted job: ask the owners, make the initial model."""
    draft = Draft(facts, Roll(), facts.submitted)
    draft.announce("submitted", f"{facts.researcher} submitted {facts.job.name}; asking {len(facts.peers)} owners")
    draft.audit(facts.researcher, "job.submit", facts.job.digest().hex())
    draft.add(ev.RunInitialModel(facts.job_id, facts.job))
    for member in sorted(facts.peers):
        draft.add(ev.Tell(member, match_request(facts)))
    draft.set_timer(match_key(facts), facts.submitted + facts.job.aggregation.step_deadline_s)
    return Matching(draft.roll), draft.effects


def step(facts: Facts, phase: Phase, stamped: ev.Stamped) -> Result:
    """The next phase and what is to be done, in order, once the event is durable."""
    draft = Draft(facts, phase.roll, stamped.time)
    event = stamped.event
    if isinstance(event, ev.AbortRequested) and not isinstance(phase, Ended):
        draft.audit(event.by, "job.abort", event.reason)
        return end(draft, phase, JobState.ABORTED, f"{event.by}: {event.reason}")
    if isinstance(event, ev.RoundOpened) and isinstance(phase, Waiting | Rounding | Aggregating):
        open_ahead(draft, event)
        return replace(phase, roll=draft.roll), draft.effects
    if took_ahead(draft, event) and not isinstance(phase, Ended):
        return replace(phase, roll=draft.roll), draft.effects
    match phase:
        case Matching():
            return _matching(draft, phase, event)
        case Waiting():
            return _waiting(draft, phase, event)
        case Rounding():
            return rounding(draft, phase, event)
        case Aggregating():
            return aggregating(draft, phase, event)
        case Finishing():
            return _finishing(draft, phase, event)
        case Ended():
            return phase, ()
        case _:
            assert_never(phase)


def outstanding(facts: Facts, phase: Phase, member: MemberId) -> tuple[ServerCommand, ...]:
    """What this member should do next, as often as it asks; empty if nothing."""
    if member not in facts.peers or isinstance(phase, Ended):
        return ()
    if member not in phase.roll.answers:
        return (match_request(facts),)
    rounds = [(phase.record, phase.protocol)] if isinstance(phase, Rounding) else []
    if phase.roll.ahead is not None:
        rounds.append((phase.roll.ahead.record, phase.roll.ahead.protocol))
    commands: list[ServerCommand] = []
    for record, running in rounds:
        if member not in record.cohort:
            continue
        if protocols.awaits_start(running, member):
            commands.append(RoundInvite(facts.setup(record.number)))
        message = protocols.outstanding(running, member)
        if message is not None:
            commands.append(RoundCommand(facts.job_id, record.number, message))
    return tuple(commands)


def resume(facts: Facts, phase: Phase, time: float) -> tuple[ev.Effect, ...]:
    """What must be under way in this phase: performed again after a restart, harmless if it was done before."""
    draft = Draft(facts, phase.roll, time)
    for view in phase.roll.unevaluated:
        draft.add(ev.RunEvaluate(facts.job_id, facts.job, ModelVersion(view.version), Digest(view.digest)))
    if phase.roll.ahead is not None:
        record, now = phase.roll.ahead.record, step_name(protocols.step_of(phase.roll.ahead.protocol))
        least = time + facts.job.aggregation.step_deadline_s / 2
        draft.set_timer(round_key(facts, record.number, now), max(record.deadline, least))
    match phase:
        case Matching(roll):
            if roll.model is None:
                draft.add(ev.RunInitialModel(facts.job_id, facts.job))
            draft.set_timer(match_key(facts), time + facts.job.aggregation.step_deadline_s)
        case Waiting(roll):
            draft.set_timer(wait_key(facts, roll), time + PATIENCE * facts.job.aggregation.step_deadline_s)
        case Rounding():
            now = step_name(protocols.step_of(phase.protocol))
            deadline = max(phase.record.deadline, time + facts.job.aggregation.step_deadline_s / 2)
            draft.set_timer(round_key(facts, phase.record.number, now), deadline)
        case Aggregating():
            draft.add(aggregate_effect(facts, phase))
        case Finishing() | Ended():
            pass
        case _:
            assert_never(phase)
    return draft.effects


def _matching(draft: Draft, phase: Matching, event: ev.MachineEvent) -> Result:
    facts = draft.facts
    least = facts.job.aggregation.min_cohort
    if took_answer(draft, event) or took_metrics(draft, event):
        pass
    elif isinstance(event, ev.InitialModelReady):
        _take_initial_model(draft, event)
    elif isinstance(event, ev.InitialModelFailed):
        return end(draft, phase, JobState.FAILED, f"the initial model could not be made: {event.error}")
    elif isinstance(event, ev.DeadlinePassed) and event.key == match_key(facts):
        waited = draft.time - facts.submitted
        if len(draft.roll.willing) < least and waited > PATIENCE * facts.job.aggregation.step_deadline_s:
            return end(draft, phase, JobState.FAILED, _too_few(draft))
        if len(draft.roll.willing) >= least and draft.roll.model is not None:
            return _to_waiting(draft)
        draft.set_timer(match_key(facts), draft.time + facts.job.aggregation.step_deadline_s)
    if len(draft.roll.answers) == len(facts.peers):
        if len(draft.roll.willing) < least:
            return end(draft, phase, JobState.FAILED, _too_few(draft))
        if draft.roll.model is not None:
            draft.add(ev.CancelTimer(match_key(facts)))
            return _to_waiting(draft)
    return Matching(draft.roll), draft.effects


def _waiting(draft: Draft, phase: Waiting, event: ev.MachineEvent) -> Result:
    facts = draft.facts
    if isinstance(event, ev.RoundBegun):
        return begin_round(draft, phase)
    if isinstance(event, ev.DeadlinePassed) and event.key == wait_key(facts, phase.roll):
        least = facts.job.aggregation.min_cohort
        return end(
            draft,
            phase,
            JobState.FAILED,
            f"fewer than {least} members came back within {draft.time - phase.since:.0f} s",
        )
    if not took_answer(draft, event):
        took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


def _finishing(draft: Draft, phase: Finishing, event: ev.MachineEvent) -> Result:
    if not took_answer(draft, event):
        took_metrics(draft, event)
    if not draft.roll.unevaluated:
        return _finish(draft)
    return replace(phase, roll=draft.roll), draft.effects


def _take_initial_model(draft: Draft, event: ev.InitialModelReady) -> None:
    view = ModelView(
        job=draft.facts.job_id,
        version=0,
        digest=event.digest,
        parent="",
        round=0,
        created=draft.time,
        accuracy=-1.0,
        auc=-1.0,
        epsilon=0.0,
        contributors=0,
    )
    draft.take_model(view, optimizer=None)


def _to_waiting(draft: Draft) -> Result:
    names = ", ".join(draft.facts.owners(draft.roll.willing))
    draft.announce("started", f"{len(draft.roll.willing)} owners take part: {names}")
    return wait(draft)


def _finish(draft: Draft) -> Result:
    facts, model = draft.facts, draft.roll.model
    draft.announce("finished", f"{facts.job.name} finished with model {draft.roll.version}", model=model)
    draft.audit("coordinator", "job.finish", model.digest if model is not None else "")
    draft.close_job(JobState.FINISHED, "")
    return Ended(draft.roll, JobState.FINISHED, "", draft.time), draft.effects


def _too_few(draft: Draft) -> str:
    facts, roll = draft.facts, draft.roll
    silent = [facts.owner(member) for member in facts.peers if member not in roll.answers]
    refused = [
        f"{facts.owner(member)}: {refusal.reason} {refusal.subject}".strip()
        for member, refusal in sorted(roll.answers.items())
        if refusal is not None
    ]
    told = "; ".join([*refused, *(f"{owner}: no answer" for owner in sorted(silent))])
    return f"{len(roll.willing)} of at least {facts.job.aggregation.min_cohort} owners can take part ({told})"
