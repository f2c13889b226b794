"""What the coordinator refuses from a member, naming it; pure checks, nothing here changes the protocol's state."""

from __future__ import annotations

import hmac
from collections.abc import Container, Mapping, Sequence
from itertools import pairwise

from lepton_core.errors import InputError, PeerViolation
from lepton_core.identity import require_signature
from lepton_core.ids import MemberId
from lepton_core.secagg.agreement import require_usable_key
from lepton_core.secagg.client_checks import require_advert
from lepton_core.secagg.messages import (
    SALT_BYTES,
    Advert,
    ConsistencySignature,
    InputTrailer,
    RevealedShare,
    ShareDigests,
    ShareKind,
    ShareMessage,
    Unmasking,
)
from lepton_core.secagg.shamir import parse_element
from lepton_core.secagg.sharing import CIPHERTEXT_BYTES, require_digests, share_digest
from lepton_core.secagg.terms import Terms


def require_new_advert(advert: Advert, identity: bytes, taken: Container[bytes], setup_id: bytes) -> None:
    """Refuse an advert with which honest members would abort: unsigned, of low order, or with a key that is `taken`.

    Raises:
        PeerViolation, IdentityError: name the member.
    """
    require_advert(advert, identity, setup_id)
    who = f"member {advert.member.hex()}"
    own = (advert.mask_public, advert.encryption_public)
    for key in own:
        require_usable_key(key, who=who)
    if own[0] == own[1] or any(key in taken for key in own):
        raise PeerViolation("a public key that is in the round already", where=who, reason="REPEATED_KEY")


def require_share_message(
    message: ShareMessage,
    identity: bytes,
    holders: tuple[MemberId, ...],
    *,
    setup_id: bytes,
    roster_root: bytes,
) -> None:
    """Refuse a share message that is not one ciphertext a neighbour and one signed digest a holder.

    Raises:
        PeerViolation, IdentityError: name the dealer.
    """
    expected = tuple(holder for holder in holders if holder != message.dealer)
    if tuple(entry.holder for entry in message.sealed) != expected or any(
        len(entry.ciphertext) != CIPHERTEXT_BYTES for entry in message.sealed
    ):
        raise PeerViolation(
            "sealed shares that are not one for each neighbour",
            where=f"member {message.dealer.hex()}",
            expected=f"{len(expected)} of {CIPHERTEXT_BYTES} bytes, in order",
            got=f"{len(message.sealed)} ciphertexts",
            reason="BAD_SHARES",
        )
    require_digests(message, identity, holders, setup_id, roster_root)


def require_trailer(
    trailer: InputTrailer,
    identity: bytes,
    dealers: Sequence[MemberId],
    *,
    terms: Terms,
    quorum: int,
    sid: bytes,
) -> None:
    """Refuse a trailer that does not fit the terms, or is paired with members that dealt nothing.

    `dealers` are the members whose shares were delivered to the sender; it needs those of a `quorum` of them.

    Raises:
        PeerViolation, IdentityError: name the member.
    """
    who = f"member {trailer.member.hex()}"
    require_signature(identity, trailer.signature, trailer.signed_bytes(sid), who=who, what="upload's trailer")
    if trailer.payload_bytes != terms.payload_bytes:
        raise PeerViolation(
            "an upload of the wrong length",
            where=who,
            expected=f"{terms.payload_bytes} bytes",
            got=f"{trailer.payload_bytes} bytes",
            reason="WRONG_LENGTH",
        )
    if (
        any(left >= right for left, right in pairwise(trailer.paired))
        or not set(trailer.paired) <= set(dealers)
        or len(trailer.paired) < quorum
    ):
        raise PeerViolation(
            "an input paired with other members than it can be",
            where=who,
            expected=f"at least {quorum} of {len(dealers)} dealers, sorted, each once",
            got=f"{len(trailer.paired)} members",
            reason="BAD_PAIRS",
        )


def require_consistency(signature: ConsistencySignature, identity: bytes, digest: bytes) -> None:
    """Refuse a signature over another survivor set than the one of this `terms.survivors_digest`.

    Raises:
        IdentityError: names the member.
    """
    who = f"member {signature.member.hex()}"
    require_signature(identity, signature.signature, digest, who=who, what="survivor set")


def require_unmasking(
    unmasking: Unmasking,
    identity: bytes,
    expected: Mapping[MemberId, ShareKind],
    digests: Mapping[MemberId, ShareDigests],
    sid: bytes,
) -> None:
    """Refuse an unmasking that is not exactly one right share of each dealer it holds; a wrong share is the holder's.

    expected: the kind needed of each dealer whose shares the sender said it holds.
    digests: what each of those dealers signed for this holder.

    Raises:
        PeerViolation, IdentityError: name the holder.
    """
    who = f"member {unmasking.member.hex()}"
    require_signature(identity, unmasking.signature, unmasking.signed_bytes(sid), who=who, what="unmasking")
    if tuple(entry.dealer for entry in unmasking.revealed) != tuple(sorted(expected)):
        raise PeerViolation(
            "an unmasking that is not one share a dealer",
            where=who,
            expected=f"{len(expected)} dealers in order",
            got=f"{len(unmasking.revealed)} shares",
            reason="BAD_UNMASKING",
        )
    for entry in unmasking.revealed:
        fault = _fault_of(entry, expected[entry.dealer], digests[entry.dealer])
        if fault is not None:
            message, reason = fault
            raise PeerViolation(message, where=who, got=f"dealt by {entry.dealer.hex()}", reason=reason)


def _fault_of(entry: RevealedShare, kind: ShareKind, signed: ShareDigests) -> tuple[str, str] | None:
    """What is wrong with one revealed share, and the reason's name; None if it is right."""
    if entry.kind is not kind:
        return "a share of the other kind than asked for", "WRONG_KIND"
    digest = signed.mask_key if kind is ShareKind.MASK_KEY else signed.self_seed
    if len(entry.salt) != SALT_BYTES or not hmac.compare_digest(share_digest(entry.salt, entry.share), digest):
        return "a share that is not the one its dealer signed", "WRONG_SHARE"
    try:
        parse_element(entry.share)
    except InputError:
        return "a share that is no field element", "BAD_SHARE"
    return None
