"""A new name in the policy is no new budget; another population of other people is opened in writing."""

from __future__ import annotations

import json

import pytest

from lepton_admin.cli.main import run
from lepton_client.ledger import FileLedger, MemoryLedger
from lepton_client.opened import known_populations, open_population
from lepton_client.spending import spending
from lepton_core.errors import BudgetRefusal, ConflictError, InputError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest
from lepton_core.ports import SystemRandomness
from lepton_core.privacy.events import SampledGaussian
from lepton_core.privacy.ledger import (
    ADD_OR_REMOVE,
    EMPTY,
    UNIT_RECORD,
    Charge,
    ChargeState,
    Opening,
    append,
    parse_line,
    verify,
)
from lepton_core.privacy.ledger import (
    open_population as opening_after,
)
from tests.unit.client.owners import PLAN, FakeClock, Federation
from tests.unit.client.test_home import make_home

EVENT = SampledGaussian(4.0, 0.25, 10)
KEY = IdentityKey.generate(SystemRandomness())


def charge(population: str, number: int = 1) -> Charge:
    return Charge(population, UNIT_RECORD, ADD_OR_REMOVE, Digest("1" * 64), number, EVENT, 1e-3, PLAN)


@pytest.fixture
def home(tmp_path):
    """A client whose ledger was charged for `patients`, and whose policy names `outpatients` as well."""
    federation = Federation()
    home = make_home(tmp_path / "aurora", federation)
    policy = home.folder / "policy.toml"
    text = policy.read_text()
    start = text.index("[[populations]]")
    end = text.find("\n[", start + 1)
    section = text[start:end]
    policy.write_text(text[:end] + "\n" + section.replace('"patients"', '"outpatients"') + text[end:])
    ledger = FileLedger(home.ledger, federation.identities[0], FakeClock())
    ledger.reserve(charge("patients"))
    ledger.spend(charge("patients"))
    ledger.close()
    return home


def test_the_first_population_needs_no_words_and_a_renamed_one_is_refused_before_and_at_the_charge() -> None:
    ledger = MemoryLedger(KEY, FakeClock())
    ledger.require("patients", [EVENT], 8.0, 1e-3)
    ledger.reserve(charge("patients"))
    for act in (
        lambda: ledger.require("patients-2026", [EVENT], 8.0, 1e-3),
        lambda: ledger.reserve(charge("patients-2026")),
    ):
        with pytest.raises(BudgetRefusal) as refused:
            act()
        assert refused.value.reason == "NEW_POPULATION"
        assert "patients" in refused.value.expected
        assert "lepton privacy open" in refused.value.hint
    assert len(ledger.entries) == 1


def test_an_opened_population_has_a_budget_of_its_own_and_the_others_keep_what_they_spent() -> None:
    ledger = MemoryLedger(KEY, FakeClock())
    ledger.reserve(charge("patients"), rounds=8)
    opening = ledger.open("outpatients", "another clinic")
    assert (opening.population, opening.disjoint_from, opening.reason) == (
        "outpatients",
        ("patients",),
        "another clinic",
    )
    ledger.require("outpatients", [EVENT], 1.0, 1e-3)
    ledger.reserve(charge("outpatients"))
    with pytest.raises(BudgetRefusal) as refused:
        ledger.require("patients", [EVENT], 1.0, 1e-3)
    assert refused.value.reason == "BUDGET_EXCEEDED"
    with pytest.raises(ConflictError) as twice:
        ledger.open("outpatients", "once more")
    assert twice.value.reason == "KNOWN_POPULATION"
    # It is in the chain, signed, and read back.
    assert verify(ledger.entries, KEY.public) == ledger.head
    assert [parse_line(entry.to_line()) for entry in ledger.entries] == list(ledger.entries)
    with pytest.raises(ConflictError, match="chain is broken"):
        verify([ledger.entries[0], *ledger.entries[2:]], KEY.public)


@pytest.mark.parametrize("known", [(), ("others",), ("others", "patients")])
def test_an_opening_that_hides_or_invents_what_was_charged_before_does_not_hold(known) -> None:
    first = append(EMPTY, charge("patients"), ChargeState.RESERVED, time=1.0, sign=KEY.sign)
    forged = opening_after(first.head(), "outpatients", known, reason="x", time=2.0, sign=KEY.sign)
    with pytest.raises(ConflictError) as refused:
        verify([first, forged], KEY.public)
    assert refused.value.reason == "OUT_OF_ORDER"


@pytest.mark.parametrize(("name", "reason"), [("patients", "x"), ("", "x"), ("others", " "), ("others", "x" * 501)])
def test_an_opening_without_a_name_or_a_reason_is_none(name, reason) -> None:
    with pytest.raises(InputError):
        opening_after(EMPTY, name, ("patients",), reason=reason, time=1.0, sign=KEY.sign)


def test_the_owner_opens_what_the_policy_names_and_sees_it_with_its_reason(home) -> None:
    assert known_populations(home.folder) == ["patients"]
    with pytest.raises(InputError) as unknown:
        open_population(home.folder, "outpatient", "another clinic", FakeClock())
    assert "did you mean outpatients?" in unknown.value.hint
    before = home.ledger.read_bytes()
    opening = open_population(home.folder, "outpatients", "another clinic", FakeClock())
    assert home.ledger.read_bytes() == before + opening.to_line()
    assert isinstance(parse_line(home.ledger.read_bytes().splitlines()[-1]), Opening)
    told = spending(home.folder)
    assert [(one["population"], one["disjoint_from"], one["reason"]) for one in told["openings"]] == [
        ("outpatients", ["patients"], "another clinic")
    ]
    assert {one["population"]: one["rounds_charged"] for one in told["populations"]} == {
        "patients": 1,
        "outpatients": 0,
    }


def test_the_command_asks_for_the_declaration_in_words(home, capsys) -> None:
    words = ["privacy", "open", str(home.folder), "outpatients", "--reason", "another clinic", "--output", "json"]
    before = home.ledger.read_bytes()
    assert run(words) == 3
    assert "none of the people of patients" in json.loads(capsys.readouterr().err)["expected"]
    assert home.ledger.read_bytes() == before
    assert run([*words, "--disjoint"]) == 0
    assert json.loads(capsys.readouterr().out)["disjoint_from"] == ["patients"]
