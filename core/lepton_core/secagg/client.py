"""One member of one secure aggregation round, as a machine without input or output: events in, effects out.

Everything that can change the member's side of the protocol is in this file. `client_events` and `client_phases` are
its vocabulary; `client_checks` decides what is refused and `sharing` deals and opens shares, both without state.

Rules
  1. Nothing is believed: terms, roster, survivor set and certificate are checked before the next secret is used.
  2. One answer an id. The same message again gets the same stored answer (only the latest can be missing at the
     coordinator, so older repetitions are ignored); a different one on an id already answered ends the round.
  3. A message that comes before its step ends the round: an honest coordinator cannot be ahead of this member's answer.
  4. Of each dealer exactly one kind of share is ever revealed, once a model version of the job, after it was recorded.
  5. `Done` and `Failed` hold no secret. `Done` keeps the unmasking, which the coordinator has been given, to repeat it.
  6. Secrets are drawn at `start` and live in phases only: a member that dies is a dropout of this round.
  7. What the coordinator does wrong becomes `Failed` and `Aborted`; what the caller does wrong is raised.

  phase        awaits              and then                                                          becomes
  -            start               checks terms; Send(Advert)                                        Advertised
  Advertised   RosterReceived      checks roster; deals shares; Send(ShareMessage)                   Shared
  Shared       DeliveryReceived    opens shares, derives masks, drops own secrets; Train             Training
  Training     InputReady          adds masks; Upload(words, trailer)                                Uploading
  Uploading    UploadDone          -                                                                 Uploaded
  Uploaded     SurvivorsReceived   checks the set; Send(ConsistencySignature)                        Consistent
  Consistent   CertificateReceived checks signatures; builds the unmasking; RecordAnswer             Recording
  Recording    AnswerRecorded      Send(Unmasking), Finished                                         Done
  any but Done Stop, or a fault    Aborted                                                           Failed

Source: Bonawitz et al. 2017, figure 4; Bell et al. 2020, algorithm 2; docs/secagg.md.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import assert_never

from lepton_core.errors import AbortedError, ConflictError, IdentityError, LeptonError, PeerViolation
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId, ModelVersion
from lepton_core.ports import Randomness
from lepton_core.ring import Words
from lepton_core.secagg.agreement import (
    commit_seed,
    derive_mask_private,
    draw_round_secrets,
    exchange,
    public_key,
)
from lepton_core.secagg.client_checks import (
    COORDINATOR,
    Admission,
    require_certificate,
    require_roster,
    require_strictly_sorted,
    require_survivors,
    require_terms,
    violation,
)
from lepton_core.secagg.client_events import (
    Aborted,
    AnswerRecorded,
    CertificateReceived,
    DeliveryReceived,
    Effect,
    Event,
    Finished,
    InputReady,
    RecordAnswer,
    RosterReceived,
    Send,
    SetupReceived,
    Stop,
    SurvivorsReceived,
    Train,
    Upload,
    UploadDone,
)
from lepton_core.secagg.client_phases import (
    Advertised,
    Consistent,
    Done,
    Failed,
    Own,
    Phase,
    Recording,
    Round,
    Shared,
    Training,
    Uploaded,
    Uploading,
)
from lepton_core.secagg.masks import add_streams, pair_streams, self_streams, split_groups
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    Delivery,
    InputTrailer,
    Roster,
    ShareKind,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.payload import payload_digest
from lepton_core.secagg.sharing import HeldShares, deal, open_dealt, require_digests
from lepton_core.secagg.terms import Setup, derive_codec_seed, derive_sid, survivors_digest

NONCE_BYTES = 32

Outcome = tuple[Phase, tuple[Effect, ...]]


def start(
    setup: Setup,
    identity: IdentityKey,
    admission: Admission,
    randomness: Randomness,
) -> Outcome:
    """Answer an invitation: check its terms, draw the round's secrets, advertise.

    Call it once a setup id; feed a repeated invitation as `SetupReceived`.
    """
    try:
        require_terms(setup, admission, identity.member, identity.public)
    except LeptonError as error:
        return _fail(error)
    setup_id = setup.setup_id()
    secrets = draw_round_secrets(randomness)
    unsigned = Advert(
        member=identity.member,
        identity=identity.public,
        mask_public=public_key(derive_mask_private(secrets.mask_secret, setup_id)),
        encryption_public=public_key(secrets.encryption_private),
        seed_commitment=commit_seed(setup_id, identity.member, secrets.seed),
        nonce=randomness.token(NONCE_BYTES),
        signature=b"",
    )
    advert = replace(unsigned, signature=identity.sign(unsigned.signed_bytes(setup_id)))
    own = Own(setup, setup_id, identity, admission)
    return Advertised(own, secrets, advert, randomness), (Send(advert),)


def step(phase: Phase, event: Event) -> Outcome:
    """The next phase, and what the caller must do, in order, after it has committed to the phase.

    Raises:
        CodecError: `InputReady` with words that do not fit the terms; the phase stays as it was.
        ConflictError: `InputReady`, `UploadDone` or `AnswerRecorded` that nobody asked for; likewise.
    """
    try:
        return _dispatch(phase, event)
    except LeptonError as error:
        if isinstance(event, InputReady | UploadDone | AnswerRecorded):
            raise
        return _fail(error)


def _dispatch(phase: Phase, event: Event) -> Outcome:
    match phase:
        case Advertised():
            return _in_advertised(phase, event)
        case Shared():
            return _in_shared(phase, event)
        case Training():
            return _in_training(phase, event)
        case Uploading() | Uploaded():
            return _in_upload(phase, event)
        case Consistent():
            return _in_consistent(phase, event)
        case Recording():
            return _in_recording(phase, event)
        case Done():
            return _in_done(phase, event)
        case Failed():
            return phase, ()
        case _:
            assert_never(phase)


def _in_advertised(phase: Advertised, event: Event) -> Outcome:
    match event:
        case SetupReceived(setup):
            _require_same(setup, phase.own.setup)
            return phase, (Send(phase.advert),)
        case RosterReceived(roster):
            return _share(phase, roster)
        case DeliveryReceived() | SurvivorsReceived() | CertificateReceived():
            raise _early(event)
        case InputReady() | UploadDone() | AnswerRecorded():
            raise _unasked(event)
        case Stop(reason):
            return _stop(reason)
        case _:
            assert_never(event)


def _in_shared(phase: Shared, event: Event) -> Outcome:
    match event:
        case SetupReceived(setup):
            _require_same(setup, phase.own.setup)
            return phase, ()
        case RosterReceived(roster):
            _require_same(roster, phase.circle.roster)
            return phase, (Send(phase.answer),)
        case DeliveryReceived(delivery, answered):
            return _pair(phase, delivery, answered)
        case SurvivorsReceived() | CertificateReceived():
            raise _early(event)
        case InputReady() | UploadDone() | AnswerRecorded():
            raise _unasked(event)
        case Stop(reason):
            return _stop(reason)
        case _:
            assert_never(event)


def _in_training(phase: Training, event: Event) -> Outcome:
    match event:
        case SetupReceived() | RosterReceived() | DeliveryReceived():
            _require_known(event, phase.round)
            return phase, ()
        case InputReady(words):
            return _mask(phase, words)
        case SurvivorsReceived() | CertificateReceived():
            raise _early(event)
        case UploadDone() | AnswerRecorded():
            raise _unasked(event)
        case Stop(reason):
            return _stop(reason)
        case _:
            assert_never(event)


def _in_upload(phase: Uploading | Uploaded, event: Event) -> Outcome:
    match event:
        case SetupReceived() | RosterReceived():
            _require_known(event, phase.round)
            return phase, ()
        case DeliveryReceived():
            _require_known(event, phase.round)
            return phase, ((phase.upload,) if isinstance(phase, Uploaded) else ())
        case UploadDone():
            return Uploaded(phase.round, phase.upload), ()
        case SurvivorsReceived(survivors):  # the set may overtake `UploadDone`
            return _agree(phase, survivors)
        case CertificateReceived():
            raise _early(event)
        case InputReady() | AnswerRecorded():
            raise _unasked(event)
        case Stop(reason):
            return _stop(reason)
        case _:
            assert_never(event)


def _in_consistent(phase: Consistent, event: Event) -> Outcome:
    match event:
        case SetupReceived() | RosterReceived() | DeliveryReceived():
            _require_known(event, phase.round)
            return phase, ()
        case SurvivorsReceived(survivors):
            _require_same(survivors, phase.survivors)
            return phase, (Send(phase.answer),)
        case CertificateReceived(certificate):
            return _prepare_answer(phase, certificate)
        case UploadDone():
            return phase, ()
        case InputReady() | AnswerRecorded():
            raise _unasked(event)
        case Stop(reason):
            return _stop(reason)
        case _:
            assert_never(event)


def _in_recording(phase: Recording, event: Event) -> Outcome:
    match event:
        case SetupReceived() | RosterReceived() | DeliveryReceived():
            _require_known(event, phase.round)
            return phase, ()
        case SurvivorsReceived(survivors):
            _require_same(survivors, phase.survivors)
            return phase, ()
        case CertificateReceived(certificate):
            _require_same(certificate, phase.certificate)
            return phase, ()
        case AnswerRecorded():
            return Done(phase.survivors, phase.certificate, phase.answer), (Send(phase.answer), Finished())
        case UploadDone():
            return phase, ()
        case InputReady():
            raise _unasked(event)
        case Stop(reason):
            return _stop(reason)
        case _:
            assert_never(event)


def _in_done(phase: Done, event: Event) -> Outcome:
    match event:
        case CertificateReceived(certificate) if certificate == phase.certificate:
            return phase, (Send(phase.answer),)
        case _:
            return phase, ()


# Transitions ----------------------------------------------------------------------------------------------------------


def _share(phase: Advertised, roster: Roster) -> Outcome:
    """Step 1: believe the roster only if every rule holds, then deal both secrets' shares."""
    own = phase.own
    circle = require_roster(roster, own.setup, own.admission, phase.advert)
    secrets, adverts = phase.secrets, circle.adverts
    mask_private = derive_mask_private(secrets.mask_secret, own.setup_id)
    sealing, masking = {}, {}
    for member, advert in adverts.items():
        who = f"member {member.hex()}"
        sealing[member] = exchange(secrets.encryption_private, advert.encryption_public, who=who)
        masking[member] = exchange(mask_private, advert.mask_public, who=who)
    message, own_shares = deal(
        own.identity,
        secrets,
        sealing,
        threshold=circle.threshold,
        setup_id=own.setup_id,
        roster_root=circle.root,
        randomness=phase.randomness,
    )
    return Shared(own, secrets.seed, sealing, masking, circle, own_shares, message), (Send(message),)


