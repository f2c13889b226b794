"""A member's side of a round without secure aggregation, as a machine: events in, effects out.

Everything that can change it is in this file. Its events and effects are those of the secure protocol, as far as a
round that hides nothing has them. Whether an owner takes part in such rounds at all is for its policy to say.

Rules
  1. Terms are checked as in a secure round; the model may be named once.
  2. The update leaves signed for this round and model; asked again, the member sends the same bytes again.
  3. What the coordinator does wrong becomes `Failed` and `Aborted`; what the caller does wrong is raised.

  phase      awaits              and then                           becomes
  -          start               checks terms                       Invited
  Invited    DeliveryReceived    Train                              Training
  Training   InputReady          Upload(words, trailer)             Uploading
  Uploading  UploadDone          -                                  Uploaded
  any        Stop, or a fault    Aborted                            Failed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from lepton_core.errors import AbortedError, CodecError, ConflictError, LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.plain.naming import derive_plain_sid
from lepton_core.ring import Words
from lepton_core.secagg.client_checks import COORDINATOR, Admission, require_terms, violation
from lepton_core.secagg.client_events import (
    Aborted,
    AnswerRecorded,
    CertificateReceived,
    DeliveryReceived,
    Effect,
    Event,
    InputReady,
    RosterReceived,
    SetupReceived,
    Stop,
    SurvivorsReceived,
    Train,
    Upload,
    UploadDone,
)
from lepton_core.secagg.messages import Delivery, InputTrailer
from lepton_core.secagg.payload import payload_digest
from lepton_core.secagg.terms import Setup, derive_codec_seed


@dataclass(frozen=True)
class Invited:
    """Awaits the model."""

    setup: Setup
    identity: IdentityKey


@dataclass(frozen=True)
class Training:
    """Awaits the update."""

    setup: Setup
    identity: IdentityKey
    delivery: Delivery
    sid: bytes


@dataclass(frozen=True)
class Uploading:
    """The pump uploads."""

    setup: Setup
    delivery: Delivery
    upload: Upload


@dataclass(frozen=True)
class Uploaded:
    """Sent; the coordinator says when the round is over."""

    setup: Setup
    delivery: Delivery
    upload: Upload


@dataclass(frozen=True)
class Failed:
    """Over without an update."""

    error: LeptonError


Phase = Invited | Training | Uploading | Uploaded | Failed
Outcome = tuple[Phase, tuple[Effect, ...]]


def start(setup: Setup, identity: IdentityKey, admission: Admission) -> Outcome:
    """Answer an invitation: check its terms, and wait for the model."""
    try:
        require_terms(setup, admission, identity.member, identity.public)
    except LeptonError as error:
        return _fail(error)
    return Invited(setup, identity), ()


def step(phase: Phase, event: Event) -> Outcome:
    """The next phase, and what the caller must do, in order, after it has committed to the phase.

    Raises:
        CodecError: `InputReady` with words that do not fit the terms; the phase stays as it was.
        ConflictError: `InputReady` or `UploadDone` that nobody asked for; likewise.
    """
    try:
        return _dispatch(phase, event)
    except LeptonError as error:
        if isinstance(event, InputReady | UploadDone | AnswerRecorded):
            raise
        return _fail(error)


def _dispatch(phase: Phase, event: Event) -> Outcome:
    if isinstance(phase, Failed):
        return phase, ()
    match event:
        case SetupReceived(setup):
            if setup != phase.setup:
                raise violation("a second, different invitation", reason="CHANGED")
            return phase, ()
        case DeliveryReceived(delivery):
            return _deliver(phase, delivery)
        case InputReady(words):
            return _send(phase, words)
        case UploadDone():
            return _sent(phase)
        case Stop(reason):
            return _fail(AbortedError(reason, reason="STOPPED"))
        case RosterReceived() | SurvivorsReceived() | CertificateReceived():
            raise violation("a message of a secure round in a plain one", reason="OUT_OF_PLACE")
        case AnswerRecorded():
            raise _unasked(event)
        case _:
            assert_never(event)


def _deliver(phase: Invited | Training | Uploading | Uploaded, delivery: Delivery) -> Outcome:
    if not isinstance(phase, Invited):
        if delivery != phase.delivery:
            raise violation("a second, different model for one round", reason="CHANGED")
        return phase, ((phase.upload,) if isinstance(phase, Uploaded) else ())
    if delivery.dealt:
        raise violation("shares of a secure round in a plain one", reason="OUT_OF_PLACE")
    sid = derive_plain_sid(phase.setup.setup_id(), delivery.model_digest)
    train = Train(delivery.model_version, delivery.model_digest, sid, derive_codec_seed(sid), roster_size=0, paired=())
    return Training(phase.setup, phase.identity, delivery, sid), (train,)


def _send(phase: Invited | Training | Uploading | Uploaded, words: Words) -> Outcome:
    if not isinstance(phase, Training):
        raise _unasked(InputReady(words))
    terms = phase.setup.terms
    if words.shape != (terms.words,):
        raise CodecError("an update that does not fit the terms", expected=f"({terms.words},)", got=f"{words.shape}")
    unsigned = InputTrailer(
        member=phase.identity.member,
        payload_digest=payload_digest(words),
        payload_bytes=terms.payload_bytes,
        paired=(),
        signature=b"",
    )
    trailer = replace(unsigned, signature=phase.identity.sign(unsigned.signed_bytes(phase.sid)))
    upload = Upload(words, trailer)
    return Uploading(phase.setup, phase.delivery, upload), (upload,)


def _sent(phase: Invited | Training | Uploading | Uploaded) -> Outcome:
    if not isinstance(phase, Uploading | Uploaded):
        raise _unasked(UploadDone())
    return Uploaded(phase.setup, phase.delivery, phase.upload), ()


def _unasked(event: Event) -> ConflictError:
    return ConflictError("a completion that nobody asked for", where=COORDINATOR, got=type(event).__name__)


def _fail(error: LeptonError) -> Outcome:
    return Failed(error), (Aborted(error),)
