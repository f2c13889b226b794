"""What goes into the coordinator's machine and what comes out of it: events and effects, as plain data.

Events are what a journal stores: the machine rebuilt from them is the same machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from lepton_core.errors import LeptonError
from lepton_core.ids import MemberId
from lepton_core.secagg.messages import (
    Advert,
    ConsistencySignature,
    InputTrailer,
    ServerMessage,
    ShareMessage,
    Unmasking,
)
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.steps import Step
from lepton_core.secagg.transcript import RoundResult

# Events. The caller has checked that the sender's connection belongs to the member a message names. -------------------


@dataclass(frozen=True)
class AdvertReceived:
    """Step 0."""

    advert: Advert


@dataclass(frozen=True)
class SharesReceived:
    """Step 1."""

    message: ShareMessage


@dataclass(frozen=True)
class InputReceived:
    """Step 2b; the words are stored under the trailer's digest already, and their length is right."""

    trailer: InputTrailer


@dataclass(frozen=True)
class SignatureReceived:
    """Step 3."""

    signature: ConsistencySignature


@dataclass(frozen=True)
class UnmaskingReceived:
    """Step 4."""

    unmasking: Unmasking


@dataclass(frozen=True)
class MemberLost:
    """The member is gone, refused or aborted: do not wait for it. A message that comes all the same still counts."""

    member: MemberId
    reason: str


@dataclass(frozen=True)
class DeadlinePassed:
    """The deadline set for a step; ignored when that step is over."""

    step: Step


@dataclass(frozen=True)
class ModelBound:
    """The model that the round trains on is known; the first that is told counts."""

    model: BoundModel


MessageEvent = AdvertReceived | SharesReceived | InputReceived | SignatureReceived | UnmaskingReceived
Event = MessageEvent | MemberLost | DeadlinePassed | ModelBound


# Effects --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    """Send the message to the member; if it is lost, `server.outstanding` gives it again."""

    member: MemberId
    message: ServerMessage


@dataclass(frozen=True)
class SetDeadline:
    """A step begins: feed `DeadlinePassed(step)` when the terms' time for a step is over."""

    step: Step


@dataclass(frozen=True)
class Dropped:
    """The member takes no further part: tell it. Its input is in the sum only if the step is CONSISTENCY or UNMASK."""

    member: MemberId
    step: Step
    reason: str


@dataclass(frozen=True)
class Rejected:
    """A message that breaks the protocol, or comes too early or too late; the phase is as before, `error` says why.

    The member is still waited for, until it answers rightly, is lost, or the deadline passes.
    """

    member: MemberId
    error: LeptonError


@dataclass(frozen=True)
class Finished:
    """The sum can be unmasked and published: see `unmask.unmask`."""

    result: RoundResult


@dataclass(frozen=True)
class Aborted:
    """The round is over without a sum; tell every member. `blamed`: leave this member out of the next round."""

    error: LeptonError
    blamed: MemberId | None = None


Effect = Send | SetDeadline | Dropped | Rejected | Finished | Aborted


def sender_of(event: MessageEvent) -> tuple[MemberId, object]:
    """Who says it, and what."""
    match event:
        case AdvertReceived(advert):
            return advert.member, advert
        case SharesReceived(message):
            return message.dealer, message
        case InputReceived(trailer):
            return trailer.member, trailer
        case SignatureReceived(signature):
            return signature.member, signature
        case UnmaskingReceived(unmasking):
            return unmasking.member, unmasking
        case _:
            assert_never(event)
