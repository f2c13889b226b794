"""The owner's hash-chained record of what was charged to a population, as data; files are the client's business.

Rules:
- Every entry names the digest of the one before it, so that nothing can be changed, left out or moved unseen.
- RESERVED comes before any noise is drawn, SPENT before any byte leaves. RESERVED counts as spent; a round that was
  RESERVED and then SPENT counts once; there are no refunds.
- Events of all jobs of a population are composed; epsilons are never summed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lepton_core.canonical import canonical_json
from lepton_core.errors import BudgetRefusal, ConflictError, IdentityError, InputError
from lepton_core.ids import Digest, require_digest
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import Event, event_document, parse_event

#: What is protected: one record. Subjects come later.
UNIT_RECORD = "record"
#: Neighbouring data sets: one unit added or removed.
ADD_OR_REMOVE = "add-or-remove"

_ENTRY_LABEL = b"lepton/ledger/v1"
_SIGNATURE_LABEL = b"lepton/ledger-signature/v1"
_FORMAT = 1
_SIGNATURE_BYTES = 64


class ChargeState(Enum):
    """How far a charge has come; both count in full."""

    RESERVED = "RESERVED"
    SPENT = "SPENT"


@dataclass(frozen=True)
class Charge:
    """What a round of a job costs a population.

    Raises:
        InputError: an empty name, a round below 1, delta out of range, or a malformed digest.
    """

    #: The owner's name for the people whose records these are.
    population: str
    unit: str
    relation: str
    #: Digest of the job's canonical bytes.
    job: Digest
    round: int
    event: Event
    #: The delta at which the job promises its epsilon.
    delta: float
    #: Digest of the owner's data plan for the job.
    plan: Digest

    def __post_init__(self) -> None:
        for name, value in (("population", self.population), ("unit", self.unit), ("relation", self.relation)):
            if not value:
                raise InputError("a charge without a name", where=f"charge.{name}", expected="text", got="''")
        require_digest(self.job, "job digest")
        require_digest(self.plan, "plan digest")
        if self.round < 1:
            raise InputError("a charge for no round", where="charge.round", expected="at least 1", got=repr(self.round))
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
class LedgerEntry:
    """One charge in the chain."""

    #: Digest of the entry before, or of `EMPTY`.
    previous: Digest
    #: Position in the chain, from 1.
    sequence: int
    charge: Charge
    state: ChargeState
    #: Seconds since the Unix epoch, UTC.
    time: float
    #: Ed25519 signature by the owner's protocol identity over `signed_bytes`; 64 bytes.
    signature: bytes

    def canonical(self) -> bytes:
        """The entry without its signature, as the one byte string that is hashed and signed."""
        charge = self.charge
        return canonical_json(
            {
                "format": _FORMAT,
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
        )

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
        return canonical_json({"entry": json.loads(self.canonical()), "signature": self.signature.hex()}) + b"\n"


def append(
    head: LedgerHead, charge: Charge, state: ChargeState, *, time: float, sign: Callable[[bytes], bytes]
) -> LedgerEntry:
    """The entry that follows `head`, signed; the caller makes it durable before anything else happens.

    Raises:
        InputError: a time that is not finite, or a signature that is not 64 bytes.
    """
    if not math.isfinite(time):
        raise InputError("a time that is not finite", where="ledger.time", got=repr(time))
    unsigned = LedgerEntry(
        previous=head.digest, sequence=head.sequence + 1, charge=charge, state=state, time=time, signature=b""
    )
    return _signed(unsigned, sign(unsigned.signed_bytes()))


def parse_line(line: bytes) -> LedgerEntry:
    """The entry in one line written by `to_line`.

    Raises:
        InputError: the line is not exactly what `to_line` writes for some entry.
    """
    try:
        document = json.loads(line)
        entry = document["entry"]
        parsed = LedgerEntry(
            previous=require_digest(entry["previous"], "previous digest"),
            sequence=int(entry["sequence"]),
            charge=_parse_charge(entry),
            state=ChargeState(entry["state"]),
            time=float(entry["time"]),
            signature=bytes.fromhex(document["signature"]),
        )
        unchanged = parsed.to_line().rstrip(b"\n") == line.rstrip(b"\n")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("a ledger line that cannot be read", where="ledger", expected="one JSON entry") from None
    if not unchanged:
        raise InputError("a ledger line in another form", where="ledger", expected="canonical JSON of format 1")
    return parsed


def verify(entries: Iterable[LedgerEntry], *, check: Callable[[bytes, bytes], None]) -> LedgerHead:
    """The head of the chain, after every link, signature and order of states has been checked.

    `check(signature, data)` raises if the owner's key did not make the signature, as `Ed25519PublicKey.verify` does.

    Raises:
        ConflictError: an entry that does not follow the one before, SPENT without RESERVED, or the same state twice.
        IdentityError: a signature that does not hold.
    """
    head = EMPTY
    states: dict[tuple[str, str, int], LedgerEntry] = {}
    for entry in entries:
        where = f"ledger entry {entry.sequence}"
        if (entry.previous, entry.sequence) != (head.digest, head.sequence + 1):
            raise ConflictError(
                "the privacy ledger's chain is broken",
                where=where,
                expected=f"entry {head.sequence + 1} after {head.digest[:16]}",
                got=f"entry {entry.sequence} after {entry.previous[:16]}",
                hint="restore the ledger from its last export; charge nothing before",
            )
        try:
            check(entry.signature, entry.signed_bytes())
        except Exception as refused:
            raise IdentityError("a ledger signature that does not hold", where=where) from refused
        _require_order(states, entry, where)
        head = entry.head()
    return head


def spent_events(
    entries: Iterable[LedgerEntry], population: str, *, unit: str = UNIT_RECORD, relation: str = ADD_OR_REMOVE
) -> list[Event]:
    """Everything charged to a population, one event a round, in the order of the rounds' first entries.

    RESERVED counts as spent; a round RESERVED and then SPENT counts once.

    Raises:
        ConflictError: the population was charged under another unit or relation, which no accountant can add to this.
    """
    events: dict[tuple[str, int], Event] = {}
    for entry in entries:
        charge = entry.charge
        if charge.population != population:
            continue
        if (charge.unit, charge.relation) != (unit, relation):
            raise ConflictError(
                "a population charged under two kinds of neighbour",
                where=f"ledger entry {entry.sequence}",
                expected=f"{unit}, {relation}",
                got=f"{charge.unit}, {charge.relation}",
            )
        events.setdefault((charge.job, charge.round), charge.event)
    return list(events.values())


@dataclass(frozen=True)
class Budget:
    """Where a population's budget stands, in epsilon at one delta."""

    limit: float
    #: Epsilon of everything charged so far.
    spent: float
    #: Epsilon of everything charged so far and the new events, composed.
    after: float

    @property
    def left(self) -> float:
        """The limit less what is spent; 0 if nothing is left. Not the epsilon of the largest job that still fits."""
        return max(0.0, self.limit - self.spent)


