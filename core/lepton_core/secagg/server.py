"""The coordinator's side of one secure aggregation round, as a machine without input or output.

Everything that can change the coordinator's side of the protocol is in this file. `server_events` and `server_phases`
are its vocabulary; `server_checks` decides what is refused, `server_answers` fills in what members are told,
`survivors` settles who can be in one sum, and `recovery` rebuilds secrets, all without state.

Rules
  1. Same events, same phases and effects: no clock, no randomness. A journal of events rebuilds the machine.
  2. A message is checked whole before anything of it counts. A bad one is `Rejected`, names its sender and changes
     nothing. One that repeats what was accepted is answered with what the member should have been told last.
  3. A step ends when everybody it expects has answered or is lost, or at its deadline. With too few it ends the round
     and names the missing.
  4. A lost member is not waited for; if its right message comes before the step ends, it counts.
  5. The survivor set is frozen once, and is symmetric: no two survivors disagree on having a pair mask.
  6. The model is bound once, at any time before step 2: so steps 0 and 1 can run while the model is still being made.
  7. Secrets are rebuilt from exactly t shares, each as its dealer signed it. A wrong share is its holder's fault; right
     shares of a wrong secret are the dealer's, and end the round.

  phase               expects            sends when it begins        ends with at least          becomes
  AwaitingAdverts     the invited        (the caller: Setup)         the minimum cohort          AwaitingShares
  AwaitingShares      the roster         Roster                      t and the minimum cohort    AwaitingModel
  AwaitingModel       the model          -                           -                           AwaitingInputs
  AwaitingInputs      the dealers        Delivery                    t and the minimum cohort    AwaitingSignatures
  AwaitingSignatures  the survivors      SurvivorSet                 t, and t of every secret    AwaitingUnmaskings
  AwaitingUnmaskings  the signers        Certificate                 t shares of every secret    Closed
  any of these        -                  -                           too few, or a bad dealer    Failed

Source: Bonawitz et al. 2017, figure 4; Bell et al. 2020, algorithm 2; docs/secagg.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import TypeVar, assert_never

from lepton_core.errors import InputError, LeptonError
from lepton_core.ids import MemberId, derive_member_id
from lepton_core.secagg.answers import Answers
from lepton_core.secagg.graph import choose_parameters, draw_graph
from lepton_core.secagg.messages import (
    KEY_BYTES,
    Leaf,
    Roster,
    ServerMessage,
    ShareKind,
    SurvivorSet,
)
from lepton_core.secagg.recovery import BadDealer, Recovery, derive_plan, shares_short
from lepton_core.secagg.server_absent import awaited, back, drop, lose, told
from lepton_core.secagg.server_answers import certificate_for, delivery_for, digests_for, roster_for, signers_for
from lepton_core.secagg.server_checks import (
    require_consistency,
    require_new_advert,
    require_share_message,
    require_trailer,
    require_unmasking,
)
from lepton_core.secagg.server_events import (
    Aborted,
    AdvertReceived,
    DeadlinePassed,
    Dropped,
    Effect,
    Event,
    Finished,
    InputReceived,
    MemberLost,
    MessageEvent,
    ModelBound,
    Rejected,
    Send,
    SetDeadline,
    SharesReceived,
    SignatureReceived,
    UnmaskingReceived,
    sender_of,
)
from lepton_core.secagg.server_phases import (
    Absent,
    Agreed,
    AwaitingAdverts,
    AwaitingInputs,
    AwaitingModel,
    AwaitingShares,
    AwaitingSignatures,
    AwaitingUnmaskings,
    BoundModel,
    Closed,
    Cohort,
    Failed,
    Opening,
    Phase,
    Running,
)
from lepton_core.secagg.server_refusals import (
    bad_dealer,
    different_repetition,
    early,
    late,
    stranger,
    too_few,
    unrecoverable_masks,
)
from lepton_core.secagg.steps import Step
from lepton_core.secagg.survivors import symmetric_core, unrecoverable
from lepton_core.secagg.terms import Setup, commit_nonce, derive_sid, survivors_digest
from lepton_core.secagg.transcript import DroppedMember, RoundResult, Transcript

Outcome = tuple[Phase, tuple[Effect, ...]]
M = TypeVar("M")


def start(
    setup: Setup,
    nonce: bytes,
    invited: Mapping[MemberId, bytes],
    model: BoundModel | None = None,
) -> Outcome:
    """Open a round. The caller sends `setup` to every invited member, again while `awaits_advert`.

    invited: Ed25519 identity keys by member id. Without a model the round waits after step 1 for `ModelBound`.

    Raises:
        InputError: unsound terms, a nonce that does not open the commitment, or a cohort without a graph.
    """
    terms = setup.terms
    terms.require_sound()
    choose_parameters(len(invited), terms)
    if not terms.min_cohort <= len(invited) <= terms.max_cohort:
        raise InputError(
            "the invited do not fit the terms",
            where="cohort",
            expected=f"{terms.min_cohort} to {terms.max_cohort} members",
            got=str(len(invited)),
        )
    if len(nonce) != KEY_BYTES or not hmac.compare_digest(commit_nonce(nonce), setup.nonce_commitment):
        raise InputError("the nonce must be 32 bytes that open the setup's commitment")
    if any(derive_member_id(identity) != member for member, identity in invited.items()):
        raise InputError("a member id that does not belong to its identity key", where="invited")
    opening = Opening(setup, setup.setup_id(), nonce, dict(invited))
    return AwaitingAdverts(opening, Absent({}, ()), Answers(), Answers(), model), (SetDeadline(Step.ADVERT),)


def awaits_advert(phase: Phase, member: MemberId) -> bool:
    """True while the member should be sent the setup (again)."""
    return isinstance(phase, AwaitingAdverts) and member in phase.opening.invited and member not in phase.adverts


def outstanding(phase: Phase, member: MemberId) -> ServerMessage | None:
    """The message the member should have been told last and has not answered; send it again after a loss."""
    match phase:
        case AwaitingShares():
            waiting = member in phase.cohort.adverts and member not in phase.shares
            return roster_for(phase.cohort, member) if waiting else None
        case AwaitingInputs():
            waiting = member in phase.shares and member not in phase.trailers
            return delivery_for(phase.cohort, phase.shares, member) if waiting else None
        case AwaitingSignatures():
            waiting = member in phase.alive and member not in phase.signatures
            return phase.survivors if waiting else None
        case AwaitingUnmaskings():
            waiting = member in phase.signatures and member not in phase.unmaskings
            return certificate_for(phase.cohort, phase.signatures, member) if waiting else None
        case AwaitingAdverts() | AwaitingModel() | Closed() | Failed():
            return None
        case _:
            assert_never(phase)


def step(phase: Phase, event: Event) -> Outcome:
    """The next phase, and what the caller must do, in order, after it has committed to the phase."""
    match phase:
        case AwaitingAdverts():
            return _in_adverts(phase, event)
        case AwaitingShares():
            return _in_shares(phase, event)
        case AwaitingModel():
            return _in_model(phase, event)
        case AwaitingInputs():
            return _in_inputs(phase, event)
        case AwaitingSignatures():
            return _in_signatures(phase, event)
        case AwaitingUnmaskings():
            return _in_unmaskings(phase, event)
        case Closed() | Failed():
            return phase, ()
        case _:
            assert_never(phase)


# Step 0 ---------------------------------------------------------------------------------------------------------------


def _in_adverts(phase: AwaitingAdverts, event: Event) -> Outcome:
    opening = phase.opening
    match event:
        case AdvertReceived(advert):
            if advert.member in phase.adverts:
                return _repeated(phase, event, phase.adverts[advert.member])
            if advert.member not in opening.invited:
                return phase, (_stranger(advert.member),)
            try:
                require_new_advert(advert, opening.invited[advert.member], phase.keys, opening.setup_id)
            except LeptonError as error:
                return phase, (Rejected(advert.member, error),)
            adverts = phase.adverts.with_entry(advert.member, advert)
            keys = phase.keys.with_entry(advert.mask_public, advert.member)
            keys = keys.with_entry(advert.encryption_public, advert.member)
            return _roster(replace(phase, adverts=adverts, keys=keys, absent=back(phase.absent, advert.member)))
        case SharesReceived() | InputReceived() | SignatureReceived() | UnmaskingReceived():
            return phase, (_early(event),)
        case MemberLost(member, reason):
            if member not in opening.invited:
                return phase, ()
            return _roster(replace(phase, absent=lose(phase.absent, member, reason)))
        case DeadlinePassed(which):
            return _roster(phase, over=True) if which is Step.ADVERT else (phase, ())
        case ModelBound(model):
            return replace(phase, model=_bound(phase.model, model)), ()
        case _:
            assert_never(event)


def _roster(phase: AwaitingAdverts, *, over: bool = False) -> Outcome:
    """Freeze the roster, when nobody is waited for."""
    opening, terms = phase.opening, phase.opening.setup.terms
    if not over and awaited(opening.invited, phase.adverts, phase.absent):
        return phase, ()
    absent, gone = drop(phase.absent, opening.invited, phase.adverts, Step.ADVERT)
    members = tuple(sorted(phase.adverts))
    if len(members) < terms.min_cohort:
        return _too_few(Step.ADVERT, opening.setup, gone, len(members), terms.min_cohort)
    leaves = tuple(Leaf(member, phase.adverts[member].digest(opening.setup_id)) for member in members)
    roster = Roster(leaves, opening.nonce, ())
    root = roster.root()
    try:
        graph = draw_graph(root, opening.nonce, members, terms)
    except InputError as error:  # numbers that the terms give need not hold for the members that are left
        return Failed(error), (*gone, Aborted(error))
    cohort = Cohort(
        opening=opening,
        members=members,
        adverts={member: phase.adverts[member] for member in members},
        roster=roster,
        root=root,
        graph=graph,
        least=graph.least_survivors(terms.min_cohort),
    )
    return _next(AwaitingShares(cohort, absent, Answers(), phase.model), gone, Step.SHARE, members)


# Step 1 ---------------------------------------------------------------------------------------------------------------


def _in_shares(phase: AwaitingShares, event: Event) -> Outcome:
    cohort = phase.cohort
    match event:
        case AdvertReceived(advert):
            return _repeated(phase, event, cohort.adverts.get(advert.member))
        case SharesReceived(message):
            dealer = message.dealer
            if dealer in phase.shares:
                return _repeated(phase, event, phase.shares[dealer])
            if dealer not in cohort.adverts:
                return phase, (_stranger(dealer),)
            try:
                require_share_message(
                    message,
                    cohort.adverts[dealer].identity,
                    cohort.holders(dealer),
                    setup_id=cohort.opening.setup_id,
                    roster_root=cohort.root,
                )
            except LeptonError as error:
                return phase, (Rejected(dealer, error),)
            shares = phase.shares.with_entry(dealer, message)
            return _deliver(replace(phase, shares=shares, absent=back(phase.absent, dealer)))
        case InputReceived() | SignatureReceived() | UnmaskingReceived():
            return phase, (_early(event),)
        case MemberLost(member, reason):
            if member not in cohort.adverts:
                return phase, ()
            return _deliver(replace(phase, absent=lose(phase.absent, member, reason)))
        case DeadlinePassed(which):
            return _deliver(phase, over=True) if which is Step.SHARE else (phase, ())
        case ModelBound(model):
            return replace(phase, model=_bound(phase.model, model)), ()
        case _:
            assert_never(event)


def _deliver(phase: AwaitingShares, *, over: bool = False) -> Outcome:
    """Know the dealers, when nobody is waited for."""
    cohort = phase.cohort
    if not over and awaited(cohort.members, phase.shares, phase.absent):
        return phase, ()
    absent, gone = drop(phase.absent, cohort.members, phase.shares, Step.SHARE)
    if len(phase.shares) < cohort.least:
        return _too_few(Step.SHARE, cohort.opening.setup, gone, len(phase.shares), cohort.least)
    ready = AwaitingModel(cohort, absent, phase.shares)
    return (ready, gone) if phase.model is None else _train(ready, phase.model, gone)


def _in_model(phase: AwaitingModel, event: Event) -> Outcome:
    cohort = phase.cohort
    match event:
        case AdvertReceived(advert):
            return _repeated(phase, event, cohort.adverts.get(advert.member))
        case SharesReceived(message):
            return _repeated(phase, event, phase.shares.get(message.dealer))
        case InputReceived() | SignatureReceived() | UnmaskingReceived():
            return phase, (_early(event),)
        case MemberLost(member, reason):
            if member not in phase.shares:
                return phase, ()
            return replace(phase, absent=lose(phase.absent, member, reason)), ()
        case DeadlinePassed():
            return phase, ()
        case ModelBound(model):
            return _train(phase, model)
        case _:
            assert_never(event)


def _train(phase: AwaitingModel, model: BoundModel, gone: tuple[Effect, ...] = ()) -> Outcome:
    """Hand the dealers each other's shares, and the model."""
    shared = phase.cohort
    agreed = Agreed(
        **{place.name: getattr(shared, place.name) for place in fields(shared)},
        model=model,
        sid=derive_sid(shared.opening.setup_id, shared.root, model.digest),
    )
    return _next(AwaitingInputs(agreed, phase.absent, phase.shares, Answers()), gone, Step.INPUT, sorted(phase.shares))