def _pair(phase: Shared, delivery: Delivery, answered: AbstractSet[ModelVersion]) -> Outcome:
    """Step 2a: open what was dealt, pair with those whose shares are right, derive every mask, drop own secrets."""
    own, circle, me = phase.own, phase.circle, phase.own.identity.member
    if delivery.model_version in answered:
        raise AbortedError(
            "this model version was answered in an earlier round",
            where=COORDINATOR,
            expected="a model version that this member has not answered",
            got=str(delivery.model_version),
            reason="ALREADY_ANSWERED",
        )
    held = _open_delivery(phase, delivery)
    paired = tuple(sorted(held))
    quorum = circle.graph.quorum
    if not circle.graph.circle:  # everybody is a neighbour, so that the minimum cohort can be asked for already
        quorum = max(quorum, own.setup.terms.min_cohort - 1)
    if len(paired) < quorum:
        raise AbortedError(
            "too few members shared their secrets",
            where=COORDINATOR,
            expected=f"at least {quorum} neighbours",
            got=str(len(paired)),
            reason="TOO_FEW_SHARES",
        )
    terms = own.setup.terms
    sid = derive_sid(own.setup_id, circle.root, delivery.model_digest)
    streams = list(self_streams(phase.seed, sid, me, terms))
    for other in paired:
        streams.extend(pair_streams(phase.masking[other], sid, me, other, terms))
    agreed = Round(own, circle, delivery, sid, {**held, me: phase.own_shares}, paired)
    train = Train(
        delivery.model_version, delivery.model_digest, sid, derive_codec_seed(sid), len(circle.members), paired
    )
    return Training(agreed, tuple(streams)), (train,)


