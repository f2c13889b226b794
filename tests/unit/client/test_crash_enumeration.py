"""Wherever an owner's process dies, what left it is charged; each change of its disk is a place to die.

The lives are those of `tests.unit.client.dying`: killed before, within and after each write, sync and folder sync of
ledger, records and answers, by night once as a killed process leaves the disk and once as a power loss does. By day
these take turns from place to place.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from lepton_client.ledger import derive_run
from lepton_core.privacy.ledger import ChargeState, LedgerEntry, accounts_of, parse_line, verify
from tests.lives import told_by
from tests.protocol.seeded import make_identities
from tests.unit.client.dying import JOB, ROUNDS
from tests.unit.client.owners import JOB_ID

#: All the deaths are one fixture's, which a busy machine may need minutes for.
pytestmark = [pytest.mark.timeout(500), pytest.mark.xdist_group("dying")]
RUN = derive_run(JOB_ID, JOB)
PUBLIC = make_identities(3)[0].public
#: All lives together; a bound against a slow growth of the enumeration, not a measurement.
MOST_PROCESSOR_S = 60.0


@pytest.fixture(scope="module", params=["day", pytest.param("night", marks=pytest.mark.nightly)])
def record(request, tmp_path_factory) -> dict:
    """Every life and death, in a process of its own that nobody else has threads in."""
    folder = tmp_path_factory.mktemp("dying")
    told = told_by("tests.unit.client.dying", str(folder), request.param, timeout_s=500)
    return told | {"ways": 2 if request.param == "night" else 1}


def whole_lines(content: str) -> list[LedgerEntry]:
    entries = [parse_line(line.encode()) for line in content.split("\n")[:-1]]
    verify(entries, PUBLIC)
    return entries


def rounds_of(seen: list, kind: str) -> set[int]:
    return {number for what, number, _ in seen if what == kind}


def test_every_change_of_the_disk_is_a_place_where_a_life_ended(record) -> None:
    kinds = record["undisturbed"]["kinds"]
    assert record["undisturbed"]["ended"] == 0
    # Three files are made, a job is accepted and closed; one block, its release, and twice SPENT and an answer.
    assert kinds == ["sync_folder"] * 3 + ["write", "sync"] * 8
    assert len(record["deaths"]) == 2 * record["ways"] * len(kinds) + kinds.count("write")
    assert {(death["ended"][0], death["ended"][1]) for death in record["deaths"]} == {(-9, 0)}
    assert record["torch"] is False
    assert record["processor_s"] < MOST_PROCESSOR_S


def test_what_left_and_what_noise_was_drawn_for_is_charged_at_the_moment_of_death_and_ever_after(record) -> None:
    for death in record["deaths"]:
        first, second = death["seen"]
        for seen, ledger in ((first, death["ledgers"][0]), ([*first, *second], death["ledgers"][1])):
            entries = whole_lines(ledger)
            account = accounts_of(entries).find("patients", RUN)
            noised, sent = rounds_of(seen, "noise"), rounds_of(seen, "InputTrailer")
            if account is None:
                assert not noised, death["place"]
                continue
            # A round that was trained in both lives, as its bytes never left the first, drew noise twice.
            drawn = sum(what == "noise" for what, _, _ in seen)
            assert account.charged >= drawn >= len(noised) >= len(sent), death["place"]
            assert account.spent >= sent, death["place"]


def test_a_crash_costs_one_round_at_most_beyond_those_that_began(record) -> None:
    costs = set()
    for death in record["deaths"]:
        entries = whole_lines(death["ledgers"][1])
        ((_, account),) = accounts_of(entries)
        drawn = sum(what == "noise" for seen in death["seen"] for what, _, _ in seen)
        assert account.open == 0, death["place"]
        costs.add(account.charged - drawn)
        assert account.charged <= drawn + 1, death["place"]
        assert sum(entry.state is ChargeState.LOST and entry.charge.round == 0 for entry in entries) <= 1
    assert costs == {0, 1}


def test_no_round_leaves_twice_with_other_bytes_and_no_model_version_is_answered_twice(record) -> None:
    repeated = 0
    for death in record["deaths"]:
        seen = [*death["seen"][0], *death["seen"][1]]
        inputs, answers = defaultdict(set), defaultdict(set)
        version_of = {number: what for kind, number, what in seen if kind == "noise"}
        for kind, number, what in seen:
            if kind == "InputTrailer":
                inputs[number].add(what)
            if kind == "Unmasking":
                answers[version_of[number]].add(number)
        repeated += len([number for kind, number, _ in death["seen"][1] if kind == "Advert" and number in inputs])
        assert all(len(digests) == 1 for digests in inputs.values()), death["place"]
        assert all(len(numbers) == 1 for numbers in answers.values()), death["place"]
    assert repeated > 0, "the coordinator did ask again for rounds whose bytes had left"


def test_after_a_death_the_job_goes_on_to_its_end(record) -> None:
    for death in record["deaths"]:
        seen = [*death["seen"][0], *death["seen"][1]]
        trained = {what for kind, _, what in seen if kind == "noise"}
        assert trained == {str(version) for version in range(ROUNDS)}, death["place"]
