"""The life of a job as a machine: events in, effects out; everything that can change a job's state is here.

Rules
  1. `step` is a function of (facts, phase, stamped event): replaying the journal gives the same phase and effects.
  2. What a member should do next is a function of the phase (`outstanding`), so it can be repeated at any time.
  3. A member that may have answered on a model version is never asked again on that version.
  4. A job that contributes nothing, or whose model does not move, fails at once and says so.

| phase       | event                         | next                                                                |
|-------------|-------------------------------|---------------------------------------------------------------------|
| Matching    | all answered, or deadline     | Waiting, or Ended if fewer than the minimum cohort can              |
| Waiting     | RoundOpened                   | Rounding                                                            |
| Rounding    | messages, losses, deadlines   | Rounding, Aggregating (sum complete), Waiting or Ended (aborted)    |
| Aggregating | AggregateDone                 | Waiting, Finishing (last version), Ended (unchanged)                |
| Finishing   | EvaluateDone of the last      | Ended                                                               |
| any         | AbortRequested                | Ended                                                               |

The round itself is `lepton_core.secagg.server`; its effects are translated here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from lepton_core.errors import LeptonError
from lepton_core.ids import Digest, MemberId, ModelVersion, RoundNumber
from lepton_core.secagg import server as protocol
from lepton_core.secagg import server_events as pe
from lepton_core.secagg.messages import (
    Advert,
    ConsistencySignature,
    InputTrailer,
    MemberMessage,
    ShareMessage,
    Unmasking,
)
from lepton_core.secagg.server_status import step_of, waiting_for
from lepton_core.secagg.steps import Step
from lepton_core.session import MatchRequest, RoundCommand, RoundInvite, RoundOutcome, ServerCommand
from lepton_core.views import DroppedMember, JobState, ModelView
from lepton_server.jobs import events as ev
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import (
    Aggregating,
    Ended,
    Facts,
    Finishing,
    Matching,
    Phase,
    Roll,
    Rounding,
    RoundRecord,
    Waiting,
)

#: Aborted rounds in a row after which a job fails.
MOST_ABORTED_IN_ROW = 3
#: How many step deadlines a job waits for owners to answer, and for members to come back between rounds.
PATIENCE = 20

Result = tuple[Phase, tuple[ev.Effect, ...]]


def start(facts: Facts) -> Result:
    """A submitted job: ask the owners, make the initial model."""
    draft = Draft(facts, Roll(), facts.submitted)
    draft.announce("submitted", f"{facts.researcher} submitted {facts.job.name}; asking {len(facts.peers)} owners")
    draft.audit(facts.researcher, "job.submit", facts.job.digest().hex())
    draft.add(ev.RunInitialModel(facts.job_id, facts.job))
    for member in sorted(facts.peers):
        draft.add(ev.Tell(member, _match_request(facts)))
    draft.set_timer(_match_key(facts), facts.submitted + facts.job.aggregation.step_deadline_s)
    return Matching(draft.roll), draft.effects


def step(facts: Facts, phase: Phase, stamped: ev.Stamped) -> Result:
    """The next phase and what is to be done, in order, once the event is durable."""
    draft = Draft(facts, phase.roll, stamped.time)
    event = stamped.event
    if isinstance(event, ev.AbortRequested) and not isinstance(phase, Ended):
        draft.audit(event.by, "job.abort", event.reason)
        return _end(draft, phase, JobState.ABORTED, f"{event.by}: {event.reason}")
    match phase:
        case Matching():
            return _matching(draft, phase, event)
        case Waiting():
            return _waiting(draft, phase, event)
        case Rounding():
            return _rounding(draft, phase, event)
        case Aggregating():
            return _aggregating(draft, phase, event)
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
        return (_match_request(facts),)
    if isinstance(phase, Rounding) and member in phase.record.cohort:
        number = phase.record.number
        if protocol.awaits_advert(phase.protocol, member):
            return (RoundInvite(facts.setup(number)),)
        message = protocol.outstanding(phase.protocol, member)
        if message is not None:
            return (RoundCommand(facts.job_id, number, message),)
    return ()


def resume(facts: Facts, phase: Phase, time: float) -> tuple[ev.Effect, ...]:
    """What must be under way in this phase: performed again after a restart, harmless if it was done before."""
    draft = Draft(facts, phase.roll, time)
    for view in phase.roll.unevaluated:
        draft.add(ev.RunEvaluate(facts.job_id, facts.job, ModelVersion(view.version), Digest(view.digest)))
    match phase:
        case Matching(roll):
            if roll.model is None:
                draft.add(ev.RunInitialModel(facts.job_id, facts.job))
            draft.set_timer(_match_key(facts), time + facts.job.aggregation.step_deadline_s)
        case Waiting(roll):
            draft.set_timer(_wait_key(facts, roll), time + PATIENCE * facts.job.aggregation.step_deadline_s)
        case Rounding():
            step_name = step_of(phase.protocol).name.lower()
            deadline = max(phase.record.deadline, time + facts.job.aggregation.step_deadline_s / 2)
            draft.set_timer(_round_key(facts, phase.record.number, step_name), deadline)
        case Aggregating():
            draft.add(_aggregate_effect(facts, phase))
        case Finishing() | Ended():
            pass
        case _:
            assert_never(phase)
    return draft.effects


# ---- one function a phase ------------------------------------------------------------------------------------------


def _matching(draft: Draft, phase: Matching, event: ev.MachineEvent) -> Result:
    facts = draft.facts
    least = facts.job.aggregation.min_cohort
    if _took_answer(draft, event) or _took_metrics(draft, event):
        pass
    elif isinstance(event, ev.InitialModelReady):
        _take_initial_model(draft, event)
    elif isinstance(event, ev.InitialModelFailed):
        return _end(draft, phase, JobState.FAILED, f"the initial model could not be made: {event.error}")
    elif isinstance(event, ev.DeadlinePassed) and event.key == _match_key(facts):
        waited = draft.time - facts.submitted
        if len(draft.roll.willing) < least and waited > PATIENCE * facts.job.aggregation.step_deadline_s:
            return _end(draft, phase, JobState.FAILED, _too_few(draft))
        if len(draft.roll.willing) >= least and draft.roll.model is not None:
            return _to_waiting(draft)
        draft.set_timer(_match_key(facts), draft.time + facts.job.aggregation.step_deadline_s)
    if len(draft.roll.answers) == len(facts.peers):
        if len(draft.roll.willing) < least:
            return _end(draft, phase, JobState.FAILED, _too_few(draft))
        if draft.roll.model is not None:
            draft.add(ev.CancelTimer(_match_key(facts)))
            return _to_waiting(draft)
    return Matching(draft.roll), draft.effects


def _waiting(draft: Draft, phase: Waiting, event: ev.MachineEvent) -> Result:
    facts = draft.facts
    if isinstance(event, ev.RoundOpened):
        return _open_round(draft, event)
    if isinstance(event, ev.DeadlinePassed) and event.key == _wait_key(facts, phase.roll):
        least = facts.job.aggregation.min_cohort
        return _end(
            draft,
            phase,
            JobState.FAILED,
            f"fewer than {least} members came back within {draft.time - phase.since:.0f} s",
        )
    if not _took_answer(draft, event):
        _took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


def _rounding(draft: Draft, phase: Rounding, event: ev.MachineEvent) -> Result:
    facts, record = draft.facts, phase.record
    match event:
        case ev.RoundMessage(member, number, message, size) if number == record.number and member in record.cohort:
            record = replace(record, message_bytes=record.message_bytes + size)
            return _protocol_step(draft, phase, record, _event_of(message))
        case ev.MemberLeft(member, number, refusal) if number == record.number and member in record.cohort:
            if refusal is not None:
                record = replace(record, refusals=(*record.refusals, (member, refusal)))
                reason = f"refused: {refusal.reason} {refusal.subject}".strip()
            else:
                reason = "connection lost"
            return _protocol_step(draft, phase, record, pe.MemberLost(member, reason))
        case ev.DeadlinePassed(key):
            now = step_of(phase.protocol)
            if key == _round_key(facts, record.number, _name(now)):
                return _protocol_step(draft, phase, record, pe.DeadlinePassed(now))
        case _:
            if not _took_answer(draft, event):
                _took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


def _aggregating(draft: Draft, phase: Aggregating, event: ev.MachineEvent) -> Result:
    record = phase.record
    match event:
        case ev.AggregateDone(round=number) if number == record.number:
            return _advance(draft, phase, event)
        case ev.AggregateFailed(round=number, error=error) if number == record.number:
            draft.record_round(record, state="aborted", step="done", reason=str(error))
            return _end(draft, phase, JobState.FAILED, f"round {number}: the sum could not be used: {error}")
        case _:
            if not _took_answer(draft, event):
                _took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


def _finishing(draft: Draft, phase: Finishing, event: ev.MachineEvent) -> Result:
    if not _took_answer(draft, event):
        _took_metrics(draft, event)
    if not draft.roll.unevaluated:
        return _finish(draft)
    return replace(phase, roll=draft.roll), draft.effects


# ---- pieces --------------------------------------------------------------------------------------------------------


def _took_answer(draft: Draft, event: ev.MachineEvent) -> bool:
    """Owners may answer in any phase: one that was away during matching joins later rounds."""
    if not isinstance(event, ev.MatchAnswered):
        return False
    if event.member not in draft.facts.peers or event.member in draft.roll.answers:
        return True
    draft.roll = replace(draft.roll, answers={**draft.roll.answers, event.member: event.refusal})
    owner = draft.facts.owner(event.member)
    if event.refusal is None:
        draft.announce("matched", f"{owner} takes part", owner=owner)
    else:
        because = f"{event.refusal.reason} {event.refusal.subject}".strip()
        draft.announce("refused", f"{owner} cannot take part: {because}", owner=owner)
    draft.audit(owner, "job.match", "can" if event.refusal is None else event.refusal.reason)
    return True


def _took_metrics(draft: Draft, event: ev.MachineEvent) -> bool:
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
    told = f"accuracy {view.accuracy:.4f}, AUC {view.auc:.4f}" if view.accuracy >= 0 else "no evaluation set"
    draft.announce("model", f"model {view.version}: {told}, epsilon {view.epsilon:.2f}", model=view)
    return True


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
    return _wait(draft)


def _wait(draft: Draft) -> Result:
    patience = PATIENCE * draft.facts.job.aggregation.step_deadline_s
    draft.set_timer(_wait_key(draft.facts, draft.roll), draft.time + patience)
    return Waiting(draft.roll, draft.time), draft.effects


def _open_round(draft: Draft, event: ev.RoundOpened) -> Result:
    facts, number = draft.facts, draft.roll.next_round
    model = draft.roll.model
    if model is None:  # Waiting is only entered with a model
        return _end(draft, Waiting(draft.roll, draft.time), JobState.FAILED, "a round without a model")
    draft.add(ev.CancelTimer(_wait_key(facts, draft.roll)))
    draft.roll = replace(draft.roll, next_round=RoundNumber(number + 1))
    record = RoundRecord(number, event.cohort, draft.time, draft.time)
    phase, effects = protocol.start(
        facts.setup(number),
        facts.nonce(number),
        {member: facts.peers[member].identity for member in event.cohort},
        model_version=ModelVersion(model.version),
        model_digest=bytes.fromhex(model.digest),
    )
    for member in event.cohort:
        draft.add(ev.Tell(member, RoundInvite(facts.setup(number))))
    draft.announce("step", f"round {number} opened with {len(event.cohort)} members", record=record, step="advert")
    return _translate(draft, Rounding(draft.roll, record, phase), record, effects, step_of(phase))


def _protocol_step(draft: Draft, phase: Rounding, record: RoundRecord, event: pe.Event) -> Result:
    before = step_of(phase.protocol)
    if isinstance(event, pe.InputReceived):
        digest = Digest(event.trailer.payload_digest.hex())
        record = replace(record, payloads={**record.payloads, event.trailer.member: digest})
    after, effects = protocol.step(phase.protocol, event)
    return _translate(draft, replace(phase, protocol=after), record, effects, before)


def _translate(
    draft: Draft, phase: Rounding, record: RoundRecord, effects: tuple[pe.Effect, ...], before: Step
) -> Result:
    """Effects of the protocol machine as effects of the job."""
    facts, number = draft.facts, record.number
    for effect in effects:
        match effect:
            case pe.Send(member, message):
                draft.add(ev.Tell(member, RoundCommand(facts.job_id, number, message)))
            case pe.SetDeadline(step_now):
                record = replace(record, deadline=draft.time + facts.job.aggregation.step_deadline_s)
                draft.add(ev.CancelTimer(_round_key(facts, number, _name(before))))
                draft.set_timer(_round_key(facts, number, _name(step_now)), record.deadline)
                if step_now is not before:
                    draft.announce("step", f"round {number}: {_name(step_now)}", record=record, step=_name(step_now))
            case pe.Dropped(member, at, reason):
                lost = DroppedMember(facts.owner(member), _name(at), reason)
                record = replace(record, dropped=(*record.dropped, lost))
                text = f"round {number}: {lost.owner} dropped out in step {lost.step}: {reason}"
                draft.announce("dropped", text, record=record, step=lost.step, owner=lost.owner)
                draft.close_round(member, number, RoundOutcome.LEFT_OUT, reason)
            case pe.Rejected(member, error):
                draft.add(ev.Reject(member, error))
                draft.audit(facts.owner(member), "round.reject", f"round {number}: {error.code} {error.reason}")
                draft.announce("rejected", f"round {number}: {error}", record=record, owner=facts.owner(member))
            case pe.Finished(result):
                draft.add(ev.CancelTimer(_round_key(facts, number, _name(before))))
                next_phase = Aggregating(draft.roll, record, result)
                draft.record_round(record, state="running", step="done", survivors=result.survivors)
                draft.audit("coordinator", "round.sum", f"round {number}: {', '.join(facts.owners(result.survivors))}")
                draft.add(_aggregate_effect(facts, next_phase))
                return replace(next_phase, roll=draft.roll), draft.effects
            case pe.Aborted(error, _):
                draft.add(ev.CancelTimer(_round_key(facts, number, _name(before))))
                return _round_aborted(draft, replace(phase, record=record), before, error)
            case _:
                assert_never(effect)
    phase = Rounding(draft.roll, record, phase.protocol)
    draft.record_round(
        record,
        state="running",
        step=step_of(phase.protocol).name.lower(),
        waiting_for=waiting_for(phase.protocol),
    )
    return phase, draft.effects


def _round_aborted(draft: Draft, phase: Rounding, at: Step, error: LeptonError) -> Result:
    facts, record = draft.facts, phase.record
    reason = f"{error.reason} {error}".strip()
    draft.record_round(record, state="aborted", step=_name(at), reason=reason)
    draft.announce("aborted-round", f"round {record.number} aborted in step {_name(at)}: {error}", record=record)
    draft.audit("coordinator", "round.abort", f"round {record.number}: {_name(at)}: {error.code} {error.reason}")
    draft.forget_payloads(record)
    for member in record.cohort:
        draft.close_round(member, record.number, RoundOutcome.ABORTED, error.message)
    if at is Step.UNMASK:
        draft.roll = replace(draft.roll, answered=draft.roll.answered | frozenset(record.cohort))
    draft.roll = replace(draft.roll, aborted_in_row=draft.roll.aborted_in_row + 1)
    if not record.payloads and record.refusals:
        told = "; ".join(f"{facts.owner(member)}: {no.reason} {no.subject}".strip() for member, no in record.refusals)
        return _end(draft, phase, JobState.FAILED, f"round {record.number}: nothing usable was contributed: {told}")
    if draft.roll.aborted_in_row >= MOST_ABORTED_IN_ROW:
        text = f"{MOST_ABORTED_IN_ROW} rounds in a row were aborted; the last in step {_name(at)}: {error}"
        return _end(draft, phase, JobState.FAILED, text)
    if len(draft.roll.eligible) < facts.job.aggregation.min_cohort:
        text = f"round {record.number} was lost after members had answered on model {draft.roll.version}: {error}"
        return _end(draft, phase, JobState.FAILED, text)
    return _wait(draft)


def _advance(draft: Draft, phase: Aggregating, event: ev.AggregateDone) -> Result:
    facts, record, before = draft.facts, phase.record, draft.roll.model
    draft.record_round(
        record,
        state="completed",
        step="done",
        survivors=phase.result.survivors,
        pair_masks=event.pair_masks_reconstructed,
    )
    draft.forget_payloads(record)
    for member in phase.result.survivors:
        draft.close_round(member, record.number, RoundOutcome.COMPLETED, "")
    view = ModelView(
        job=facts.job_id,
        version=draft.roll.version + 1,
        digest=event.digest,
        parent=before.digest if before is not None else "",
        round=record.number,
        created=draft.time,
        accuracy=-1.0,
        auc=-1.0,
        epsilon=0.0,
        contributors=len(phase.result.survivors),
    )
    survivors = ", ".join(facts.owners(phase.result.survivors))
    draft.announce("round", f"round {record.number} completed: the sum of {survivors}", record=record, model=view)
    if not event.changed:
        text = f"round {record.number}: the model did not change; nothing usable was contributed"
        return _end(draft, phase, JobState.FAILED, text)
    draft.take_model(view, optimizer=event.optimizer)
    draft.roll = replace(draft.roll, aborted_in_row=0, answered=frozenset())
    if view.version >= facts.job.training.rounds:
        return Finishing(draft.roll), draft.effects
    return _wait(draft)


def _finish(draft: Draft) -> Result:
    facts, model = draft.facts, draft.roll.model
    draft.announce("finished", f"{facts.job.name} finished with model {draft.roll.version}", model=model)
    draft.audit("coordinator", "job.finish", model.digest if model is not None else "")
    draft.close_job(JobState.FINISHED, "")
    return Ended(draft.roll, JobState.FINISHED, "", draft.time), draft.effects


def _end(draft: Draft, phase: Phase, state: JobState, reason: str) -> Result:
    if isinstance(phase, Rounding | Aggregating):
        record = phase.record
        if isinstance(phase, Rounding):
            draft.add(ev.CancelTimer(_round_key(draft.facts, record.number, step_of(phase.protocol).name.lower())))
            if state is JobState.ABORTED:
                draft.record_round(record, state="aborted", step="done", reason=reason)
        draft.forget_payloads(record)
    draft.add(ev.CancelTimer(_match_key(draft.facts)))
    draft.add(ev.CancelTimer(_wait_key(draft.facts, draft.roll)))
    draft.announce(state.value, reason)
    draft.audit("coordinator", f"job.{state.value}", reason)
    draft.close_job(state, reason)
    return Ended(draft.roll, state, reason, draft.time), draft.effects


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


def _aggregate_effect(facts: Facts, phase: Aggregating) -> ev.RunAggregate:
    model = phase.roll.model
    return ev.RunAggregate(
        facts.job_id,
        facts.job,
        facts.terms,
        phase.record.number,
        tuple(phase.record.payloads[member] for member in phase.result.survivors),
        phase.result,
        Digest(model.digest if model is not None else ""),
        phase.roll.optimizer,
    )


def _event_of(message: MemberMessage) -> pe.Event:
    match message:
        case Advert():
            return pe.AdvertReceived(message)
        case ShareMessage():
            return pe.SharesReceived(message)
        case InputTrailer():
            return pe.InputReceived(message)
        case ConsistencySignature():
            return pe.SignatureReceived(message)
        case Unmasking():
            return pe.UnmaskingReceived(message)
        case _:
            assert_never(message)


def _name(step_now: Step) -> str:
    """A step's name for people and timers."""
    return step_now.name.lower()


def _match_request(facts: Facts) -> MatchRequest:
    return MatchRequest(facts.job_id, facts.job.canonical(), facts.membership)


def _match_key(facts: Facts) -> str:
    return f"{facts.job_id}/match"


def _wait_key(facts: Facts, roll: Roll) -> str:
    return f"{facts.job_id}/wait/{roll.next_round}"


def _round_key(facts: Facts, number: RoundNumber, step_name: str) -> str:
    return f"{facts.job_id}/round/{number}/{step_name}"