def _open_delivery(phase: Shared, delivery: Delivery) -> dict[MemberId, HeldShares]:
    """The shares that opened and match what their dealers signed; a dealer of others is treated as absent."""
    own, circle, me = phase.own, phase.circle, phase.own.identity.member
    dealers = tuple(dealt.dealer for dealt in delivery.dealt)
    require_strictly_sorted(dealers, "delivery", "BAD_DELIVERY")
    if not set(dealers) <= set(circle.adverts):
        raise violation("shares from a dealer that is no neighbour", reason="UNKNOWN_DEALER")
    held: dict[MemberId, HeldShares] = {}
    for dealt in delivery.dealt:
        advert = circle.adverts[dealt.dealer]
        holders = circle.graph.holders(dealt.dealer)
        shared = phase.sealing[dealt.dealer]
        try:
            require_digests(dealt, advert.identity, holders, own.setup_id, circle.root)
            held[dealt.dealer] = open_dealt(dealt, shared, own.setup_id, me, dealt.digests[holders.index(me)])
        except (PeerViolation, IdentityError):
            continue
    return held


def _mask(phase: Training, words: Words) -> Outcome:
    """Step 2b: y = packed(x) + PRG(self) + sum of signed PRG(pair), modulo 2^64."""
    own, terms = phase.round.own, phase.round.own.setup.terms
    split_groups(words, terms)  # refuses another length
    masked = words.copy()
    add_streams(masked, phase.streams, terms)
    masked.flags.writeable = False
    unsigned = InputTrailer(
        own.identity.member, payload_digest(masked), terms.payload_bytes, phase.round.paired, signature=b""
    )
    trailer = replace(unsigned, signature=own.identity.sign(unsigned.signed_bytes(phase.round.sid)))
    upload = Upload(masked, trailer)
    return Uploading(phase.round, upload), (upload,)


