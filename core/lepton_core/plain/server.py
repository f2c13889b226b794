"""The coordinator's side of a round without secure aggregation, as a machine: events in, effects out.

Everything that can change it is in this file. Its events and effects are those of the secure protocol, as far as a
round that hides nothing has them, so that a job runs either in the same way.

Rules
  1. A member's update counts if it is signed for this round and model; the first one counts, for ever.
  2. The round ends when everybody has answered or is lost, or at the deadline: with those that answered, if they are
     at least the minimum cohort, else without a result.

  phase            awaits                       becomes
  AwaitingModel    ModelBound                   AwaitingUpdates; Send(Delivery) to everybody
  AwaitingUpdates  InputReceived, losses        Closed; Finished, or Failed; Aborted
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from lepton_core.errors import AbortedError, LeptonError, PeerViolation
from lepton_core.identity import require_signature
from lepton_core.ids import MemberId
from lepton_core.plain.naming import derive_plain_sid
from lepton_core.secagg.messages import Delivery, InputTrailer
from lepton_core.secagg.server_events import (
    Aborted,
    DeadlinePassed,
    Dropped,
    Event,
    InputReceived,
    MemberLost,
    ModelBound,
    Rejected,
    Send,
    SetDeadline,
    sender_of,
)
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import Setup


@dataclass(frozen=True)
class PlainResult:
    """A round that ended with these members' updates."""

    #: Sorted.
    survivors: tuple[MemberId, ...]
    #: SHA-256 of each survivor's stored payload.
    payload_digests: Mapping[MemberId, bytes]


@dataclass(frozen=True)
class Finished:
    """The updates are complete: their mean can be taken."""

    result: PlainResult


Effect = Send | SetDeadline | Dropped | Rejected | Finished | Aborted


@dataclass(frozen=True)
class Opening:
    """What does not change during a round."""

    setup: Setup
    #: Identity keys of the members asked to take part.
    invited: Mapping[MemberId, bytes]


