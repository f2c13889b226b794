"""The lines of an owner's privacy ledger, as data: charges, and the succession of one identity by another.

Every entry names the digest of the one before it, so that nothing can be changed, left out or moved unseen. What the
entries of a run may follow one another is told in `accounts`, what they add up to in `ledger`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from lepton_core.canonical import canonical_json
from lepton_core.errors import InputError
from lepton_core.ids import Digest, require_digest
from lepton_core.privacy.events import Event, event_document, parse_event

#: Neighbouring data sets: one unit added or removed.
ADD_OR_REMOVE = "add-or-remove"

_ENTRY_LABEL = b"lepton/ledger/v1"
_SIGNATURE_LABEL = b"lepton/ledger-signature/v1"
#: What is written. Format 1 reserved one round an entry and knew neither content, release nor succession; it is read.
FORMAT = 2
_FIRST_FORMAT = 1
_SIGNATURE_BYTES = 64
_KEY_BYTES = 32


class ChargeState(Enum):
    """How far a charge has come; everything but RELEASED counts in full."""

    #: So many rounds of a run are charged, before noise is drawn for any of them.
    RESERVED = "RESERVED"
    #: Bytes are about to leave for this round, under one of the reserved ones.
    SPENT = "SPENT"
    #: Noise was or may have been drawn for one of the reserved rounds, and nothing left; round 0: no one knows which.
    LOST = "LOST"
    #: So many of the reserved rounds never began; they are given back.
    RELEASED = "RELEASED"


#: `state` of a `Succession`, beside those of charges.
_SUCCEEDED = "SUCCEEDED"


@dataclass(frozen=True)
class Charge:
    """What a round of a job costs a population.

    Raises:
        InputError: an empty name, a round below 0, delta out of range, or a malformed digest.
    """

    #: The owner's name for the people whose records these are.
    population: str
    unit: str
    relation: str
    #: Digest of the run: one job as one coordinator runs it.
    job: Digest
    #: The round; 0 where an entry is about no round in particular.
    round: int
    event: Event
    #: The delta at which the job promises its epsilon.
    delta: float
    #: Digest of the owner's data plan for the job.
    plan: Digest
    #: What the population's rows were, as a keyed digest that only the owner can make again; evidence, never a reason
    #: to count anew. Empty where it is not known.
    content: str = ""

    def __post_init__(self) -> None:
        for name, value in (("population", self.population), ("unit", self.unit), ("relation", self.relation)):
            if not value:
                raise InputError("a charge without a name", where=f"charge.{name}", expected="text", got="''")
        require_digest(self.job, "job digest")
        require_digest(self.plan, "plan digest")
        if self.content:
            require_digest(self.content, "content digest")
        if self.round < 0:
            raise InputError("a charge for no round", where="charge.round", expected="at least 0", got=repr(self.round))
        if not 0 < self.delta < 1:
            raise InputError(
                "delta is out of range", where="charge.delta", expected="0 < delta < 1", got=repr(self.delta)
            )


@dataclass(frozen=True)
class LedgerHead:
    """The end of a chain: how many entries it has, and the digest of the last."""

    sequence: int
    digest: Digest


#: The head of a ledger without entries.
EMPTY = LedgerHead(0, Digest("0" * 64))


@dataclass(frozen=True)
class _Link:
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


@dataclass(frozen=True)
class LedgerEntry(_Link):
    """One charge in the chain.

    Raises:
        InputError: a state, a round and a number of rounds that do not go together.
    """

    charge: Charge
    state: ChargeState
    #: Rounds that are reserved or released; 1 for one that is SPENT or LOST.
    rounds: int = 1
    #: Rounds of the run whose sum, with this owner's part in it, was published by then, as far as the owner knew.
    published: int = 0
    format: int = FORMAT

    def __post_init__(self) -> None:
        numbered = self.state in (ChargeState.RESERVED, ChargeState.SPENT)
        one = self.state in (ChargeState.SPENT, ChargeState.LOST)
        sound = self.rounds >= 1 and self.published >= 0 and not (one and self.rounds != 1)
        sound = sound and (self.charge.round >= 1 or not numbered)
        if self.format == _FIRST_FORMAT:
            sound = sound and numbered and (self.rounds, self.published, self.charge.content) == (1, 0, "")
        if not sound or self.format not in (_FIRST_FORMAT, FORMAT):
            raise InputError(
                "a ledger entry that says nothing",
                where=f"ledger entry {self.sequence}",
                expected="a round, or rounds, of at least 1",
                got=f"{self.state.value}, round {self.charge.round}, rounds {self.rounds}, format {self.format}",
            )

    def document(self) -> dict[str, Any]:
        """See `_Link.document`."""
        charge = self.charge
        document = {
            "format": self.format,
            "previous": self.previous,
            "sequence": self.sequence,
            "population": charge.population,
            "unit": charge.unit,
            "relation": charge.relation,
            "job": charge.job,
            "round": charge.round,
            "event": event_document(charge.event),
            "delta": float(charge.delta),
            "plan": charge.plan,
            "state": self.state.value,
            "time": float(self.time),
        }
        if self.format == _FIRST_FORMAT:
            return document
        return document | {"content": charge.content, "rounds": self.rounds, "published": self.published}


@dataclass(frozen=True)
class Succession(_Link):
    """From here on another key signs: the machine with the old one is lost, the budget is not.

    `previous` names the old head; the signature is by the successor, as are those of all later entries.

    Raises:
        InputError: not two Ed25519 keys, or one twice.
    """

    #: Ed25519 public key that signed the entries before; 32 bytes.
    predecessor: bytes
    #: Ed25519 public key that signs this one and those after; 32 bytes.
    successor: bytes

    def __post_init__(self) -> None:
        keys = (self.predecessor, self.successor)
        if len(set(keys)) != 2 or any(len(key) != _KEY_BYTES for key in keys):
            raise InputError(
                "a succession of other than two identities",
                where=f"ledger entry {self.sequence}",
                expected=f"two Ed25519 public keys of {_KEY_BYTES} bytes",
            )

    def document(self) -> dict[str, Any]:
        """See `_Link.document`."""
        return {
            "format": FORMAT,
            "previous": self.previous,
            "sequence": self.sequence,
            "state": _SUCCEEDED,
            "predecessor": self.predecessor.hex(),
            "successor": self.successor.hex(),
            "time": float(self.time),
        }


Entry: TypeAlias = LedgerEntry | Succession
_E = TypeVar("_E", LedgerEntry, Succession)
#: Makes the owner's signature over bytes.
Sign: TypeAlias = Callable[[bytes], bytes]


def append(
    head: LedgerHead,
    charge: Charge,
    state: ChargeState,
    *,
    time: float,
    sign: Sign,
    rounds: int = 1,
    published: int = 0,
) -> LedgerEntry:
    """The entry that follows `head`, signed; the caller makes it durable before anything else happens.

    Raises:
        InputError: a time that is not finite, a signature that is not 64 bytes, or as `LedgerEntry`.
    """
    entry = LedgerEntry(
        previous=head.digest,
        sequence=head.sequence + 1,
        time=_finite(time),
        signature=b"",
        charge=charge,
        state=state,
        rounds=rounds,
        published=published,
    )
    return _signed(entry, sign)


def succeed(head: LedgerHead, predecessor: bytes, successor: bytes, *, time: float, sign: Sign) -> Succession:
    """The entry by which `successor`, whose signature `sign` makes, goes on with a chain that ended at `head`.

    Raises:
        InputError: as `append` and `Succession`.
    """
    entry = Succession(
        previous=head.digest,
        sequence=head.sequence + 1,
        time=_finite(time),
        signature=b"",
        predecessor=predecessor,
        successor=successor,
    )
    return _signed(entry, sign)


def parse_line(line: bytes) -> Entry:
    """The entry in one line written by `to_line`.

    Raises:
        InputError: the line is not exactly what `to_line` writes for some entry.
    """
    try:
        document = json.loads(line)
        parsed = _parse(document["entry"], bytes.fromhex(document["signature"]))
        unchanged = parsed.to_line().rstrip(b"\n") == line.rstrip(b"\n")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("a ledger line that cannot be read", where="ledger", expected="one JSON entry") from None
    if not unchanged:
        raise InputError(
            "a ledger line in another form", where="ledger", expected=f"canonical JSON of format {FORMAT} or earlier"
        )
    return parsed


def _parse(entry: dict[str, Any], signature: bytes) -> Entry:
    previous, sequence, time = require_digest(entry["previous"], "digest"), int(entry["sequence"]), float(entry["time"])
    if entry["state"] == _SUCCEEDED:
        keys = bytes.fromhex(entry["predecessor"]), bytes.fromhex(entry["successor"])
        return Succession(previous, sequence, time, signature, *keys)
    return LedgerEntry(
        previous=previous,
        sequence=sequence,
        time=time,
        signature=signature,
        charge=Charge(
            population=entry["population"],
            unit=entry["unit"],
            relation=entry["relation"],
            job=require_digest(entry["job"], "job digest"),
            round=int(entry["round"]),
            event=parse_event(entry["event"]),
            delta=float(entry["delta"]),
            plan=require_digest(entry["plan"], "plan digest"),
            content=entry.get("content", ""),
        ),
        state=ChargeState(entry["state"]),
        rounds=int(entry.get("rounds", 1)),
        published=int(entry.get("published", 0)),
        format=int(entry["format"]),
    )


def _finite(time: float) -> float:
    if not math.isfinite(time):
        raise InputError("a time that is not finite", where="ledger.time", got=repr(time))
    return time


def _signed(entry: _E, sign: Sign) -> _E:
    signature = sign(entry.signed_bytes())
    if len(signature) != _SIGNATURE_BYTES:
        raise InputError(
            "not an Ed25519 signature",
            where="ledger",
            expected=f"{_SIGNATURE_BYTES} bytes",
            got=f"{len(signature)} bytes",
        )
    return replace(entry, signature=signature)
