"""What every line of an owner's privacy ledger has: its place in the chain, its digest, and the owner's signature."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from lepton_core.canonical import canonical_json
from lepton_core.errors import InputError
from lepton_core.ids import Digest

_ENTRY_LABEL = b"lepton/ledger/v1"
_SIGNATURE_LABEL = b"lepton/ledger-signature/v1"
_SIGNATURE_BYTES = 64
#: What is written. Format 1 reserved one round an entry and knew charges without content or release only; it is read.
FORMAT = 2
#: Makes the owner's signature over bytes.
Sign: TypeAlias = Callable[[bytes], bytes]


@dataclass(frozen=True)
class LedgerHead:
    """The end of a chain: how many entries it has, and the digest of the last."""

    sequence: int
    digest: Digest


#: The head of a ledger without entries.
EMPTY = LedgerHead(0, Digest("0" * 64))


@dataclass(frozen=True)
class Link:
    """What every entry has."""

    #: Digest of the entry before, or of `EMPTY`.
    previous: Digest
    #: Position in the chain, from 1.
    sequence: int
    #: Seconds since the Unix epoch, UTC.
    time: float
    #: Ed25519 signature by the owner's protocol identity over `signed_bytes`; 64 bytes.
    signature: bytes

    def document(self) -> dict[str, Any]:
        """The entry without its signature, as plain values."""
        raise NotImplementedError

    def canonical(self) -> bytes:
        """The entry without its signature, as the one byte string that is hashed and signed."""
        return canonical_json(self.document())

    def signed_bytes(self) -> bytes:
        """What the signature is over: a label and the canonical bytes."""
        return _SIGNATURE_LABEL + self.canonical()

    def digest(self) -> Digest:
        """SHA-256 of a label and the canonical bytes; what the next entry names."""
        return Digest(hashlib.sha256(_ENTRY_LABEL + self.canonical()).hexdigest())

    def head(self) -> LedgerHead:
        """The head of a chain that ends here."""
        return LedgerHead(self.sequence, self.digest())

    def to_line(self) -> bytes:
        """The entry with its signature as one line of JSON, newline included; `parse_line` reads it back."""
        return canonical_json({"entry": self.document(), "signature": self.signature.hex()}) + b"\n"


_L = TypeVar("_L", bound=Link)


def finite(time: float) -> float:
    """The time, if it is one.

    Raises:
        InputError: it is not finite.
    """
    if not math.isfinite(time):
        raise InputError("a time that is not finite", where="ledger.time", got=repr(time))
    return time


def signed(entry: _L, sign: Sign) -> _L:
    """The entry with its signature.

    Raises:
        InputError: a signature that is not 64 bytes.
    """
    signature = sign(entry.signed_bytes())
    if len(signature) != _SIGNATURE_BYTES:
        raise InputError(
            "not an Ed25519 signature",
            where="ledger",
            expected=f"{_SIGNATURE_BYTES} bytes",
            got=f"{len(signature)} bytes",
        )
    return replace(entry, signature=signature)
