"""Where a ledger stood, signed by its owner, so that others can keep it: a ledger that lost its end is behind it.

The owner alone can sign one. So whoever keeps anchors cannot make one up, and cannot harm by giving back an old one;
by giving back none it takes the alarm away, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lepton_core.errors import InputError
from lepton_core.identity import IDENTITY_BYTES, SIGNATURE_BYTES, require_signature
from lepton_core.ids import Digest, require_digest
from lepton_core.privacy.declarations import Succession
from lepton_core.privacy.entries import Entry
from lepton_core.privacy.links import EMPTY, LedgerHead

_LABEL = b"lepton/ledger-anchor/v1"
_PLACE_LABEL = b"lepton/ledger-place/v1"
_LARGEST_SEQUENCE = 2**53


@dataclass(frozen=True)
class LedgerAnchor:
    """A ledger's place, signed by the identity that signed its last entry.

    Raises:
        InputError: not a key, a digest, a signature or a sequence that a ledger can have.
    """

    #: Ed25519 public key; 32 bytes.
    identity: bytes
    #: Entries of the chain.
    sequence: int
    #: SHA-256 of a label and the last one's digest: whoever has the ledger can make it, and no digest of the ledger
    #: itself leaves the site.
    digest: Digest
    #: By `identity`; 64 bytes.
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        require_digest(self.digest, "anchor's digest")
        lengths = (len(self.identity), len(self.signature))
        if lengths != (IDENTITY_BYTES, SIGNATURE_BYTES) or not 0 <= self.sequence <= _LARGEST_SEQUENCE:
            raise InputError(
                "not an anchor of a ledger",
                where="LedgerAnchor",
                expected=f"{IDENTITY_BYTES} and {SIGNATURE_BYTES} bytes, and a sequence up to 2^53",
                got=f"{lengths[0]} and {lengths[1]} bytes, sequence {self.sequence}",
            )

    def require_signed(self) -> None:
        """Refuse an anchor that its identity did not sign.

        Raises:
            IdentityError: it did not.
        """
        message = _message(self.identity, self.sequence, self.digest)
        require_signature(self.identity, self.signature, message, who="ledger anchor", what="ledger anchor")


def sign_anchor(head: LedgerHead, identity: bytes, sign: Callable[[bytes], bytes]) -> LedgerAnchor:
    """The anchor of a head; `sign` signs with the key whose public half is `identity`."""
    digest = _place(head.digest)
    return LedgerAnchor(identity, head.sequence, digest, sign(_message(identity, head.sequence, digest)))


def holds(entries: Sequence[Entry], anchor: LedgerAnchor) -> bool:
    """True if the chain was at this place: it is that ledger, and nothing is missing up to there."""
    if len(entries) < anchor.sequence:
        return False
    found = entries[anchor.sequence - 1].digest() if anchor.sequence else EMPTY.digest
    return _place(found) == anchor.digest


def identities_of(entries: Sequence[Entry], public: bytes) -> tuple[bytes, ...]:
    """Every identity that has signed this chain, whose key now is `public`."""
    return (*(entry.predecessor for entry in entries if isinstance(entry, Succession)), public)


def _place(digest: Digest) -> Digest:
    return Digest(hashlib.sha256(_PLACE_LABEL + bytes.fromhex(digest)).hexdigest())


def _message(identity: bytes, sequence: int, digest: Digest) -> bytes:
    return _LABEL + identity + sequence.to_bytes(8, "big") + bytes.fromhex(digest)