# Step 2 ---------------------------------------------------------------------------------------------------------------


def _in_inputs(phase: AwaitingInputs, event: Event) -> Outcome:
    cohort = phase.cohort
    match event:
        case AdvertReceived(advert):
            return _repeated(phase, event, cohort.adverts.get(advert.member))
        case SharesReceived(message):
            return _repeated(phase, event, phase.shares.get(message.dealer))
        case InputReceived(trailer):
            member = trailer.member
            if member in phase.trailers:
                return _repeated(phase, event, phase.trailers[member])
            if member not in phase.shares:
                return phase, (_stranger(member),)
            try:
                require_trailer(
                    trailer,
                    cohort.adverts[member].identity,
                    cohort.dealers(phase.shares, member),
                    terms=cohort.opening.setup.terms,
                    quorum=cohort.graph.quorum,
                    sid=cohort.sid,
                )
            except LeptonError as error:
                return phase, (Rejected(member, error),)
            trailers = phase.trailers.with_entry(member, trailer)
            return _freeze(replace(phase, trailers=trailers, absent=back(phase.absent, member)))
        case SignatureReceived() | UnmaskingReceived():
            return phase, (_early(event),)
        case MemberLost(member, reason):
            if member not in phase.shares:
                return phase, ()
            return _freeze(replace(phase, absent=lose(phase.absent, member, reason)))
        case DeadlinePassed(which):
            return _freeze(phase, over=True) if which is Step.INPUT else (phase, ())
        case ModelBound(model):
            _bound(cohort.model, model)
            return phase, ()
        case _:
            assert_never(event)


