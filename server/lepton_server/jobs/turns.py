"""Turns that several phases of a job share: answers and metrics taken in, waiting, ending, and the timers' names."""

from __future__ import annotations

from dataclasses import replace

from lepton_core.ids import RoundNumber
from lepton_core.secagg.steps import Step
from lepton_core.session import MatchRequest
from lepton_core.views import JobState
from lepton_server.jobs import events as ev
from lepton_server.jobs import protocols
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import Aggregating, Ended, Facts, Phase, Roll, Rounding, Waiting

#: How many step deadlines a job waits for owners to answer, and for members to come back between rounds.
PATIENCE = 20

Result = tuple[Phase, tuple[ev.Effect, ...]]


def wait(draft: Draft) -> Result:
    """Between rounds, with a limit to the patience."""
    patience = PATIENCE * draft.facts.job.aggregation.step_deadline_s
    draft.set_timer(wait_key(draft.facts, draft.roll), draft.time + patience)
    return Waiting(draft.roll, draft.time), draft.effects


def end(draft: Draft, phase: Phase, state: JobState, reason: str) -> Result:
    """The job ends here; a round that runs ends with it."""
    ahead = draft.roll.ahead
    if ahead is not None:  # its members are told that the job is over
        draft.add(
            ev.CancelTimer(round_key(draft.facts, ahead.record.number, step_name(protocols.step_of(ahead.protocol))))
        )
        draft.roll = replace(draft.roll, ahead=None)
    if isinstance(phase, Rounding | Aggregating):
        record = phase.record
        if isinstance(phase, Rounding):
            draft.add(
                ev.CancelTimer(round_key(draft.facts, record.number, step_name(protocols.step_of(phase.protocol))))
            )
            if state is JobState.ABORTED:
                draft.record_round(record, state="aborted", step="done", reason=reason)
        draft.forget_payloads(record)
    draft.add(ev.CancelTimer(match_key(draft.facts)))
    draft.add(ev.CancelTimer(wait_key(draft.facts, draft.roll)))
    draft.announce(state.value, reason)
    draft.audit("coordinator", f"job.{state.value}", reason)
    draft.close_job(state, reason)
    draft.add(ev.SweepArtifacts())
    return Ended(draft.roll, state, reason, draft.time), draft.effects


def match_request(facts: Facts) -> MatchRequest:
    """What asks an owner whether it takes part."""
    return MatchRequest(facts.job_id, facts.job.canonical(), facts.membership)


def match_key(facts: Facts) -> str:
    """Timer: owners have had time to answer."""
    return f"{facts.job_id}/match"


def wait_key(facts: Facts, roll: Roll) -> str:
    """Timer: members have had time to come back."""
    return f"{facts.job_id}/wait/{roll.next_round}"


def round_key(facts: Facts, number: RoundNumber, step_name: str) -> str:
    """Timer: a step of a round has had its time."""
    return f"{facts.job_id}/round/{number}/{step_name}"


def step_name(step_now: Step) -> str:
    """A step's name for people and timers."""
    return step_now.name.lower()


def took_answer(draft: Draft, event: ev.MachineEvent) -> bool:
    """Owners may answer in any phase: one that was away during matching joins later rounds."""
    if not isinstance(event, ev.MatchAnswered):
        return False
    if event.member not in draft.facts.peers or event.member in draft.roll.answers:
        return True
    draft.roll = replace(draft.roll, answers={**draft.roll.answers, event.member: event.refusal})
    if event.coverage:
        draft.roll = replace(draft.roll, coverage={**draft.roll.coverage, event.member: event.coverage})
    owner = draft.facts.owner(event.member)
    if event.refusal is None:
        draft.announce("matched", f"{owner} takes part", owner=owner)
    else:
        because = f"{event.refusal.reason} {event.refusal.subject}".strip()
        draft.announce("refused", f"{owner} cannot take part: {because}", owner=owner)
    draft.audit(owner, "job.match", "can" if event.refusal is None else event.refusal.reason)
    return True


def took_metrics(draft: Draft, event: ev.MachineEvent) -> bool:
    """Metrics may come in any phase, and out of order."""
    if not isinstance(event, ev.EvaluateDone | ev.EvaluateFailed):
        return False
    known = {view.version: view for view in draft.roll.unevaluated}
    view = known.pop(event.version, None)
    if view is None:
        return True
    draft.roll = replace(draft.roll, unevaluated=tuple(known.values()))
    if isinstance(event, ev.EvaluateFailed):
        draft.announce("model", f"model {event.version} could not be evaluated: {event.error.message}", model=view)
        return True
    view = replace(view, accuracy=event.accuracy, auc=event.auc, epsilon=event.epsilon)
    if draft.roll.model is not None and draft.roll.model.version == view.version:
        draft.roll = replace(draft.roll, model=view)
    draft.add(ev.RecordModel(view))
    told = f"accuracy {view.accuracy:.4f}" if view.accuracy >= 0 else "no evaluation set"
    if view.auc >= 0:
        told += f", AUC {view.auc:.4f}"
    draft.announce("model", f"model {view.version}: {told}, epsilon {view.epsilon:.2f}", model=view)
    return True