def _agree(phase: Uploading | Uploaded, survivors: SurvivorSet) -> Outcome:
    """Step 3: sign the one survivor set of this round."""
    own, agreed = phase.round.own, phase.round
    me = own.identity.member
    require_survivors(survivors, agreed.circle, me, agreed.held, own.setup.terms.min_cohort)
    answer = ConsistencySignature(me, own.identity.sign(survivors_digest(agreed.sid, survivors.survivors)))
    return Consistent(agreed, survivors, answer), (Send(answer),)


def _prepare_answer(phase: Consistent, certificate: Certificate) -> Outcome:
    """Step 4: for every dealer exactly one kind of share, kept back until the answer is recorded."""
    own, agreed = phase.round.own, phase.round
    require_certificate(certificate, phase.survivors, agreed.circle, own.identity.member, agreed.sid)
    alive = set(phase.survivors.survivors)
    revealed = tuple(
        shares.reveal(dealer, ShareKind.SELF_SEED if dealer in alive else ShareKind.MASK_KEY)
        for dealer, shares in sorted(agreed.held.items())
    )
    unsigned = Unmasking(own.identity.member, revealed, signature=b"")
    answer = replace(unsigned, signature=own.identity.sign(unsigned.signed_bytes(agreed.sid)))
    recording = Recording(agreed, phase.survivors, certificate, answer)
    return recording, (RecordAnswer(agreed.delivery.model_version),)


# Endings and refusals -------------------------------------------------------------------------------------------------


def _fail(error: LeptonError) -> Outcome:
    """The end; the error's traceback is cut off, since its frames still hold the secrets of the phase before."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return Failed(error), (Aborted(error),)


def _stop(reason: str) -> Outcome:
    return _fail(AbortedError(f"this member's part in the round was stopped: {reason}", reason="STOPPED"))


def _require_same(came: object, known: object) -> None:
    if came != known:
        raise violation(
            "a second, different message on one id",
            reason="DIFFERENT_REPETITION",
            expected=f"the same {type(known).__name__} again",
        )


def _require_known(event: SetupReceived | RosterReceived | DeliveryReceived, agreed: Round) -> None:
    match event:
        case SetupReceived(setup):
            _require_same(setup, agreed.own.setup)
        case RosterReceived(roster):
            _require_same(roster, agreed.circle.roster)
        case DeliveryReceived(delivery):
            _require_same(delivery, agreed.delivery)
        case _:
            assert_never(event)


def _early(event: Event) -> LeptonError:
    return violation(
        "a message before its step", reason="OUT_OF_ORDER", got=type(event).__name__, expected="the next step's message"
    )


def _unasked(event: Event) -> LeptonError:
    return ConflictError("an event that this phase did not ask for", where="caller", got=type(event).__name__)