def _freeze(phase: AwaitingInputs, *, over: bool = False) -> Outcome:
    """Freeze the survivors, when nobody is waited for."""
    cohort = phase.cohort
    if not over and awaited(phase.shares, phase.trailers, phase.absent):
        return phase, ()
    paired = {member: frozenset(trailer.paired) for member, trailer in phase.trailers.items()}
    survivors = symmetric_core(paired, {member: cohort.neighbours(member) for member in paired})
    absent, gone = drop(phase.absent, phase.shares, phase.trailers, Step.INPUT)
    unpaired = tuple(
        DroppedMember(member, Step.INPUT, "its pair masks do not match those of the others")
        for member in sorted(paired)
        if member not in survivors
    )
    if len(survivors) < cohort.least:
        lost = (*gone, *map(told, unpaired))
        return _too_few(Step.INPUT, cohort.opening.setup, lost, len(survivors), cohort.least)
    lost_for_good = unrecoverable(survivors, survivors, paired, cohort.threshold)
    if lost_for_good:
        return _unrecoverable(cohort, lost_for_good)
    waiting = AwaitingSignatures(
        cohort,
        Absent(absent.lost, absent.dropped + unpaired),
        phase.shares,
        phase.trailers,
        SurvivorSet(survivors),
        frozenset(survivors),
        survivors_digest(cohort.sid, survivors),
        Answers(),
    )
    return _next(waiting, (*gone, *map(told, unpaired)), Step.CONSISTENCY, survivors)


