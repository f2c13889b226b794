"""A population's budgets, one for each unit that its owner keeps a promise to, asked together.

What is charged for subjects costs records too, and what is charged for records has no bound for a subject
(`lepton_core.privacy.units`). So a job for subjects must fit both budgets, and a population with a budget for subjects
takes no other jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from lepton_client.ledger import Ledger
from lepton_client.policy import Population
from lepton_core.privacy.events import Event
from lepton_core.privacy.units import Unit, event_for

#: What would be done to a population, and for which unit it would be charged.
Asked = tuple[Unit, Event]


def require_budgets(ledger: Ledger, population: Population, asked: Sequence[Asked]) -> None:
    """Refuse what does not fit every budget of the population with everything charged before, composed.

    Raises:
        BudgetRefusal: one would be overspent; or RECORD_CHARGES.
    """
    for unit, limit in population.budgets.items():
        events = [event_for(unit, charged_for, event) for charged_for, event in asked]
        ledger.require(population.name, events, limit, population.delta, unit=unit)
