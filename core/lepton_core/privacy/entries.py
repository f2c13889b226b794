"""The lines of an owner's privacy ledger, as data: charges, beside what an owner declares (`declarations`).

Every entry names the digest of the one before it, so that nothing can be changed, left out or moved unseen. What the
entries of a run may follow one another is told in `accounts`, what they add up to in `ledger`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from lepton_core.errors import InputError
from lepton_core.ids import Digest, require_digest
from lepton_core.privacy.declarations import OPENED, SUCCEEDED, Opening, Succession
from lepton_core.privacy.events import Event, event_document, parse_event
from lepton_core.privacy.links import FORMAT, LedgerHead, Link, Sign, finite, signed

#: Neighbouring data sets: one unit added or removed.
ADD_OR_REMOVE = "add-or-remove"

_FIRST_FORMAT = 1


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
class LedgerEntry(Link):
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
        """See `Link.document`."""
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


Entry: TypeAlias = LedgerEntry | Succession | Opening


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
        time=finite(time),
        signature=b"",
        charge=charge,
        state=state,
        rounds=rounds,
        published=published,
    )
    return signed(entry, sign)


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
    if entry["state"] == SUCCEEDED:
        keys = bytes.fromhex(entry["predecessor"]), bytes.fromhex(entry["successor"])
        return Succession(previous, sequence, time, signature, *keys)
    if entry["state"] == OPENED:
        known = tuple(entry["disjoint_from"])
        return Opening(previous, sequence, time, signature, entry["population"], known, entry["reason"])
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