# Step 3 ---------------------------------------------------------------------------------------------------------------


def _in_signatures(phase: AwaitingSignatures, event: Event) -> Outcome:
    cohort = phase.cohort
    match event:
        case AdvertReceived(advert):
            return _repeated(phase, event, cohort.adverts.get(advert.member))
        case SharesReceived(message):
            return _repeated(phase, event, phase.shares.get(message.dealer))
        case InputReceived(trailer):
            return _repeated(phase, event, phase.trailers.get(trailer.member))
        case SignatureReceived(signature):
            member = signature.member
            if member in phase.signatures:
                return _repeated(phase, event, phase.signatures[member])
            if member not in phase.alive:
                return phase, (_stranger(member),)
            try:
                require_consistency(signature, cohort.adverts[member].identity, phase.digest)
            except LeptonError as error:
                return phase, (Rejected(member, error),)
            signatures = phase.signatures.with_entry(member, signature)
            return _certify(replace(phase, signatures=signatures, absent=back(phase.absent, member)))
        case UnmaskingReceived():
            return phase, (_early(event),)
        case MemberLost(member, reason):
            if member not in phase.alive:
                return phase, ()
            return _certify(replace(phase, absent=lose(phase.absent, member, reason)))
        case DeadlinePassed(which):
            return _certify(phase, over=True) if which is Step.CONSISTENCY else (phase, ())
        case ModelBound(model):
            _bound(cohort.model, model)
            return phase, ()
        case _:
            assert_never(event)


