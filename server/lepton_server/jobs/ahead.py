"""A round that is opened and not begun: its members make their keys while the round before still makes the model.

So in steady state a round costs three exchanges: input, consistency, unmasking; adverts and shares of the next ride
on them. Opening and these steps change nothing of the job but `Roll.ahead`: whether and when the round begins, and
whether another is opened in its place, is the coordinator's to say (`RoundBegun`, `RoundOpened`).
"""

from __future__ import annotations

from dataclasses import replace

from lepton_core.errors import LeptonError
from lepton_core.ids import RoundNumber
from lepton_core.secagg import server_events as pe
from lepton_core.session import RoundInvite, RoundOutcome
from lepton_server.jobs import events as ev
from lepton_server.jobs import protocols
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.phases import Ahead, RoundRecord
from lepton_server.jobs.relay import event_of, reason_left, relay, took_message
from lepton_server.jobs.turns import round_key, step_name

#: Why a round ends that was opened and not begun.
_SUPERSEDED = "another round takes its place, with members that have come since"


def open_ahead(draft: Draft, event: ev.RoundOpened) -> None:
    """Ask this cohort for keys."""
    give_up(draft, _SUPERSEDED)
    facts, number = draft.facts, draft.roll.next_round
    draft.roll = replace(draft.roll, next_round=RoundNumber(number + 1))
    phase, effects = protocols.start(facts, number, event.cohort)
    for member in event.cohort:
        draft.add(ev.Tell(member, RoundInvite(facts.setup(number))))
    record, _ = relay(
        draft, RoundRecord(number, event.cohort, draft.time, draft.time), effects, protocols.step_of(phase), begun=False
    )
    draft.roll = replace(draft.roll, ahead=Ahead(record, phase))


def took_ahead(draft: Draft, event: ev.MachineEvent) -> bool:
    """Take in what concerns the round that is opened and not begun; False for everything else."""
    ahead = draft.roll.ahead
    if ahead is None or not _concerns(draft, ahead, event):
        return False
    record, before = ahead.record, protocols.step_of(ahead.protocol)
    told: pe.Event
    match event:
        case ev.RoundMessage():
            taken = took_message(record, event)
            if taken is None:
                return True
            record, told = taken, event_of(event.message)
        case ev.MemberLeft(member):
            told = pe.MemberLost(member, reason_left(event))
        case _:
            told = pe.DeadlinePassed(before)
    phase, effects = protocols.step(ahead.protocol, told)
    record, ending = relay(draft, record, effects, before, begun=False)
    draft.roll = replace(draft.roll, ahead=Ahead(record, phase))
    if isinstance(ending, pe.Aborted):
        _lost(draft, ending.error)
    return True


def _concerns(draft: Draft, ahead: Ahead, event: ev.MachineEvent) -> bool:
    """True if the event is one of the round ahead."""
    record = ahead.record
    match event:
        case ev.RoundMessage(member, number) | ev.MemberLeft(member, number):
            return number == record.number and member in record.cohort
        case ev.DeadlinePassed(key):
            return key == round_key(draft.facts, record.number, step_name(protocols.step_of(ahead.protocol)))
        case _:
            return False


def give_up(draft: Draft, reason: str) -> None:
    """End a round that was opened and not begun; nothing happens if there is none. Its number is not used again."""
    ahead = draft.roll.ahead
    if ahead is None:
        return
    record, at = ahead.record, step_name(protocols.step_of(ahead.protocol))
    draft.add(ev.CancelTimer(round_key(draft.facts, record.number, at)))
    draft.record_round(record, state="aborted", step=at, reason=reason)
    gone = {lost.owner for lost in record.dropped}
    for member in record.cohort:
        if draft.facts.owner(member) not in gone:
            draft.close_round(member, record.number, RoundOutcome.ABORTED, reason)
    draft.roll = replace(draft.roll, ahead=None)


def _lost(draft: Draft, error: LeptonError) -> None:
    ahead = draft.roll.ahead
    if ahead is not None:
        number, at = ahead.record.number, step_name(protocols.step_of(ahead.protocol))
        draft.audit("coordinator", "round.abort", f"round {number}: {at}: {error.code} {error.reason}")
    give_up(draft, f"{error.reason} {error}".strip())
