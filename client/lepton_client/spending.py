"""What an owner's ledger says was spent: population by population, and job by job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_client.anchoring import alarm
from lepton_client.exported import verify_chain
from lepton_client.home import Home, load_home_policy, load_settings
from lepton_client.ledger import derive_run
from lepton_client.policy import Policy, Population
from lepton_client.records import read_jobs
from lepton_core.errors import BudgetRefusal
from lepton_core.privacy.accountant import Observer, epsilon_of
from lepton_core.privacy.events import Event, SampledGaussian
from lepton_core.privacy.ledger import ADD_OR_REMOVE, Accounts, Entry, Opening, accounts_of
from lepton_core.privacy.units import Unit


def spending(folder: Path) -> dict[str, Any]:
    """Budgets and jobs as plain values; the ledger's chain and signatures are verified on the way.

    Raises:
        InputError: the folder is not a client's, or a file in it is wrong.
        ConflictError, IdentityError: the ledger's chain does not hold.
    """
    home = Home(folder)
    policy = load_home_policy(home, load_settings(home))
    verified = verify_chain(home)
    names = {derive_run(job_id, known.job): job_id for job_id, known in read_jobs(home.jobs).items()}
    return {
        "populations": budgets(policy, verified.entries),
        "jobs": _jobs(verified.entries, names),
        "openings": [
            {
                "population": entry.population,
                "disjoint_from": list(entry.disjoint_from),
                "reason": entry.reason,
                "time": entry.time,
            }
            for entry in verified.entries
            if isinstance(entry, Opening)
        ],
        "ledger_entries": len(verified.entries),
        "ledger_head": verified.head.digest,
        "ledger_predecessors": verified.summary()["predecessors"],
        "ledger_alarm": alarm(home.anchor, verified.entries, verified.identity),
    }


def budgets(policy: Policy, entries: tuple[Entry, ...]) -> list[dict[str, Any]]:
    """Where each population stands, one after another, for each unit that it has a budget for, over all jobs together.

    Epsilon is for one unit, added or removed; None where there is no bound, as records were charged and the unit is
    the subject.
    """
    accounts = accounts_of(entries)
    return [
        _standing(population, unit, limit, accounts)
        for population in policy.populations
        for unit, limit in population.budgets.items()
    ]


def _standing(population: Population, unit: Unit, limit: float, accounts: Accounts) -> dict[str, Any]:
    spent, against_sums = None, None
    try:
        events = accounts.events(population.name, unit=unit, relation=ADD_OR_REMOVE)
    except BudgetRefusal:
        pass
    else:
        spent = epsilon_of(events, population.delta)
        against_sums = epsilon_of(events, population.delta, Observer.SUMS)
    return {
        "population": population.name,
        "unit": unit,
        "relation": ADD_OR_REMOVE,
        "modes": list(population.modes),
        "delta": population.delta,
        "rounds_charged": sum(account.charged for (charged, _), account in accounts if charged == population.name),
        "epsilon_budget": limit,
        "epsilon_spent": spent,
        "epsilon_against_sums": against_sums,
        "epsilon_left": 0.0 if spent is None else max(0.0, limit - spent),
    }


def _jobs(entries: tuple[Entry, ...], names: dict[Any, Any]) -> list[dict[str, Any]]:
    """Each run of a job that charged a population, in the order of its first charge."""
    return [
        {
            "population": population,
            "job": names.get(run, f"unknown, run {run[:16]}"),
            "unit": account.first.unit,
            "mechanism": _words(account.first.event),
            "rounds_charged": account.charged,
            "rounds_sent": len(account.spent),
            "rounds_published": account.published,
            "rounds_reserved": account.open,
            "rounds_released": account.released,
            "delta": account.first.delta,
            "epsilon_alone": epsilon_of([account.first.event] * account.charged, account.first.delta),
        }
        for (population, run), account in accounts_of(entries)
    ]


def _words(event: Event) -> str:
    if isinstance(event, SampledGaussian):
        return f"{event.steps} steps of noise {event.noise_multiplier:g} at rate {event.sampling_rate:g} a round"
    return f"{event.contributors} shares of integer noise, variance {event.share_variance} each"