def _certify(phase: AwaitingSignatures, *, over: bool = False) -> Outcome:
    """Show each signer that enough of its neighbours saw the same set, when nobody is waited for."""
    cohort, survivors = phase.cohort, phase.survivors.survivors
    if not over and awaited(survivors, phase.signatures, phase.absent):
        return phase, ()
    absent, gone = drop(phase.absent, survivors, phase.signatures, Step.CONSISTENCY)
    if len(phase.signatures) < cohort.threshold:
        return _too_few(Step.CONSISTENCY, cohort.opening.setup, gone, len(phase.signatures), cohort.threshold)
    signers, quorum = sorted(phase.signatures), cohort.graph.quorum
    # In a sparse graph a signer with too few signers around it would not answer, and its seed could not be rebuilt.
    alone = [member for member in signers if len(signers_for(cohort, phase.signatures, member)) < quorum]
    paired = {member: phase.trailers[member].paired for member in survivors}
    lost_for_good = {*alone, *unrecoverable(signers, survivors, paired, cohort.threshold)}
    if lost_for_good:
        return _unrecoverable(cohort, lost_for_good)
    waiting = AwaitingUnmaskings(
        cohort,
        absent,
        phase.shares,
        phase.trailers,
        phase.survivors,
        phase.alive,
        phase.signatures,
        Answers(),
    )
    return _next(waiting, gone, Step.UNMASK, signers)


# Steps 4 and 5 --------------------------------------------------------------------------------------------------------


def _in_unmaskings(phase: AwaitingUnmaskings, event: Event) -> Outcome:
    cohort = phase.cohort
    match event:
        case AdvertReceived(advert):
            return _repeated(phase, event, cohort.adverts.get(advert.member))
        case SharesReceived(message):
            return _repeated(phase, event, phase.shares.get(message.dealer))
        case InputReceived(trailer):
            return _repeated(phase, event, phase.trailers.get(trailer.member))
        case SignatureReceived(signature):
            return _repeated(phase, event, phase.signatures.get(signature.member))
        case UnmaskingReceived(unmasking):
            member = unmasking.member
            if member in phase.unmaskings:
                return _repeated(phase, event, phase.unmaskings[member])
            if member not in phase.signatures:
                return phase, (_stranger(member),)
            held = (*phase.trailers[member].paired, member)
            kinds = {dealer: ShareKind.SELF_SEED if dealer in phase.alive else ShareKind.MASK_KEY for dealer in held}
            digests = {dealer: digests_for(phase.shares[dealer], member) for dealer in held}
            try:
                require_unmasking(unmasking, cohort.adverts[member].identity, kinds, digests, cohort.sid)
            except LeptonError as error:
                return phase, (Rejected(member, error),)
            unmaskings = phase.unmaskings.with_entry(member, unmasking)
            return _recover(replace(phase, unmaskings=unmaskings, absent=back(phase.absent, member)))
        case MemberLost(member, reason):
            if member not in phase.signatures:
                return phase, ()
            return _recover(replace(phase, absent=lose(phase.absent, member, reason)))
        case DeadlinePassed(which):
            return _recover(phase, over=True) if which is Step.UNMASK else (phase, ())
        case ModelBound(model):
            _bound(cohort.model, model)
            return phase, ()
        case _:
            assert_never(event)


