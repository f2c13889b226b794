"""The owner's privacy ledger: what was charged to which population, durable before noise is drawn or bytes leave.

The rules of the chain are in `lepton_core.privacy`; here is who keeps it: `FileLedger` for a daemon, `MemoryLedger` for
simulations. A budget holds over all jobs and for ever.

What "never began" means. Rounds are reserved in blocks, and no entry tells that one begins. So whoever keeps a ledger
holds to this: before a round of a run begins, the one that began before it is SPENT or LOST; and a run that had rounds
open when the file was opened had a process that died in one of them, so that one is LOST before anything else of the
run is written. Hence at most one round of a run ever has begun without an entry, and what is neither SPENT nor LOST
when a run is released never began. Nothing else is given back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lepton_client.anchoring import behind, require_own
from lepton_client.disk import SYSTEM_DISK, Disk
from lepton_client.journal import Journal, read_lines
from lepton_core.errors import ConflictError, LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId
from lepton_core.job import Job
from lepton_core.ports import Clock
from lepton_core.privacy import ledger as chain
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.accounts import RunKey
from lepton_core.privacy.anchor import LedgerAnchor, holds, sign_anchor
from lepton_core.privacy.events import Counted
from lepton_core.privacy.ledger import Charge, ChargeState, Entry, LedgerHead, Opening
from lepton_core.privacy.units import UNIT_RECORD, Unit


class Ledger(Protocol):
    """What the participant asks of the owner's ledger."""

    def require(
        self,
        population: str,
        events: Sequence[Counted],
        epsilon: float,
        delta: float,
        *,
        unit: Unit = UNIT_RECORD,
    ) -> None:
        """Refuse events that do not fit the budget for a unit with everything charged before, composed.

        Raises:
            BudgetRefusal: it would be overspent, the ledger is behind its anchor, it knows others and not this
                population, or the population was charged for a smaller unit, which has no bound for this one.
        """
        ...

    def reserve(self, charge: Charge, *, rounds: int = 1) -> None:
        """See that a round is charged, durably, before any noise is drawn for it.

        It is one of those reserved for its run before, at no cost; if none is left, so many are reserved, this one
        among them.

        Raises:
            BudgetRefusal: the ledger is behind its anchor, or knows others and not this population.
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

    def publish(self, run: Digest, round: int) -> None:  # noqa: A002 - the word for it
        """Note that a sum was published that this round's spent bytes are in; durable with the run's next entry."""
        ...

    def release(self, run: Digest) -> None:
        """Give back what was reserved for a run and provably never began; nothing of it may be under way.

        Raises:
            FaultError: it could not be made durable; it stays charged.
        """
        ...

    def charged_rounds(self, run: Digest) -> int:
        """How many rounds of a run are charged, those included that are reserved and have not begun."""
        ...

    def reserved_rounds(self, run: Digest) -> int:
        """How many of them may still begin."""
        ...

    def unpublished_rounds(self, run: Digest) -> int:
        """How many rounds of a run began, or may have, and were never published in a sum, as far as is known."""
        ...

    def compare(self, anchor: LedgerAnchor) -> bool:
        """Whether the ledger has this anchor in its place; if not, and it is the owner's own, nothing is charged.

        Raises:
            IdentityError: no identity of this ledger signed the anchor; it says nothing.
        """
        ...

    def anchor(self) -> LedgerAnchor:
        """Where the ledger stands, for others to keep."""
        ...


class _Chain:
    """A verified chain in memory; a subclass makes entries durable in `_keep`. One caller at a time."""

    def __init__(self, identity: IdentityKey, clock: Clock, entries: Sequence[Entry]) -> None:
        self._identity = identity
        self._clock = clock
        self._entries = list(entries)
        self._head = chain.verify(self._entries, identity.public)
        self._accounts = chain.accounts_of(self._entries)
        #: Runs that had rounds open when this was opened: a process may have died in one, and no one knows in which.
        self._interrupted = {key for key, account in self._accounts if account.open}
        #: The round of each run that has begun and is not SPENT or LOST yet.
        self._begun: dict[RunKey, Charge] = {}
        #: Rounds that were published before this was opened, and since.
        self._published_before = {key: account.published for key, account in self._accounts}
        self._published: dict[RunKey, set[int]] = {}
        #: The owner's own anchor that this ledger does not have.
        self._missing: LedgerAnchor | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything charged so far, in order."""
        return tuple(self._entries)

    @property
    def head(self) -> LedgerHead:
        """The end of the chain."""
        return self._head

    def require(
        self,
        population: str,
        events: Sequence[Counted],
        epsilon: float,
        delta: float,
        *,
        unit: Unit = UNIT_RECORD,
    ) -> None:
        """See `Ledger.require`."""
        self._require_whole()
        chain.require_known(self._accounts, population)
        charged = self._accounts.events(population, unit=unit, relation=chain.ADD_OR_REMOVE)
        # What is charged and what is left of a job compose to the same total in every round, which the accountant
        # remembers; what is spent changes each round, and is counted for a refusal only.
        if epsilon_of([*charged, *events], delta) > epsilon:
            chain.require_budget(charged, population, events, epsilon, delta, unit=unit)

    def reserve(self, charge: Charge, *, rounds: int = 1) -> None:
        """See `Ledger.reserve`."""
        self._require_whole()
        chain.require_known(self._accounts, charge.population)
        key = _key(charge)
        account, begun = self._accounts.find(*key), self._begun.get(key)
        used = account is not None and charge.round in account.begun
        if used or (begun is not None and begun.round == charge.round):
            raise ConflictError(
                "this round is charged already",
                where=f"ledger, round {charge.round}",
                expected="a round that was never trained",
                hint="noise is drawn once a round; the coordinator must open a new one",
                reason="CHARGED_TWICE",
            )
        if account is not None:
            account.require_same_price(charge)
        drafts = self._lost(key, charge)
        still_open = 0 if account is None else account.open - len(drafts)
        if still_open < 1:
            drafts.append((charge, ChargeState.RESERVED, rounds))
        self._append(key, drafts)
        self._begun[key] = charge

    def spend(self, charge: Charge) -> None:
        """See `Ledger.spend`."""
        key = _key(charge)
        begun = self._begun.get(key)
        if begun != charge:
            raise ConflictError(
                "nothing may leave under this charge",
                where=f"ledger, round {charge.round}",
                expected="a round that has begun, with the same event and plan",
                got="nothing" if begun is None else f"round {begun.round}",
                reason="NOT_RESERVED",
            )
        self._append(key, [(charge, ChargeState.SPENT, 1)])

    def publish(self, run: Digest, round: int) -> None:  # noqa: A002 - the word for it
        """See `Ledger.publish`."""
        for population, account in self._accounts.of_run(run):
            if round in account.spent:
                self._published.setdefault((population, run), set()).add(round)

    def release(self, run: Digest) -> None:
        """See `Ledger.release`."""
        for population, account in self._accounts.of_run(run):
            key = (population, run)
            if account.open == 0:
                continue
            drafts = self._lost(key, account.newest)
            if account.open > len(drafts):
                rest = account.open - len(drafts)
                drafts.append((replace(account.newest, round=0), ChargeState.RELEASED, rest))
            self._append(key, drafts)

    def open(self, population: str, reason: str) -> Opening:
        """Write down that a population holds none of the people of those known so far.

        Raises:
            BudgetRefusal: the ledger is behind its anchor.
            ConflictError: the ledger knows the population.
            InputError: no reason, or a long one.
            FaultError: it could not be made durable.
        """
        self._require_whole()
        known = self._accounts.populations
        if population in known:
            raise ConflictError(
                "the ledger knows this population",
                where=f"population {population}",
                expected=f"another name than {', '.join(known)}",
                hint="`lepton privacy show` tells what is left of its budget",
                reason="KNOWN_POPULATION",
            )
        time, sign = self._clock.now(), self._identity.sign
        opening = chain.open_population(self._head, population, known, reason=reason, time=time, sign=sign)
        self._take([opening], opening.head())
        return opening

    def settle(self) -> None:
        """Release every run, as nothing is under way any more: what a stop in good order owes the owner.

        Raises:
            FaultError: as `release`.
        """
        for run in dict.fromkeys(run for (_, run), account in self._accounts if account.open):
            self.release(run)

    def charged_rounds(self, run: Digest) -> int:
        """See `Ledger.charged_rounds`."""
        return sum(account.charged for _, account in self._accounts.of_run(run))

    def reserved_rounds(self, run: Digest) -> int:
        """See `Ledger.reserved_rounds`."""
        return sum(
            account.open - self._unwritten((population, run)) for population, account in self._accounts.of_run(run)
        )

    def unpublished_rounds(self, run: Digest) -> int:
        """See `Ledger.unpublished_rounds`."""
        return sum(
            account.used + self._unwritten((population, run)) - self._known_published((population, run))
            for population, account in self._accounts.of_run(run)
        )

    def compare(self, anchor: LedgerAnchor) -> bool:
        """See `Ledger.compare`."""
        require_own(anchor, self._entries, self._identity.public)
        if holds(self._entries, anchor):
            return True
        if self._missing is None or anchor.sequence > self._missing.sequence:
            self._missing = anchor
        return False

    def anchor(self) -> LedgerAnchor:
        """See `Ledger.anchor`."""
        return sign_anchor(self._head, self._identity.public, self._identity.sign)

    def _require_whole(self) -> None:
        if self._missing is not None:
            raise behind(self._missing, self._head)

    def _unwritten(self, key: RunKey) -> int:
        """1 if a round of the run began, or may have, of which no entry tells yet."""
        return int(key in self._interrupted or key in self._begun)

    def _known_published(self, key: RunKey) -> int:
        return self._published_before.get(key, 0) + len(self._published.get(key, ()))

    def _lost(self, key: RunKey, charge: Charge) -> list[tuple[Charge, ChargeState, int]]:
        """What is to be written of a round that began, or may have, before anything else of the run is."""
        if key in self._interrupted:
            return [(replace(charge, round=0), ChargeState.LOST, 1)]
        begun = self._begun.get(key)
        return [] if begun is None else [(begun, ChargeState.LOST, 1)]

    def _append(self, key: RunKey, drafts: Sequence[tuple[Charge, ChargeState, int]]) -> None:
        """Make entries of one run durable together; a crash may leave the first of them alone, which is sound."""
        published = self._known_published(key)
        entries: list[Entry] = []
        head = self._head
        for charge, state, rounds in drafts:
            entry = chain.append(
                head,
                charge,
                state,
                time=self._clock.now(),
                sign=self._identity.sign,
                rounds=rounds,
                published=published,
            )
            entries.append(entry)
            head = entry.head()
        if not entries:
            return
        self._take(entries, head)
        self._interrupted.discard(key)
        self._begun.pop(key, None)

    def _take(self, entries: Sequence[Entry], head: LedgerHead) -> None:
        self._keep(entries)
        self._entries += entries
        for entry in entries:
            self._accounts.take(entry)
        self._head = head

    def _keep(self, entries: Sequence[Entry]) -> None:
        """Make the entries durable; memory needs nothing."""


