"""The rounds of a job: opened, begun, run by the protocol machine, ended with a new model or without.

The protocol is one of `protocols`; its effects are translated here. State changes only through what these
functions return to `machine.step`. What becomes of a round that is opened and not begun is in `ahead`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from lepton_core.errors import LeptonError
from lepton_core.ids import Digest, MemberId, ModelVersion, RoundNumber
from lepton_core.plain import server as plain
from lepton_core.secagg import server_events as pe
from lepton_core.secagg.messages import InputTrailer
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.steps import Step
from lepton_core.session import Published, RoundOutcome, refusal_of
from lepton_core.views import JobState, ModelView
from lepton_server.jobs import events as ev
from lepton_server.jobs import protocols
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import Aggregating, Facts, Finishing, Phase, RoundEnd, Rounding, RoundRecord, Waiting
from lepton_server.jobs.protocols import step_of, waiting_for
from lepton_server.jobs.relay import event_of, reason_left, relay, tell_dropped, took_message
from lepton_server.jobs.turns import Result, end, round_key, step_name, took_answer, took_metrics, wait, wait_key

#: Aborted rounds in a row after which a job fails.
MOST_ABORTED_IN_ROW = 3


def begin_round(draft: Draft, phase: Waiting) -> Result:
    """Bind the newest model to the round that was opened."""
    facts, ahead, model = draft.facts, draft.roll.ahead, draft.roll.model
    if model is None or ahead is None:  # Waiting is only entered with a model, and a round is opened before it begins
        return end(draft, phase, JobState.FAILED, "a round without a model")
    draft.add(ev.CancelTimer(wait_key(facts, draft.roll)))
    draft.roll = replace(draft.roll, ahead=None)
    record = replace(ahead.record, started=draft.time)
    draft.announce(
        "step",
        f"round {record.number} opened with {len(record.cohort)} members",
        record=record,
        step=step_name(step_of(ahead.protocol)),
    )
    for lost in record.dropped:
        tell_dropped(draft, record, lost)
    bound = pe.ModelBound(BoundModel(ModelVersion(model.version), bytes.fromhex(model.digest)))
    begun = Rounding(draft.roll, record, ahead.protocol)
    _record_running(draft, begun)
    return _protocol_step(draft, begun, record, bound)


def rounding(draft: Draft, phase: Rounding, event: ev.MachineEvent) -> Result:
    """A round runs."""
    facts, record = draft.facts, phase.record
    match event:
        case ev.RoundMessage(member, number) if number == record.number and member in record.cohort:
            taken = took_message(record, event)
            if taken is None:
                return phase, ()
            return _protocol_step(draft, phase, taken, event_of(event.message), uploaded=not event.inline)
        case ev.MemberLeft(member, number, refusal) if number == record.number and member in record.cohort:
            if refusal is not None:
                others = tuple(entry for entry in record.refusals if entry[0] != member)
                record = replace(record, refusals=(*others, (member, refusal)))
            return _protocol_step(draft, phase, record, pe.MemberLost(member, reason_left(event)))
        case ev.DeadlinePassed(key):
            now = step_of(phase.protocol)
            if key == round_key(facts, record.number, step_name(now)):
                return _protocol_step(draft, phase, record, pe.DeadlinePassed(now))
        case ev.TotalKept(number, digest) if number == record.number:
            draft.forget_payloads(record)
            return replace(phase, record=replace(record, total=digest)), draft.effects
        case _:
            if not took_answer(draft, event):
                took_metrics(draft, event)
    return replace(phase, roll=draft.roll), draft.effects


def _protocol_step(
    draft: Draft, phase: Rounding, record: RoundRecord, event: pe.Event, *, uploaded: bool = False
) -> Result:
    before = step_of(phase.protocol)
    after, effects = protocols.step(phase.protocol, event)
    if isinstance(event, pe.InputReceived) and not any(isinstance(effect, pe.Rejected) for effect in effects):
        record = _took_input(draft, record, event.trailer, uploaded=uploaded)
    return _settle(draft, Rounding(draft.roll, record, after), effects, before)


def _settle(draft: Draft, phase: Rounding, effects: tuple[protocols.Effect, ...], before: Step) -> Result:
    """What the protocol's effects make of the round."""
    told = len(phase.record.dropped)
    record, ending = relay(draft, phase.record, effects, before)
    phase, after = Rounding(draft.roll, record, phase.protocol), phase.protocol
    match ending:
        case None:
            if step_of(after) is not before or len(record.dropped) > told:
                _record_running(draft, phase)
            return phase, draft.effects
        case pe.Finished(result):
            return _finished(draft, phase, before, result)
        case plain.Finished(result):
            return _finished(draft, phase, before, result)
        case pe.Aborted(error, blamed):
            if blamed is not None:
                _leave_out(draft, blamed, error)
            return _round_aborted(draft, replace(phase, roll=draft.roll), before, error)
        case _:
            assert_never(ending)