@dataclass(frozen=True)
class AwaitingModel:
    """Opened; the round before is still making the model."""

    opening: Opening
    #: Members that are not waited for, and why.
    lost: Mapping[MemberId, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AwaitingUpdates:
    """Members train."""

    opening: Opening
    lost: Mapping[MemberId, str]
    model: BoundModel
    #: Names round and model in every signature.
    sid: bytes
    trailers: Mapping[MemberId, InputTrailer] = field(default_factory=dict)


@dataclass(frozen=True)
class Closed:
    """Over, with updates."""

    result: PlainResult


@dataclass(frozen=True)
class Failed:
    """Over, without."""

    error: LeptonError


Phase = AwaitingModel | AwaitingUpdates | Closed | Failed
Outcome = tuple[Phase, tuple[Effect, ...]]


def start(setup: Setup, invited: Mapping[MemberId, bytes]) -> Outcome:
    """Open a round with these members; `invited` holds their Ed25519 identity keys."""
    return AwaitingModel(Opening(setup, dict(invited))), ()


def step(phase: Phase, event: Event) -> Outcome:
    """The next phase, and what the caller must do once it is durable."""
    match phase:
        case AwaitingModel():
            return _in_model(phase, event)
        case AwaitingUpdates():
            return _in_updates(phase, event)
        case Closed() | Failed():
            return phase, ()
        case _:
            assert_never(phase)


def outstanding(phase: Phase, member: MemberId) -> Delivery | None:
    """What the member should be told now, as often as it asks."""
    if isinstance(phase, AwaitingUpdates) and member in waiting_for(phase):
        return _delivery(phase.model)
    return None


def awaits_start(phase: Phase, member: MemberId) -> bool:
    """True while the member should know of the round and has not answered."""
    match phase:
        case AwaitingModel():
            return member in phase.opening.invited
        case AwaitingUpdates():
            return member in phase.opening.invited and member not in phase.trailers
        case Closed() | Failed():
            return False
        case _:
            assert_never(phase)


def waiting_for(phase: Phase) -> tuple[MemberId, ...]:
    """Members that should answer and have not, the lost ones left out; sorted."""
    if not isinstance(phase, AwaitingUpdates):
        return ()
    return tuple(sorted(set(phase.opening.invited) - set(phase.trailers) - set(phase.lost)))


def candidates(phase: Phase) -> tuple[MemberId, ...]:
    """Members whose updates may still count; sorted."""
    match phase:
        case AwaitingModel():
            return tuple(sorted(set(phase.opening.invited) - set(phase.lost)))
        case AwaitingUpdates():
            return tuple(sorted(set(waiting_for(phase)) | set(phase.trailers)))
        case Closed():
            return phase.result.survivors
        case Failed():
            return ()
        case _:
            assert_never(phase)


def _in_model(phase: AwaitingModel, event: Event) -> Outcome:
    match event:
        case ModelBound(model):
            sid = derive_plain_sid(phase.opening.setup.setup_id(), model.digest)
            asked = AwaitingUpdates(phase.opening, phase.lost, model, sid)
            told = [Send(member, _delivery(model)) for member in waiting_for(asked)]
            return _settle(asked, (*told, SetDeadline(Step.INPUT)))
        case MemberLost(member, reason):
            return replace(phase, lost={**phase.lost, member: reason}), ()
        case DeadlinePassed():
            return phase, ()
        case _:
            return _reject(phase, event, "a message before the round has a model")


def _in_updates(phase: AwaitingUpdates, event: Event) -> Outcome:
    match event:
        case InputReceived(trailer):
            return _take(phase, trailer)
        case MemberLost(member, reason) if member in phase.opening.invited and member not in phase.trailers:
            return _settle(replace(phase, lost={**phase.lost, member: reason}), ())
        case DeadlinePassed(Step.INPUT):
            late = dict.fromkeys(waiting_for(phase), "no answer in time")
            return _settle(replace(phase, lost={**phase.lost, **late}), ())
        case MemberLost() | DeadlinePassed() | ModelBound():
            return phase, ()
        case _:
            return _reject(phase, event, "a message that a plain round does not have")


def _take(phase: AwaitingUpdates, trailer: InputTrailer) -> Outcome:
    member = trailer.member
    known = phase.trailers.get(member)
    if known is not None:
        return (phase, ()) if known == trailer else _reject(phase, InputReceived(trailer), "a second, different update")
    if member not in phase.opening.invited or trailer.paired:
        return _reject(phase, InputReceived(trailer), "an update that is none of this round's")
    try:
        require_signature(
            phase.opening.invited[member],
            trailer.signature,
            trailer.signed_bytes(phase.sid),
            who=f"member {member.hex()}",
            what="update",
        )
    except LeptonError as error:
        return phase, (Rejected(member, error),)
    lost = {other: reason for other, reason in phase.lost.items() if other != member}
    return _settle(replace(phase, lost=lost, trailers={**phase.trailers, member: trailer}), ())


def _settle(phase: AwaitingUpdates, effects: tuple[Effect, ...]) -> Outcome:
    """End the round if nobody is waited for any more."""
    least = phase.opening.setup.terms.min_cohort
    if waiting_for(phase) and len(candidates(phase)) >= least:
        return phase, effects
    dropped = tuple(Dropped(member, Step.INPUT, reason) for member, reason in sorted(phase.lost.items()))
    if len(phase.trailers) < least:
        error = AbortedError(
            "too few members sent an update",
            where=f"round {phase.opening.setup.round}",
            expected=f"at least {least}",
            got=str(len(candidates(phase))),
            reason="TOO_FEW_INPUTS",
        )
        return Failed(error), (*effects, *dropped, Aborted(error))
    survivors = tuple(sorted(phase.trailers))
    result = PlainResult(survivors, {member: phase.trailers[member].payload_digest for member in survivors})
    return Closed(result), (*effects, *dropped, Finished(result))


def _reject(phase: Phase, event: Event, what: str) -> Outcome:
    if isinstance(event, MemberLost | DeadlinePassed | ModelBound):
        return phase, ()
    member, _ = sender_of(event)
    error = PeerViolation(what, where=f"member {member.hex()}", got=type(event).__name__, reason="OUT_OF_PLACE")
    return phase, (Rejected(member, error),)


def _delivery(model: BoundModel) -> Delivery:
    return Delivery(dealt=(), model_version=model.version, model_digest=model.digest)