class MemoryLedger(_Chain):
    """A ledger that lives as long as the object, for simulations and tests."""

    def __init__(self, identity: IdentityKey, clock: Clock) -> None:
        super().__init__(identity, clock, ())


class CopiedLedger(_Chain):
    """The entries of a ledger, to be asked what they leave; nothing can be charged to a copy."""

    def _keep(self, entries: Sequence[Entry]) -> None:
        where = f"ledger entry {entries[0].sequence}"
        raise ConflictError("a copy of the ledger takes no charge", where=where)


class FileLedger(_Chain):
    """A ledger in a file of JSON lines, one process at a time, verified whole when it is opened."""

    def __init__(self, path: Path, identity: IdentityKey, clock: Clock, disk: Disk = SYSTEM_DISK) -> None:
        """Open, lock and verify the file.

        Raises:
            ConflictError: another daemon holds the file, or the chain is broken.
            IdentityError: an entry was not signed by this identity.
            InputError: a line that is not an entry.
            FaultError: the disk.
        """
        self._journal = Journal(path, disk)
        try:
            super().__init__(identity, clock, [chain.parse_line(line) for line in self._journal.lines])
        except LeptonError:
            self._journal.close()
            raise

    def close(self) -> None:
        """Let another process open it."""
        self._journal.close()

    def _keep(self, entries: Sequence[Entry]) -> None:
        self._journal.append(*(entry.to_line() for entry in entries))


def read_ledger(path: Path, public: bytes) -> tuple[Entry, ...]:
    """The verified entries of a ledger that a daemon may be writing.

    Raises:
        ConflictError, IdentityError, InputError: the chain does not hold.
    """
    entries = tuple(chain.parse_line(line) for line in read_lines(path))
    chain.verify(entries, public)
    return entries


def derive_run(job_id: JobId, job: Job) -> Digest:
    """Names one run of a job in the ledger, so that the same job submitted again is charged again."""
    return Digest(hashlib.sha256(b"lepton/ledger-run/v1" + job_id.encode() + b"\0" + job.digest()).hexdigest())


def _key(charge: Charge) -> RunKey:
    return charge.population, charge.job
