"""Between a job and the protocol machine of one of its rounds: members' messages in, the machine's effects out."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from lepton_core.ids import MemberId
from lepton_core.plain import server as plain
from lepton_core.secagg import server_events as pe
from lepton_core.secagg.messages import (
    Advert,
    ConsistencySignature,
    InputTrailer,
    MemberMessage,
    ShareMessage,
    Unmasking,
)
from lepton_core.secagg.steps import Step
from lepton_core.session import RoundCommand, RoundOutcome
from lepton_core.views import DroppedMember
from lepton_server.jobs import events as ev
from lepton_server.jobs import protocols
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import RoundRecord
from lepton_server.jobs.turns import round_key, step_name

#: A member's rejected messages in one round, each with its rows in journal and audit; what comes then is ignored.
MOST_REJECTED = 8

Ending = protocols.Finished | pe.Aborted


def may_speak(record: RoundRecord, member: MemberId) -> bool:
    """True for a member of the round that has not been rejected too often in it."""
    return member in record.cohort and record.rejected.get(member, 0) < MOST_REJECTED


def took_message(record: RoundRecord, event: ev.RoundMessage) -> RoundRecord | None:
    """The record with the message counted; None if nothing more is heard of its sender in this round."""
    if not may_speak(record, event.member):
        return None
    return replace(record, message_bytes=record.message_bytes + event.size)


def reason_left(event: ev.MemberLeft) -> str:
    """Why the member is gone, in words for people."""
    refusal = event.refusal
    return "connection lost" if refusal is None else f"refused: {refusal.reason} {refusal.subject}".strip()


def relay(
    draft: Draft, record: RoundRecord, effects: tuple[protocols.Effect, ...], before: Step, *, begun: bool = True
) -> tuple[RoundRecord, Ending | None]:
    """Effects of the protocol machine as effects of the job; how the round ended, if it did.

    begun: False for a round whose keys are made ahead; of its steps the job's watchers are told when it begins.
    """
    facts, number = draft.facts, record.number
    for effect in effects:
        match effect:
            case pe.Send(member, message):
                draft.add(ev.Tell(member, RoundCommand(facts.job_id, number, message)))
            case pe.SetDeadline(step_now):
                record = replace(record, deadline=draft.time + facts.job.aggregation.step_deadline_s)
                draft.add(ev.CancelTimer(round_key(facts, number, step_name(before))))
                draft.set_timer(round_key(facts, number, step_name(step_now)), record.deadline)
                if begun and step_now is not before:
                    draft.announce(
                        "step", f"round {number}: {step_name(step_now)}", record=record, step=step_name(step_now)
                    )
            case pe.Dropped(member, at, reason):
                lost = DroppedMember(facts.owner(member), step_name(at), reason)
                record = replace(record, dropped=(*record.dropped, lost))
                if begun:
                    tell_dropped(draft, record, lost)
                draft.close_round(member, number, RoundOutcome.LEFT_OUT, reason)
            case pe.Rejected(member, error):
                record = replace(record, rejected={**record.rejected, member: record.rejected.get(member, 0) + 1})
                draft.add(ev.Reject(member, error))
                draft.audit(facts.owner(member), "round.reject", f"round {number}: {error.code} {error.reason}")
                if begun:
                    draft.announce("rejected", f"round {number}: {error}", record=record, owner=facts.owner(member))
            case pe.Finished() | plain.Finished() | pe.Aborted():
                return record, effect
            case _:
                assert_never(effect)
    return record, None


def tell_dropped(draft: Draft, record: RoundRecord, lost: DroppedMember) -> None:
    """Tell the job's watchers who takes no further part."""
    text = f"round {record.number}: {lost.owner} dropped out in step {lost.step}: {lost.reason}"
    draft.announce("dropped", text, record=record, step=lost.step, owner=lost.owner)


def event_of(message: MemberMessage) -> pe.MessageEvent:
    """The protocol machine's event for a member's message."""
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
