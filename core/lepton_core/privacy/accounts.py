"""What the entries of a ledger may follow one another, and what each run of a job has come to by them.

A run reserves rounds in blocks, whichever rounds of the job they will be, since a round that was aborted never comes
again. Of each reserved round becomes one of three things:

    SPENT       bytes left, or were about to
    LOST        noise was or may have been drawn, and nothing left
    RELEASED    it provably never began: no more are ever released than are neither SPENT nor LOST

Whoever draws noise keeps one rule, by which a crash is worth one round: before a round begins, the one that began
before it is SPENT or LOST. So at most one reserved round of a run has begun without an entry, and after a crash one is
LOST before anything of the run is reserved or released. A succession makes all that is open LOST, as nobody knows what
the lost machine has done with it.

In format 1 each entry reserved one round, which had then begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from lepton_core.errors import ConflictError
from lepton_core.ids import Digest
from lepton_core.privacy.declarations import Opening, Succession
from lepton_core.privacy.entries import Charge, ChargeState, Entry, LedgerEntry
from lepton_core.privacy.events import Counted
from lepton_core.privacy.units import event_for

#: A population's name, and the digest of a run.
RunKey: TypeAlias = tuple[str, Digest]


@dataclass
class RunAccount:
    """One run of a job, as one population was charged for it."""

    #: The charge of the first entry; unit, relation, event and delta never change in a run.
    first: Charge
    #: That of the newest.
    newest: Charge
    reserved: int = 0
    released: int = 0
    #: Rounds that are SPENT.
    spent: set[int] = field(default_factory=set)
    #: Rounds by number that can never begin again: SPENT, LOST, or reserved by an entry of format 1.
    begun: dict[int, Charge] = field(default_factory=dict)
    #: LOST without a number.
    unnumbered: int = 0
    #: Rounds whose sum was published, as the newest entry says.
    published: int = 0

    @property
    def charged(self) -> int:
        """Rounds that count: everything reserved and not released."""
        return self.reserved - self.released

    @property
    def used(self) -> int:
        """Rounds that are SPENT or LOST."""
        return len(self.begun) + self.unnumbered

    @property
    def open(self) -> int:
        """Rounds that are reserved and of which nothing is written since."""
        return self.charged - self.used

    @property
    def unreleased(self) -> int:
        """Rounds that were used and whose sum was never published, as far as the entries say."""
        return max(0, self.used - self.published)

    def take(self, entry: LedgerEntry) -> None:
        """Count the entry.

        Raises:
            ConflictError: it cannot follow what is there.
        """
        if not self._may_follow(entry):
            raise ConflictError(
                "a round charged out of order",
                where=f"ledger entry {entry.sequence}",
                expected="RESERVED first; then each of those rounds SPENT or LOST once, or RELEASED, at one price",
                got=f"{entry.state.value} of {entry.rounds} for round {entry.charge.round}, {self.open} open",
                reason="OUT_OF_ORDER",
            )
        charge, number = entry.charge, entry.charge.round
        match entry.state:
            case ChargeState.RESERVED:
                self.reserved += entry.rounds
                if entry.format == 1:
                    self.begun[number] = charge
            case ChargeState.SPENT:
                self.spent.add(number)
                self.begun[number] = charge
            case ChargeState.LOST if number:
                self.begun[number] = charge
            case ChargeState.LOST:
                self.unnumbered += 1
            case ChargeState.RELEASED:
                self.released += entry.rounds
        self.published = max(self.published, entry.published)
        self.newest = charge

    def require_same_price(self, charge: Charge) -> None:
        """Refuse a charge that is not what the run's rounds were charged so far.

        Raises:
            ConflictError: OUT_OF_ORDER.
        """
        if not self._is_priced(charge):
            raise ConflictError(
                "a run's rounds are charged alike",
                where=f"ledger, round {charge.round}",
                expected="the unit, relation, event and delta of its first round",
                reason="OUT_OF_ORDER",
            )

    def _is_priced(self, charge: Charge) -> bool:
        first = self.first
        price = (charge.unit, charge.relation, charge.event, charge.delta)
        return price == (first.unit, first.relation, first.event, first.delta)

    def _may_follow(self, entry: LedgerEntry) -> bool:
        charge = entry.charge
        if not self._is_priced(charge) or entry.published > len(self.spent):
            return False
        if entry.format == 1:
            if entry.state is ChargeState.RESERVED:
                return charge.round not in self.begun
            return self.begun.get(charge.round) == charge and charge.round not in self.spent
        match entry.state:
            case ChargeState.RESERVED:
                return True
            case ChargeState.RELEASED:
                return entry.rounds <= self.open
            case ChargeState.SPENT | ChargeState.LOST:
                return self.open >= 1 and charge.round not in self.begun


class Accounts:
    """Every run that charged a population, in the order of their first entries."""

    def __init__(self) -> None:
        self._runs: dict[RunKey, RunAccount] = {}
        self._opened: set[str] = set()

    @property
    def populations(self) -> list[str]:
        """Every population that was charged or opened, sorted."""
        return sorted({population for population, _ in self._runs} | self._opened)

    def __iter__(self) -> Iterator[tuple[RunKey, RunAccount]]:
        return iter(self._runs.items())

    def find(self, population: str, run: Digest) -> RunAccount | None:
        """The account, if anything was charged to it."""
        return self._runs.get((population, run))

    def of_run(self, run: Digest) -> list[tuple[str, RunAccount]]:
        """The run's account in each population that it charged."""
        return [(population, account) for (population, known), account in self._runs.items() if known == run]

    def take(self, entry: Entry) -> None:
        """Count the entry.

        Raises:
            ConflictError: it cannot follow what is there; nothing was counted.
        """
        if isinstance(entry, Succession):
            for account in self._runs.values():
                account.unnumbered += account.open
            return
        if isinstance(entry, Opening):
            self._open(entry)
            return
        key = (entry.charge.population, entry.charge.job)
        account = self._runs.get(key) or RunAccount(entry.charge, entry.charge)
        account.take(entry)
        self._runs[key] = account

    def _open(self, entry: Opening) -> None:
        if list(entry.disjoint_from) != self.populations:
            raise ConflictError(
                "a population opened beside others than the ledger knows",
                where=f"ledger entry {entry.sequence}",
                expected=", ".join(self.populations) or "none",
                got=", ".join(entry.disjoint_from) or "none",
                reason="OUT_OF_ORDER",
            )
        self._opened.add(entry.population)

    def events(self, population: str, *, unit: str, relation: str) -> list[Counted]:
        """Everything charged to a population as it costs one unit, one event a round.

        Raises:
            BudgetRefusal: something was charged for a smaller unit, which has no bound for this (`units`).
            ConflictError: it was charged under another relation, which no accountant can add to this.
        """
        events: list[Counted] = []
        for (charged, run), account in self._runs.items():
            if charged != population:
                continue
            if account.first.relation != relation:
                raise ConflictError(
                    "a population charged under two kinds of neighbour",
                    where=f"population {population}, run {run[:16]}",
                    expected=relation,
                    got=account.first.relation,
                )
            events.extend([event_for(unit, account.first.unit, account.first.event)] * account.charged)
        return events