def require_budget(
    entries: Iterable[LedgerEntry],
    population: str,
    new_events: Sequence[Event],
    budget_epsilon: float,
    delta: float,
) -> Budget:
    """The budget after the new events, if it holds with everything already charged, composed.

    Raises:
        BudgetRefusal: it does not hold; tells what is spent, asked and left.
    """
    charged = spent_events(entries, population)
    budget = Budget(
        limit=budget_epsilon, spent=epsilon_of(charged, delta), after=epsilon_of([*charged, *new_events], delta)
    )
    if budget.after > budget.limit:
        raise BudgetRefusal(
            "the population's privacy budget would be overspent",
            where=f"population {population}",
            expected=f"epsilon at most {budget.limit:g} at delta {delta:g} over all jobs",
            got=(
                f"{budget.after:.4g} with this job: {budget.spent:.4g} is spent, "
                f"{epsilon_of(new_events, delta):.4g} is asked, {budget.left:.4g} is left"
            ),
            hint="ask for a smaller epsilon, or fewer rounds; only the owner can raise the budget",
            reason="BUDGET_EXCEEDED",
        )
    return budget


def _signed(entry: LedgerEntry, signature: bytes) -> LedgerEntry:
    if len(signature) != _SIGNATURE_BYTES:
        raise InputError(
            "not an Ed25519 signature",
            where="ledger",
            expected=f"{_SIGNATURE_BYTES} bytes",
            got=f"{len(signature)} bytes",
        )
    return LedgerEntry(
        previous=entry.previous,
        sequence=entry.sequence,
        charge=entry.charge,
        state=entry.state,
        time=entry.time,
        signature=signature,
    )


def _parse_charge(entry: dict[str, Any]) -> Charge:
    return Charge(
        population=entry["population"],
        unit=entry["unit"],
        relation=entry["relation"],
        job=require_digest(entry["job"], "job digest"),
        round=int(entry["round"]),
        event=parse_event(entry["event"]),
        delta=float(entry["delta"]),
        plan=require_digest(entry["plan"], "plan digest"),
    )


def _require_order(states: dict[tuple[str, str, int], LedgerEntry], entry: LedgerEntry, where: str) -> None:
    key = (entry.charge.population, entry.charge.job, entry.charge.round)
    before = states.get(key)
    if before is None:
        in_order = entry.state is ChargeState.RESERVED
    else:
        in_order = before.state is ChargeState.RESERVED and entry.state is ChargeState.SPENT
        in_order = in_order and before.charge == entry.charge
    if not in_order:
        raise ConflictError(
            "a round charged out of order",
            where=where,
            expected="RESERVED once, then SPENT once, with the same event and plan",
            got=entry.state.value if before is None else f"{entry.state.value} after {before.state.value}",
        )
    states[key] = entry
