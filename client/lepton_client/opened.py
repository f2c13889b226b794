"""A further population in an owner's ledger, declared to hold none of the people of those before.

Renaming a population in the policy must not be a new budget for the same people. So the ledger takes charges for one
that it does not know only if it knows none, or if the owner has opened it: an entry that is signed, dated and given a
reason, for whoever audits the ledger. What it declares, no machine can check.
"""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path

from lepton_client.anchoring import require_whole
from lepton_client.exported import verify_home
from lepton_client.home import Home, load_home_policy, load_identity, load_settings
from lepton_client.ledger import FileLedger
from lepton_core.errors import InputError
from lepton_core.ports import Clock
from lepton_core.privacy.ledger import Opening, accounts_of


def known_populations(folder: Path) -> list[str]:
    """The populations that the ledger was charged for or that were opened, sorted.

    Raises:
        InputError: the folder is not a client's.
        ConflictError, IdentityError: the chain does not hold.
    """
    return accounts_of(verify_home(Home(folder)).entries).populations


def open_population(folder: Path, population: str, reason: str, clock: Clock) -> Opening:
    """Open a population of the policy, and give the entry that says so.

    Raises:
        InputError, SettingsError: the folder is not a client's, the policy has no such population, or no reason.
        ConflictError: the ledger knows the population, its chain does not hold, or a daemon runs.
        BudgetRefusal: the ledger is behind its anchor.
        FaultError: the disk; nothing is opened.
    """
    home = Home(folder)
    policy, identity = load_home_policy(home, load_settings(home)), load_identity(home)
    names = [known.name for known in policy.populations]
    if population not in names:
        close = difflib.get_close_matches(population, names, n=1)
        raise InputError(
            "the policy has no such population",
            where=str(home.folder / "policy.toml"),
            expected=", ".join(names),
            got=population[:80],
            hint=f"did you mean {close[0]}?" if close else "write it under [[populations]] first",
        )
    with contextlib.closing(FileLedger(home.ledger, identity, clock)) as ledger:
        require_whole(home.anchor, ledger.entries, identity.public)
        return ledger.open(population, reason)
