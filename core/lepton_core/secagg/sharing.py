"""Step 1 and 2a for one member: deal both secrets' shares to its holders, and open what others dealt to it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from lepton_core.errors import InputError, PeerViolation
from lepton_core.identity import IdentityKey, require_signature
from lepton_core.ids import MemberId
from lepton_core.ports import Randomness
from lepton_core.secagg.agreement import (
    TAG_BYTES,
    RoundSecrets,
    Secret,
    open_sealed,
    seal,
)
from lepton_core.secagg.messages import (
    SALT_BYTES,
    SHARE_BYTES,
    DealtShares,
    RevealedShare,
    SealedShares,
    ShareDigests,
    ShareKind,
    ShareMessage,
)
from lepton_core.secagg.shamir import encode_element, parse_element, split
from lepton_core.secagg.terms import labelled_hash

PLAINTEXT_BYTES = SALT_BYTES + 2 * SHARE_BYTES
CIPHERTEXT_BYTES = PLAINTEXT_BYTES + TAG_BYTES


@dataclass(frozen=True)
class HeldShares:
    """One dealer's two shares in one holder's hands; at most one kind ever leaves. Dropped with the round."""

    salt: Secret
    mask_key: Secret
    self_seed: Secret

    def reveal(self, dealer: MemberId, kind: ShareKind) -> RevealedShare:
        """The share of this kind, in clear, for the unmasking."""
        share = self.mask_key if kind is ShareKind.MASK_KEY else self.self_seed
        return RevealedShare(dealer, kind, self.salt.value, share.value)


def share_digest(salt: bytes, share: bytes) -> bytes:
    """What the dealer signs of each share: SHA-256 over a label, the salt and the share; 32 bytes."""
    return labelled_hash(b"lepton/secagg/v1/share", salt, share)


def deal(
    key: IdentityKey,
    secrets: RoundSecrets,
    sealing: Mapping[MemberId, Secret],
    *,
    threshold: int,
    setup_id: bytes,
    roster_root: bytes,
    randomness: Randomness,
) -> tuple[ShareMessage, HeldShares]:
    """The share message to the neighbours, and the dealer's own share, which never travels sealed.

    sealing: by neighbour, the shared secret behind the key that seals what goes to it.
    """
    dealer = key.member
    order = sorted((*sealing, dealer))
    xs = range(1, len(order) + 1)
    mask_shares = split(parse_element(secrets.mask_secret.value), threshold, xs, randomness)
    seed_shares = split(parse_element(secrets.seed.value), threshold, xs, randomness)
    held = {
        holder: HeldShares(
            Secret(randomness.token(SALT_BYTES)), Secret(encode_element(mask)), Secret(encode_element(seed))
        )
        for holder, mask, seed in zip(order, mask_shares, seed_shares, strict=True)
    }
    sealed = tuple(
        SealedShares(
            holder,
            seal(
                shared,
                setup_id,
                dealer,
                holder,
                held[holder].salt.value + held[holder].mask_key.value + held[holder].self_seed.value,
            ),
        )
        for holder, shared in sorted(sealing.items())
    )
    digests = tuple(
        ShareDigests(
            holder,
            share_digest(shares.salt.value, shares.mask_key.value),
            share_digest(shares.salt.value, shares.self_seed.value),
        )
        for holder, shares in held.items()
    )
    unsigned = ShareMessage(dealer, sealed, digests, b"")
    signature = key.sign(unsigned.signed_bytes(setup_id, roster_root))
    return ShareMessage(dealer, sealed, digests, signature), held[dealer]


def require_digests(
    dealt: DealtShares | ShareMessage,
    identity: bytes,
    expected_holders: tuple[MemberId, ...],
    setup_id: bytes,
    roster_root: bytes,
) -> None:
    """Refuse a list of digests that the dealer did not sign, or that is not one for each of its holders in order.

    Raises:
        PeerViolation: names the dealer.
        IdentityError: the dealer's signature does not hold.
    """
    who = f"member {dealt.dealer.hex()}"
    if tuple(entry.holder for entry in dealt.digests) != expected_holders:
        raise PeerViolation(
            "share digests that are not one a holder",
            where=who,
            expected=f"{len(expected_holders)} holders in order",
            got=f"{len(dealt.digests)} digests",
            reason="BAD_DIGESTS",
        )
    message = ShareMessage(dealt.dealer, (), dealt.digests, dealt.signature)
    require_signature(
        identity, dealt.signature, message.signed_bytes(setup_id, roster_root), who=who, what="share digests"
    )


def open_dealt(dealt: DealtShares, shared: Secret, setup_id: bytes, me: MemberId, digests: ShareDigests) -> HeldShares:
    """The two shares that the dealer sealed for `me`, checked against its signed digests.

    Raises:
        PeerViolation: the ciphertext does not open, is of another length, holds no field elements, or does not match
            the digests; names the dealer.
    """
    plaintext = open_sealed(shared, setup_id, dealt.dealer, me, dealt.ciphertext)
    salt = plaintext[:SALT_BYTES]
    mask_key = plaintext[SALT_BYTES : SALT_BYTES + SHARE_BYTES]
    self_seed = plaintext[SALT_BYTES + SHARE_BYTES :]
    try:
        parse_element(mask_key)
        parse_element(self_seed)
    except InputError:
        raise PeerViolation(
            "sealed shares that are no field elements", where=f"member {dealt.dealer.hex()}", reason="BAD_SHARE"
        ) from None
    if not (
        hmac.compare_digest(share_digest(salt, mask_key), digests.mask_key)
        and hmac.compare_digest(share_digest(salt, self_seed), digests.self_seed)
    ):
        raise PeerViolation(
            "sealed shares that do not match the signed digests",
            where=f"member {dealt.dealer.hex()}",
            reason="BAD_SHARE",
        )
    return HeldShares(Secret(salt), Secret(mask_key), Secret(self_seed))
