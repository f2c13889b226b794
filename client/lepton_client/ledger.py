"""The owner's privacy ledger: what was charged to which population, durable before noise is drawn or bytes leave.

The rules of the chain are in `lepton_core.privacy.ledger`; here is who keeps it: `FileLedger` for a daemon,
`MemoryLedger` for simulations. A budget holds over all jobs and for ever; there are no refunds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lepton_client.journal import Journal, read_lines
from lepton_core.errors import ConflictError, LeptonError
from lepton_core.identity import IdentityKey, require_signature
from lepton_core.ids import Digest, JobId
from lepton_core.job import Job
from lepton_core.ports import Clock
from lepton_core.privacy import ledger as chain
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import Event
from lepton_core.privacy.ledger import Charge, ChargeState, LedgerEntry, LedgerHead


class Ledger(Protocol):
    """What the participant asks of the owner's ledger."""

    def require(self, population: str, events: Sequence[Event], epsilon: float, delta: float) -> None:
        """Refuse events that do not fit the budget with everything charged before, composed.

        Raises:
            BudgetRefusal: it would be overspent.
        """
        ...

    def reserve(self, charge: Charge) -> None:
        """Make a charge durable before any noise is drawn for it.

        Raises:
            ConflictError: this run's round is charged already.
            FaultError: it could not be made durable; no noise may be drawn.
        """
        ...

    def spend(self, charge: Charge) -> None:
        """Make durable that bytes are about to leave under a reserved charge.

        Raises:
            ConflictError: not reserved, or spent already.
            FaultError: it could not be made durable; no byte may leave.
        """
        ...

    def charged_rounds(self, run: Digest) -> int:
        """How many rounds of a run were charged."""
        ...


class _Chain:
    """A verified chain in memory; a subclass makes each entry durable in `_keep`."""

    def __init__(self, identity: IdentityKey, clock: Clock, entries: Sequence[LedgerEntry]) -> None:
        self._identity = identity
        self._clock = clock
        self._entries = list(entries)
        self._head = verify_entries(self._entries, identity.public)
        self._states = {_key(entry.charge): entry for entry in self._entries}

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Everything charged so far, in order."""
        return tuple(self._entries)

    @property
    def head(self) -> LedgerHead:
        """The end of the chain."""
        return self._head

    def require(self, population: str, events: Sequence[Event], epsilon: float, delta: float) -> None:
        """See `Ledger.require`."""
        # What is charged and what is left of a job compose to the same total in every round, which the accountant
        # remembers; what is spent changes each round, and is counted for a refusal only.
        if epsilon_of([*chain.spent_events(self._entries, population), *events], delta) > epsilon:
            chain.require_budget(self._entries, population, events, epsilon, delta)

    def reserve(self, charge: Charge) -> None:
        """See `Ledger.reserve`."""
        if _key(charge) in self._states:
            raise ConflictError(
                "this round is charged already",
                where=f"ledger, round {charge.round}",
                expected="a round that was never trained",
                hint="noise is drawn once a round; the coordinator must open a new one",
                reason="CHARGED_TWICE",
            )
        self._append(charge, ChargeState.RESERVED)

    def spend(self, charge: Charge) -> None:
        """See `Ledger.spend`."""
        before = self._states.get(_key(charge))
        if before is None or before.state is not ChargeState.RESERVED or before.charge != charge:
            raise ConflictError(
                "nothing may leave under this charge",
                where=f"ledger, round {charge.round}",
                expected="RESERVED with the same event and plan",
                got=before.state.value if before is not None else "nothing",
                reason="NOT_RESERVED",
            )
        self._append(charge, ChargeState.SPENT)

    def charged_rounds(self, run: Digest) -> int:
        """See `Ledger.charged_rounds`."""
        return sum(1 for _, charged, _ in self._states if charged == run)

    def _append(self, charge: Charge, state: ChargeState) -> None:
        entry = chain.append(self._head, charge, state, time=self._clock.now(), sign=self._identity.sign)
        self._keep(entry)
        self._entries.append(entry)
        self._states[_key(charge)] = entry
        self._head = entry.head()

    def _keep(self, entry: LedgerEntry) -> None:
        """Make the entry durable; memory needs nothing."""


class MemoryLedger(_Chain):
    """A ledger that lives as long as the object, for simulations and tests."""

    def __init__(self, identity: IdentityKey, clock: Clock) -> None:
        super().__init__(identity, clock, ())


class CopiedLedger(_Chain):
    """The entries of a ledger, to be asked what they leave; nothing can be charged to a copy."""

    def _keep(self, entry: LedgerEntry) -> None:
        raise ConflictError("a copy of the ledger takes no charge", where=f"ledger entry {entry.sequence}")


class FileLedger(_Chain):
    """A ledger in a file of JSON lines, one process at a time, verified whole when it is opened."""

    def __init__(self, path: Path, identity: IdentityKey, clock: Clock) -> None:
        """Open, lock and verify the file.

        Raises:
            ConflictError: another daemon holds the file, or the chain is broken.
            IdentityError: an entry was not signed by this identity.
            InputError: a line that is not an entry.
            FaultError: the disk.
        """
        self._journal = Journal(path)
        try:
            super().__init__(identity, clock, [chain.parse_line(line) for line in self._journal.lines])
        except LeptonError:
            self._journal.close()
            raise

    def close(self) -> None:
        """Let another process open it."""
        self._journal.close()

    def _keep(self, entry: LedgerEntry) -> None:
        self._journal.append(entry.to_line())


def read_ledger(path: Path, public: bytes) -> tuple[LedgerEntry, ...]:
    """The verified entries of a ledger that a daemon may be writing.

    Raises:
        ConflictError, IdentityError, InputError: the chain does not hold.
    """
    entries = tuple(chain.parse_line(line) for line in read_lines(path))
    verify_entries(entries, public)
    return entries


def verify_entries(entries: Sequence[LedgerEntry], public: bytes) -> LedgerHead:
    """The head of a chain whose links and signatures by `public` all hold.

    Raises:
        ConflictError, IdentityError: they do not.
    """
    return chain.verify(
        entries,
        check=lambda signature, data: require_signature(public, signature, data, who="ledger", what="ledger entry"),
    )


def derive_run(job_id: JobId, job: Job) -> Digest:
    """Names one run of a job in the ledger, so that the same job submitted again is charged again."""
    return Digest(hashlib.sha256(b"lepton/ledger-run/v1" + job_id.encode() + b"\0" + job.digest()).hexdigest())


def _key(charge: Charge) -> tuple[str, str, int]:
    return charge.population, charge.job, charge.round