def _recover(phase: AwaitingUnmaskings, *, over: bool = False) -> Outcome:
    """Rebuild the secrets and end the round, when nobody is waited for."""
    cohort, opening = phase.cohort, phase.cohort.opening
    if not over and awaited(phase.signatures, phase.unmaskings, phase.absent):
        return phase, ()
    recovery = Recovery(
        setup_id=opening.setup_id,
        sid=cohort.sid,
        terms=opening.setup.terms,
        threshold=cohort.threshold,
        adverts=cohort.adverts,
        holders={dealer: cohort.holders(dealer) for dealer in phase.shares},
        survivors=phase.survivors.survivors,
        paired={member: phase.trailers[member].paired for member in phase.survivors.survivors},
        unmaskings=phase.unmaskings,
    )
    short = shares_short(recovery)
    if short and len(phase.unmaskings) < cohort.threshold:
        _, gone = drop(phase.absent, phase.signatures, phase.unmaskings, Step.UNMASK)
        return _too_few(Step.UNMASK, opening.setup, gone, len(phase.unmaskings), cohort.threshold)
    if short:
        return _unrecoverable(cohort, short)
    plan = derive_plan(recovery)
    if isinstance(plan, BadDealer):
        return _bad_dealer(plan.dealer)
    absent, gone = drop(phase.absent, phase.signatures, phase.unmaskings, Step.UNMASK)
    transcript = Transcript(
        setup_id=opening.setup_id,
        roster_root=cohort.root,
        model_version=cohort.model.version,
        model_digest=cohort.model.digest,
        survivors=phase.survivors.survivors,
        signatures=tuple(phase.signatures[member] for member in sorted(phase.signatures)),
    )
    digests = {member: phase.trailers[member].payload_digest for member in phase.survivors.survivors}
    result = RoundResult(transcript, absent.dropped, plan, digests)
    return Closed(result), (*gone, Finished(result))


# What the steps share -------------------------------------------------------------------------------------------------


def _next(phase: Running, gone: Iterable[Effect], begins: Step, expected: Iterable[MemberId]) -> Outcome:
    """Enter a step: tell the dropped, set the deadline, send everybody expected what it must answer."""
    sends = [Send(member, message) for member in expected if (message := outstanding(phase, member)) is not None]
    return phase, (*gone, SetDeadline(begins), *sends)


def _bound(known: BoundModel | None, now: BoundModel) -> BoundModel:
    """The round's model.

    Raises:
        InputError: another one was told before.
    """
    if known is not None and known != now:
        raise InputError("a round trains on one model", where="model", expected=str(known.version), got="another one")
    return now


def _repeated(phase: Running, event: MessageEvent, accepted: object | None) -> Outcome:
    """A message of a step already answered, or over: the same is harmless, another or a late one is refused."""
    member, message = sender_of(event)
    if accepted == message:
        told = outstanding(phase, member)
        return phase, ((Send(member, told),) if told is not None else ())
    name = type(event).__name__
    error = different_repetition(member, name) if accepted is not None else late(member, name)
    return phase, (Rejected(member, error),)


def _early(event: MessageEvent) -> Rejected:
    member, _ = sender_of(event)
    return Rejected(member, early(member, type(event).__name__))


def _stranger(member: MemberId) -> Rejected:
    return Rejected(member, stranger(member))


def _too_few(which: Step, setup: Setup, gone: tuple[Dropped, ...], answered: int, least: int) -> Outcome:
    """The round ends here; who is missing, and why, is told first."""
    error = too_few(which, setup, gone, answered, least)
    return Failed(error), (*gone, Aborted(error))


def _unrecoverable(cohort: Cohort, dealers: Iterable[MemberId]) -> Outcome:
    error = unrecoverable_masks(cohort.opening.setup, dealers, cohort.threshold)
    return Failed(error), (Aborted(error),)


def _bad_dealer(dealer: MemberId) -> Outcome:
    error = bad_dealer(dealer)
    return Failed(error), (Aborted(error, blamed=dealer),)
