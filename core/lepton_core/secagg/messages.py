"""The messages of a secure aggregation round, as frozen values with the bytes that are signed.

Order: Setup (terms.py) -> Advert -> Roster -> ShareMessage -> Delivery -> InputTrailer (behind the masked words)
-> SurvivorSet -> ConsistencySignature -> Certificate -> Unmasking. `lepton_protos.convert` carries them over the wire
and checks sizes while it parses; meaning is checked by the two machines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from lepton_core.ids import MemberId, ModelVersion
from lepton_core.secagg.terms import labelled_hash

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SALT_BYTES = 32
#: Shamir shares are field elements modulo 2^256 - 189, big-endian.
SHARE_BYTES = 32


class ShareKind(Enum):
    """Which of a dealer's two secrets a share belongs to."""

    #: The X25519 masking secret: revealed only for a dealer that dropped out.
    MASK_KEY = 1
    #: The self-mask seed: revealed only for a survivor.
    SELF_SEED = 2


@dataclass(frozen=True)
class Advert:
    """Step 0, member to coordinator: this round's public keys, signed by the protocol identity."""

    member: MemberId
    #: Ed25519 public key, 32 bytes; `member` is derived from it.
    identity: bytes
    #: X25519 public keys, 32 bytes each.
    mask_public: bytes
    encryption_public: bytes
    #: SHA-256 commitment to the self-mask seed, 32 bytes.
    seed_commitment: bytes
    nonce: bytes
    signature: bytes

    def signed_bytes(self, setup_id: bytes) -> bytes:
        """What the identity key signs."""
        return labelled_hash(
            b"lepton/secagg/v1/advert",
            setup_id,
            self.member,
            self.identity,
            self.mask_public,
            self.encryption_public,
            self.seed_commitment,
            self.nonce,
        )

    def digest(self, setup_id: bytes) -> bytes:
        """The advert's leaf in the roster, signature included; 32 bytes."""
        return labelled_hash(b"lepton/secagg/v1/leaf", self.signed_bytes(setup_id), self.signature)


@dataclass(frozen=True)
class Leaf:
    """One line of the roster."""

    member: MemberId
    advert_digest: bytes


@dataclass(frozen=True)
class Roster:
    """Step 1, coordinator to member: everybody in the round, strictly sorted by member id."""

    leaves: tuple[Leaf, ...]
    #: Opens the setup's commitment; 32 bytes.
    server_nonce: bytes
    #: The adverts of the receiver's neighbours, sorted by member id.
    adverts: tuple[Advert, ...]

    def root(self) -> bytes:
        """SHA-256 over the whole sorted list; 32 bytes."""
        return labelled_hash(
            b"lepton/secagg/v1/roster", *(part for leaf in self.leaves for part in (leaf.member, leaf.advert_digest))
        )


@dataclass(frozen=True)
class ShareDigests:
    """SHA-256(salt || share) of the two shares a dealer gives one holder; 32 bytes each."""

    holder: MemberId
    mask_key: bytes
    self_seed: bytes


@dataclass(frozen=True)
class SealedShares:
    """Both shares for one holder, AEAD-sealed; the associated data are setup id, dealer and holder."""

    holder: MemberId
    ciphertext: bytes


@dataclass(frozen=True)
class ShareMessage:
    """Step 1, member to coordinator: a sealed pair of shares a neighbour, and signed digests of all (own included)."""

    dealer: MemberId
    #: One a neighbour, sorted by holder; none for the dealer itself.
    sealed: tuple[SealedShares, ...]
    #: One a holder (neighbours and the dealer itself), sorted by holder.
    digests: tuple[ShareDigests, ...]
    signature: bytes

    def signed_bytes(self, setup_id: bytes, roster_root: bytes) -> bytes:
        """What the identity key signs: the digests, bound to setup and roster."""
        parts = [part for entry in self.digests for part in (entry.holder, entry.mask_key, entry.self_seed)]
        return labelled_hash(b"lepton/secagg/v1/shares", setup_id, roster_root, self.dealer, *parts)


@dataclass(frozen=True)
class DealtShares:
    """What one dealer sent to the receiver, with the dealer's whole signed list of digests."""

    dealer: MemberId
    ciphertext: bytes
    digests: tuple[ShareDigests, ...]
    signature: bytes


@dataclass(frozen=True)
class Delivery:
    """Step 2a, coordinator to member: the shares addressed to it, and the model to train on."""

    dealt: tuple[DealtShares, ...]
    model_version: ModelVersion
    #: SHA-256 of the model's bytes, 32 bytes.
    model_digest: bytes


@dataclass(frozen=True)
class InputTrailer:
    """Step 2b, member to coordinator, behind the masked words: what was uploaded, signed."""

    member: MemberId
    #: SHA-256 of the payload's bytes (little-endian uint64 words), 32 bytes.
    payload_digest: bytes
    payload_bytes: int
    #: U1: the neighbours whose shares this member holds, and with whom it shares pair masks; sorted.
    paired: tuple[MemberId, ...]
    signature: bytes

    def signed_bytes(self, sid: bytes) -> bytes:
        """What the identity key signs."""
        return labelled_hash(
            b"lepton/secagg/v1/input",
            sid,
            self.member,
            self.payload_digest,
            self.payload_bytes.to_bytes(8, "big"),
            *self.paired,
        )


@dataclass(frozen=True)
class SurvivorSet:
    """Step 3, coordinator to member: whose inputs are in the sum; sorted by member id. Frozen from here on."""

    survivors: tuple[MemberId, ...]


@dataclass(frozen=True)
class ConsistencySignature:
    """Step 3, member to coordinator: "I was shown this survivor set", once a round."""

    member: MemberId
    #: Over `terms.survivors_digest(sid, survivors)`.
    signature: bytes


@dataclass(frozen=True)
class Certificate:
    """Step 3, coordinator to member: the signatures of survivors over the same set; sorted by member id."""

    signatures: tuple[ConsistencySignature, ...]


@dataclass(frozen=True)
class RevealedShare:
    """One share of one dealer's secret: of exactly one kind a dealer, for ever."""

    dealer: MemberId
    kind: ShareKind
    salt: bytes = field(repr=False)
    #: Field element, 32 bytes big-endian. Built before it may be sent, so not shown.
    share: bytes = field(repr=False)


@dataclass(frozen=True)
class Unmasking:
    """Step 4, member to coordinator: its share of every survivor's seed and of every dropped member's mask key."""

    member: MemberId
    revealed: tuple[RevealedShare, ...]
    signature: bytes

    def signed_bytes(self, sid: bytes) -> bytes:
        """What the identity key signs."""
        parts = [
            part
            for entry in self.revealed
            for part in (entry.dealer, bytes([entry.kind.value]), entry.salt, entry.share)
        ]
        return labelled_hash(b"lepton/secagg/v1/unmasking", sid, self.member, *parts)


#: Everything a member sends in a round, but for the masked words.
MemberMessage = Advert | ShareMessage | InputTrailer | ConsistencySignature | Unmasking
#: Everything the coordinator sends in a round behind the setup.
ServerMessage = Roster | Delivery | SurvivorSet | Certificate
