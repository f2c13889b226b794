"""The owner's hash-chained record of what was charged to a population, as data; files are the client's business.

Rules:
- Every entry names the digest of the one before it, so that nothing can be changed, left out or moved unseen.
- RESERVED comes before any noise is drawn, SPENT before any byte leaves. RESERVED counts as spent, and a round counts
  once; only rounds that provably never began are given back (`accounts`).
- Events of all jobs of a population are composed; epsilons are never summed.
- Changed data inherit what is spent: an entry's content is evidence, and no reason to count anew. A further population
  counts by itself only once the owner has declared, in an entry of its own, that it holds none of the others' people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lepton_core.errors import BudgetRefusal, ConflictError, IdentityError
from lepton_core.identity import require_signature
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.accounts import Accounts
from lepton_core.privacy.declarations import Opening, Succession, open_population, succeed
from lepton_core.privacy.entries import (
    ADD_OR_REMOVE,
    Charge,
    ChargeState,
    Entry,
    LedgerEntry,
    append,
    parse_line,
)
from lepton_core.privacy.events import Counted
from lepton_core.privacy.links import EMPTY, LedgerHead
from lepton_core.privacy.units import UNIT_RECORD

__all__ = [
    "ADD_OR_REMOVE",
    "EMPTY",
    "UNIT_RECORD",
    "Accounts",
    "Budget",
    "Charge",
    "ChargeState",
    "Entry",
    "LedgerEntry",
    "LedgerHead",
    "Opening",
    "Succession",
    "accounts_of",
    "append",
    "open_population",
    "parse_line",
    "require_budget",
    "require_known",
    "spent_events",
    "succeed",
    "verify",
]


def verify(entries: Sequence[Entry], public: bytes) -> LedgerHead:
    """The head of the chain, after every link, signature and order of entries has been checked.

    `public` is the Ed25519 key that signs now; what a predecessor signed is checked by the key that the succession
    names.

    Raises:
        ConflictError: an entry that does not follow the one before, or that charges a round out of order.
        IdentityError: a signature that does not hold, or a succession that does not lead to `public`.
    """
    signers = _signers([entry for entry in entries if isinstance(entry, Succession)], public)
    head, accounts, signer = EMPTY, Accounts(), 0
    for entry in entries:
        if (entry.previous, entry.sequence) != (head.digest, head.sequence + 1):
            raise ConflictError(
                "the privacy ledger's chain is broken",
                where=f"ledger entry {entry.sequence}",
                expected=f"entry {head.sequence + 1} after {head.digest[:16]}",
                got=f"entry {entry.sequence} after {entry.previous[:16]}",
                hint="restore the ledger from its last export; charge nothing before",
                reason="CHAIN_BROKEN",
            )
        signer += isinstance(entry, Succession)
        where = f"ledger entry {entry.sequence}"
        require_signature(signers[signer], entry.signature, entry.signed_bytes(), who=where, what="ledger entry")
        accounts.take(entry)
        head = entry.head()
    return head


def _signers(successions: Sequence[Succession], public: bytes) -> list[bytes]:
    """Who signed before the first succession, between each two, and after the last."""
    signers = [*(one.predecessor for one in successions), public]
    for one, follower in zip(successions, signers[1:], strict=True):
        if one.successor != follower:
            raise IdentityError(
                "the ledger is another identity's",
                where=f"ledger entry {one.sequence}",
                expected=f"a succession to {follower.hex()[:16]}",
                got=f"to {one.successor.hex()[:16]}",
                hint="use the identity.pem that belongs to this ledger",
                reason="BAD_SIGNATURE",
            )
    return signers


def require_known(accounts: Accounts, population: str) -> None:
    """Refuse a population that is new to a ledger which knows others: a new name must not be a new budget.

    Raises:
        BudgetRefusal: NEW_POPULATION.
    """
    known = accounts.populations
    if known and population not in known:
        raise BudgetRefusal(
            "the ledger does not know this population",
            where=f"population {population}",
            expected=f"one that was charged or opened before: {', '.join(known)}",
            got=population,
            hint=(
                "if these are people of one of them, use its name in the policy; if they are others, declare it with "
                f"`lepton privacy open HOME {population} --disjoint --reason ...`"
            ),
            reason="NEW_POPULATION",
        )


def accounts_of(entries: Iterable[Entry]) -> Accounts:
    """What each run has come to.

    Raises:
        ConflictError: a round charged out of order.
    """
    accounts = Accounts()
    for entry in entries:
        accounts.take(entry)
    return accounts


def spent_events(
    entries: Iterable[Entry], population: str, *, unit: str = UNIT_RECORD, relation: str = ADD_OR_REMOVE
) -> list[Counted]:
    """Everything charged to a population as it costs one unit, one event a round, in the order of the first entries.

    RESERVED counts as spent, until it is RELEASED; a round counts once. What was charged for larger units counts too.

    Raises:
        BudgetRefusal: RECORD_CHARGES or SUBJECT_CHARGES, if something was charged for a smaller unit (`units`).
        ConflictError: the population was charged under another relation, which no accountant can add to this.
    """
    return accounts_of(entries).events(population, unit=unit, relation=relation)


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
    charged: Sequence[Counted],
    population: str,
    new_events: Sequence[Counted],
    budget_epsilon: float,
    delta: float,
    *,
    unit: str = UNIT_RECORD,
) -> Budget:
    """A unit's budget after the new events, if it holds with everything already charged (`spent_events`), composed.

    Raises:
        BudgetRefusal: it does not hold; tells what is spent, asked and left.
    """
    budget = Budget(
        limit=budget_epsilon, spent=epsilon_of(charged, delta), after=epsilon_of([*charged, *new_events], delta)
    )
    if budget.after > budget.limit:
        raise BudgetRefusal(
            "the population's privacy budget would be overspent",
            where=f"population {population}",
            expected=f"epsilon at most {budget.limit:g} at delta {delta:g} for one {unit} over all jobs",
            got=(
                f"{budget.after:.4g} with this job: {budget.spent:.4g} is spent, "
                f"{epsilon_of(new_events, delta):.4g} is asked, {budget.left:.4g} is left"
            ),
            hint="ask for a smaller epsilon, or fewer rounds; only the owner can raise the budget",
            reason="BUDGET_EXCEEDED",
        )
    return budget
