"""The rounds of a job: opened, run by the protocol machine, ended with a new model or without.

The protocol is `lepton_core.secagg.server`; its effects are translated here. State changes only through what these
functions return to `machine.step`.
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
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.server_status import step_of, waiting_for
from lepton_core.secagg.steps import Step
from lepton_core.session import RoundCommand, RoundInvite, RoundOutcome, refusal_of
from lepton_core.views import DroppedMember, JobState, ModelView
from lepton_server.jobs import events as ev
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import Aggregating, Facts, Finishing, Rounding, RoundRecord, Waiting
from lepton_server.jobs.turns import Result, end, round_key, step_name, took_answer, took_metrics, wait, wait_key

#: Aborted rounds in a row after which a job fails.
MOST_ABORTED_IN_ROW = 3
#: A member's rejected messages in one round, each with its rows in journal and audit; what comes then is ignored.
MOST_REJECTED = 8


def open_round(draft: Draft, event: ev.RoundOpened) -> Result:
    """Start the round with this cohort."""
    facts, number = draft.facts, draft.roll.next_round
    model = draft.roll.model
    if model is None:  # Waiting is only entered with a model
        return end(draft, Waiting(draft.roll, draft.time), JobState.FAILED, "a round without a model")
    draft.add(ev.CancelTimer(wait_key(facts, draft.roll)))
    draft.roll = replace(draft.roll, next_round=RoundNumber(number + 1))
    record = RoundRecord(number, event.cohort, draft.time, draft.time)
    phase, effects = protocol.start(
        facts.setup(number),
        facts.nonce(number),
        {member: facts.peers[member].identity for member in event.cohort},
        BoundModel(ModelVersion(model.version), bytes.fromhex(model.digest)),
    )
    for member in event.cohort:
        draft.add(ev.Tell(member, RoundInvite(facts.setup(number))))
    draft.announce("step", f"round {number} opened with {len(event.cohort)} members", record=record, step="advert")
    return _translate(draft, Rounding(draft.roll, record, phase), record, effects, step_of(phase))


def rounding(draft: Draft, phase: Rounding, event: ev.MachineEvent) -> Result:
    """A secure aggregation round runs."""
    facts, record = draft.facts, phase.record
    match event:
        case ev.RoundMessage(member, number, message, size) if number == record.number and member in record.cohort:
            if record.rejected.get(member, 0) >= MOST_REJECTED:
                return phase, ()
            record = replace(record, message_bytes=record.message_bytes + size)
            return _protocol_step(draft, phase, record, _event_of(message))
        case ev.MemberLeft(member, number, refusal) if number == record.number and member in record.cohort:
            if refusal is not None:
                others = tuple(entry for entry in record.refusals if entry[0] != member)
                record = replace(record, refusals=(*others, (member, refusal)))
                reason = f"refused: {refusal.reason} {refusal.subject}".strip()
            else:
                reason = "connection lost"
            return _protocol_step(draft, phase, record, pe.MemberLost(member, reason))
        case ev.DeadlinePassed(key):
            now = step_of(phase.protocol)
            if key == round_key(facts, record.number, step_name(now)):
                return _protocol_step(draft, phase, record, pe.DeadlinePassed(now))
        case _:
            if not took_answer(draft, event):
                took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


def _protocol_step(draft: Draft, phase: Rounding, record: RoundRecord, event: pe.Event) -> Result:
    before = step_of(phase.protocol)
    after, effects = protocol.step(phase.protocol, event)
    if isinstance(event, pe.InputReceived) and not any(isinstance(effect, pe.Rejected) for effect in effects):
        # The first that was accepted counts: what a member says later must not exchange bytes that are in a frozen sum.
        digest = Digest(event.trailer.payload_digest.hex())
        record = replace(record, payloads={event.trailer.member: digest, **record.payloads})
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
                draft.add(ev.CancelTimer(round_key(facts, number, step_name(before))))
                draft.set_timer(round_key(facts, number, step_name(step_now)), record.deadline)
                if step_now is not before:
                    draft.announce(
                        "step", f"round {number}: {step_name(step_now)}", record=record, step=step_name(step_now)
                    )
            case pe.Dropped(member, at, reason):
                lost = DroppedMember(facts.owner(member), step_name(at), reason)
                record = replace(record, dropped=(*record.dropped, lost))
                text = f"round {number}: {lost.owner} dropped out in step {lost.step}: {reason}"
                draft.announce("dropped", text, record=record, step=lost.step, owner=lost.owner)
                draft.close_round(member, number, RoundOutcome.LEFT_OUT, reason)
            case pe.Rejected(member, error):
                record = replace(record, rejected={**record.rejected, member: record.rejected.get(member, 0) + 1})
                draft.add(ev.Reject(member, error))
                draft.audit(facts.owner(member), "round.reject", f"round {number}: {error.code} {error.reason}")
                draft.announce("rejected", f"round {number}: {error}", record=record, owner=facts.owner(member))
            case pe.Finished(result):
                draft.add(ev.CancelTimer(round_key(facts, number, step_name(before))))
                next_phase = Aggregating(draft.roll, record, result)
                draft.record_round(record, state="running", step="done", survivors=result.survivors)
                draft.audit("coordinator", "round.sum", f"round {number}: {', '.join(facts.owners(result.survivors))}")
                draft.add(aggregate_effect(facts, next_phase))
                return replace(next_phase, roll=draft.roll), draft.effects
            case pe.Aborted(error, blamed):
                draft.add(ev.CancelTimer(round_key(facts, number, step_name(before))))
                if blamed is not None:
                    _leave_out(draft, blamed, error)
                return _round_aborted(draft, replace(phase, record=record), before, error)
            case _:
                assert_never(effect)
    phase = Rounding(draft.roll, record, phase.protocol)
    draft.record_round(
        record,
        state="running",
        step=step_name(step_of(phase.protocol)),
        waiting_for=waiting_for(phase.protocol),
    )
    return phase, draft.effects


def _leave_out(draft: Draft, member: MemberId, error: LeptonError) -> None:
    """A member that broke the protocol for all takes no part in later rounds of this job."""
    blame = replace(refusal_of(error), subject="")
    draft.roll = replace(draft.roll, answers={**draft.roll.answers, member: blame})
    owner = draft.facts.owner(member)
    draft.announce("refused", f"{owner} is left out of later rounds: {error.message}", owner=owner)
    draft.audit("coordinator", "job.leave-out", f"{owner}: {error.reason}")


def _round_aborted(draft: Draft, phase: Rounding, at: Step, error: LeptonError) -> Result:
    facts, record = draft.facts, phase.record
    reason = f"{error.reason} {error}".strip()
    draft.record_round(record, state="aborted", step=step_name(at), reason=reason)
    draft.announce("aborted-round", f"round {record.number} aborted in step {step_name(at)}: {error}", record=record)
    draft.audit("coordinator", "round.abort", f"round {record.number}: {step_name(at)}: {error.code} {error.reason}")
    draft.forget_payloads(record)
    dropped = {lost.owner for lost in record.dropped}
    for member in record.cohort:
        if facts.owner(member) not in dropped:
            draft.close_round(member, record.number, RoundOutcome.ABORTED, error.message)
    if at is Step.UNMASK:
        draft.roll = replace(draft.roll, answered=draft.roll.answered | frozenset(record.cohort))
    draft.roll = replace(draft.roll, aborted_in_row=draft.roll.aborted_in_row + 1)
    if not record.payloads and {member for member, _ in record.refusals} >= set(record.cohort):
        told = "; ".join(f"{facts.owner(member)}: {no.reason} {no.subject}".strip() for member, no in record.refusals)
        return end(draft, phase, JobState.FAILED, f"round {record.number}: nothing usable was contributed: {told}")
    if draft.roll.aborted_in_row >= MOST_ABORTED_IN_ROW:
        text = f"{MOST_ABORTED_IN_ROW} rounds in a row were aborted; the last in step {step_name(at)}: {error}"
        return end(draft, phase, JobState.FAILED, text)
    if len(draft.roll.eligible) < facts.job.aggregation.min_cohort:
        text = f"round {record.number} was lost after members had answered on model {draft.roll.version}: {error}"
        return end(draft, phase, JobState.FAILED, text)
    return wait(draft)


def aggregating(draft: Draft, phase: Aggregating, event: ev.MachineEvent) -> Result:
    """The round has a sum; it becomes the next model."""
    record = phase.record
    match event:
        case ev.AggregateDone(round=number) if number == record.number:
            return _advance(draft, phase, event)
        case ev.AggregateFailed(round=number, error=error) if number == record.number:
            draft.record_round(record, state="aborted", step="done", reason=str(error))
            return end(draft, phase, JobState.FAILED, f"round {number}: the sum could not be used: {error}")
        case _:
            if not took_answer(draft, event):
                took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


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
        return end(draft, phase, JobState.FAILED, text)
    draft.take_model(view, optimizer=event.optimizer)
    draft.roll = replace(draft.roll, aborted_in_row=0, answered=frozenset())
    if view.version >= facts.job.training.rounds:
        return Finishing(draft.roll), draft.effects
    return wait(draft)


def aggregate_effect(facts: Facts, phase: Aggregating) -> ev.RunAggregate:
    """The work that turns the sum into a model; the same phase gives the same work."""
    model = phase.roll.model
    return ev.RunAggregate(
        facts.job_id,
        facts.job,
        facts.terms,
        phase.record.number,
        tuple(Digest(phase.result.payload_digests[member].hex()) for member in phase.result.survivors),
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