def _record_running(draft: Draft, phase: Rounding) -> None:
    """The round's row; whom it waits for now is told from memory."""
    now = phase.protocol
    draft.record_round(phase.record, state="running", step=step_name(step_of(now)), waiting_for=waiting_for(now))


def _took_input(draft: Draft, record: RoundRecord, trailer: InputTrailer, *, uploaded: bool) -> RoundRecord:
    """The first that was accepted counts: what a member says later must not exchange bytes that are in a sum."""
    digest = Digest(trailer.payload_digest.hex())
    if uploaded and trailer.member not in record.payloads and draft.facts.job.aggregation.secure:
        draft.add(ev.RunAdd(draft.facts.setup(record.number), digest))
    return replace(record, payloads={trailer.member: digest, **record.payloads})


def inputs_to_keep(phase: Rounding) -> tuple[Digest, ...] | None:
    """Digests of the frozen survivors' masked words, whose sum is to be kept now; None if there is nothing to do."""
    survivors = protocols.frozen_survivors(phase.protocol)
    if phase.record.total is not None or survivors is None:
        return None
    return tuple(phase.record.payloads[member] for member in survivors)


def inputs_of(phase: Phase) -> tuple[Digest, ...]:
    """Digests of the running round's accepted inputs, while their sum is not kept in their place."""
    if not isinstance(phase, Rounding) or phase.record.total is not None:
        return ()
    return tuple(phase.record.payloads.values())


def oldest_round(phase: Phase) -> RoundNumber:
    """The oldest round that may still take an input."""
    if isinstance(phase, Rounding):
        return RoundNumber(phase.record.number + (phase.record.total is not None))
    return phase.roll.ahead.record.number if phase.roll.ahead is not None else phase.roll.next_round


def opens_ahead(facts: Facts, phase: Rounding) -> bool:
    """True once this round's model is out and the next round's keys can be made; they are asked for once a round."""
    number, version = phase.record.number, phase.roll.version
    wanted = version + 1 < facts.job.training.rounds and phase.roll.next_round == number + 1
    return wanted and facts.job.aggregation.secure and step_of(phase.protocol).value >= Step.INPUT.value


def _finished(draft: Draft, phase: Rounding, at: Step, result: RoundEnd) -> Result:
    """The sum exists; it is being turned into the next model."""
    facts, record = draft.facts, phase.record
    draft.add(ev.CancelTimer(round_key(facts, record.number, step_name(at))))
    draft.record_round(record, state="running", step="done", survivors=result.survivors)
    names = ", ".join(facts.owners(result.survivors))
    draft.audit("coordinator", "round.sum", f"round {record.number}: {names}")
    next_phase = Aggregating(draft.roll, record, result)
    draft.add(aggregate_effect(facts, next_phase))
    return next_phase, draft.effects


def _leave_out(draft: Draft, member: MemberId, error: LeptonError) -> None:
    """A member that broke the protocol for all takes no part in later rounds of this job."""
    blame = replace(refusal_of(error), subject="")
    draft.roll = replace(draft.roll, answers={**draft.roll.answers, member: blame})
    owner = draft.facts.owner(member)
    draft.announce("refused", f"{owner} is left out of later rounds: {error.message}", owner=owner)
    draft.audit("coordinator", "job.leave-out", f"{owner}: {error.reason}")


def _round_aborted(draft: Draft, phase: Rounding, at: Step, error: LeptonError) -> Result:
    facts, record = draft.facts, phase.record
    draft.add(ev.CancelTimer(round_key(facts, record.number, step_name(at))))
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
        done=event,
    )
    draft.forget_payloads(record)
    for member in phase.result.survivors:
        # What a plain round leads down by is asked for with the snapshot, when the next round begins.
        published = Published(event.link) if event.link and facts.job.aggregation.secure else None
        draft.close_round(member, record.number, RoundOutcome.COMPLETED, "", published)
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
        link=event.link,
    )
    survivors = ", ".join(facts.owners(phase.result.survivors))
    draft.announce("round", f"round {record.number} completed: the sum of {survivors}", record=record, model=view)
    if not event.changed:
        text = f"round {record.number}: the model did not change; nothing usable was contributed"
        return end(draft, phase, JobState.FAILED, text)
    draft.take_model(view, optimizer=event.optimizer, snapshot=event.snapshot)
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
        facts.setup(phase.record.number),
        phase.record.total or Digest(""),  # kept in the transaction that froze the survivors; none in the plain
        phase.result,
        Digest(model.digest if model is not None else ""),
        phase.roll.version,
        phase.roll.optimizer,
    )
