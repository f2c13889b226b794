"""What is wrong with an owner's numbers, data or files is refused or told, and the ledger stays as it is."""

from __future__ import annotations

import io
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lepton_client.binding import Binding, derive_content, derive_content_key
from lepton_client.exported import verify_home
from lepton_client.home import load_home_policy, load_settings
from lepton_client.ledger import FileLedger
from lepton_client.logs import open_log
from lepton_client.policy import Population
from lepton_client.refusals import leaving
from lepton_client.spending import budgets, spending
from lepton_core.errors import BudgetRefusal, ConflictError, DataError, IdentityError, InputError, SettingsError
from lepton_core.ids import Digest, JobId
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import Replaced
from lepton_core.privacy.ledger import LedgerEntry, spent_events
from lepton_core.session import MatchRequest
from lepton_kg.mapping import Subject
from lepton_pool.promise import promised_epsilon
from tests.unit.client.clinics import ONTOLOGY, make_clinic_job, write_clinic
from tests.unit.client.owners import PLAN, FakeClock, Federation, make_job, make_policy, make_updates
from tests.unit.client.test_home import make_home
from tests.unit.client.test_ledger_blocks import IDENTITY, charge, opened, train


@pytest.mark.parametrize("how", ["first gone", "middle gone", "changed", "swapped", "torn within", "of another"])
def test_a_chain_that_does_not_hold_is_refused_whole_and_its_file_never_rewritten(tmp_path, how) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = opened(path)
    train(ledger, 1, 2, 3)
    ledger.close()
    lines = path.read_bytes().splitlines(keepends=True)
    match how:
        case "first gone":
            lines = lines[1:]
        case "middle gone":
            del lines[2]
        case "changed":
            lines[0] = lines[0].replace(b'"rounds":20', b'"rounds":19')
        case "swapped":
            lines[1], lines[2] = lines[2], lines[1]
        case "torn within":
            lines[1] = lines[1][:40] + b"\n"
        case "of another":
            other = FileLedger(tmp_path / "other.jsonl", Federation().identities[1], FakeClock())
            other.reserve(charge(1))
            other.close()
            lines = (tmp_path / "other.jsonl").read_bytes().splitlines(keepends=True)
    broken = b"".join(lines)
    path.write_bytes(broken)
    for _ in range(2):
        with pytest.raises((ConflictError, IdentityError, InputError)):
            opened(path)
        assert path.read_bytes() == broken


def test_a_second_daemon_changes_nothing_and_the_first_goes_on(tmp_path) -> None:
    path = tmp_path / "ledger.jsonl"
    first = opened(path)
    train(first, 1)
    before = path.read_bytes()
    with pytest.raises(ConflictError) as second:
        opened(path)
    assert second.value.reason == "LOCKED"
    assert path.read_bytes() == before
    train(first, 2)
    first.close()
    assert len(opened(path).entries) == 3


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("epsilon = 0.0", "epsilon"),
        ("epsilon = -1.0", "epsilon"),
        ("epsilon = nan", "epsilon"),
        ("epsilon = inf", "epsilon"),
        ("delta = 0.0", "delta"),
        ("delta = -1e-3", "delta"),
        ("delta = 1.0", "delta"),
        ("delta = 0.01", "delta must be below one over declared_rows, 0.01"),
        ("delta = 0.5", "try 1e-3"),
    ],
)
def test_a_budget_that_promises_nothing_is_refused_with_what_to_do(tmp_path, written, told) -> None:
    home = make_home(tmp_path / "aurora", Federation())
    ledger = FileLedger(home.ledger, Federation().identities[0], FakeClock())
    ledger.reserve(charge(1), rounds=20)
    ledger.close()
    before = home.ledger.read_bytes()
    policy = home.folder / "policy.toml"
    name = written.split(" ")[0]
    policy.write_text(
        "\n".join(written if line.startswith(f"{name} =") else line for line in policy.read_text().splitlines())
    )
    for refused in (lambda: load_home_policy(home, load_settings(home)), lambda: spending(home.folder)):
        with pytest.raises(SettingsError) as error:
            refused()
        assert told in str(error.value)
    assert home.ledger.read_bytes() == before
    verify_home(home)


# Content ----------------------------------------------------------------------------------------------------------


async def prepared(folder, population: Population, unit: str = "record"):
    async def fetch(_):
        return ONTOLOGY.canonical

    heard = io.StringIO()
    binding = Binding(
        folder,
        folder / "ontology",
        fetch,
        open_log(heard),
        identity=IDENTITY.public,
        content_key=derive_content_key(IDENTITY),
    )
    job = make_clinic_job()
    job = job.model_copy(update={"privacy": job.privacy.model_copy(update={"unit": unit})})
    rows = await binding.prepare(job, population)
    return rows, [json.loads(line) for line in heard.getvalue().splitlines()]


def declared(rows: int, delta: float = 1e-3) -> Population:
    return Population(name="patients", mapping="mapping.yaml", declared_rows=rows, epsilon=8.0, delta=delta)


async def test_rows_that_shrank_are_refused_in_words_for_the_owner_and_one_word_for_all_others(tmp_path) -> None:
    write_clinic(tmp_path)
    before, quiet = await prepared(tmp_path, declared(60))
    data = tmp_path / "data.csv"
    whole = data.read_text().splitlines(keepends=True)
    data.write_text("".join(whole[:45]))  # a night's load
    after, told = await prepared(tmp_path, declared(60))
    assert before.content != after.content
    assert (before.plan, len(before.content)) == (after.plan, 64)
    assert [line["event"] for line in (*quiet, *told)] == ["data prepared"] * 2
    data.write_text("".join(whole[:20]))
    with pytest.raises(DataError) as refused:
        await prepared(tmp_path, declared(60))
    assert "far fewer rows than the policy declares" in str(refused.value)
    assert "what was spent stays spent" in refused.value.hint
    assert "19" not in str(refused.value), "never the number itself"
    outside = leaving(refused.value, make_clinic_job())
    assert (outside.code, outside.reason, outside.subject) == ("data", "DATA_UNUSABLE", "")


async def test_a_delta_that_is_not_below_one_over_the_rows_is_refused_and_far_more_rows_are_told(tmp_path) -> None:
    write_clinic(tmp_path)
    with pytest.raises(DataError, match="delta is not below one over the rows"):
        await prepared(tmp_path, declared(40, delta=0.02))
    _, told = await prepared(tmp_path, declared(20))
    (warning,) = [line for line in told if line["level"] == "warning"]
    assert "far more rows" in warning["event"]
    assert set(warning) == {"event", "level", "timestamp", "population", "declared_rows"}, "never the number itself"


async def test_subjects_that_are_others_have_another_digest_and_far_fewer_are_refused(tmp_path) -> None:
    write_clinic(tmp_path, subject=Subject(column="fall"))
    population = declared(60).model_copy(update={"declared_subjects": 20})
    before, quiet = await prepared(tmp_path, population, "subject")
    assert [line["event"] for line in quiet] == ["data prepared"]
    assert before.content != (await prepared(tmp_path, population))[0].content
    # The same rows, of one person less; then of two alone.
    data = tmp_path / "data.csv"
    whole = data.read_text()
    data.write_text(whole.replace("P3;", "P4;"))
    joined, quiet = await prepared(tmp_path, population, "subject")
    assert np.array_equal(before.features, joined.features)
    assert before.content != joined.content
    assert [line["event"] for line in quiet] == ["data prepared"]
    data.write_text(re.sub(r"P(1[0-9]|[2-9]);", "P1;", whole))
    with pytest.raises(DataError, match="far fewer subjects"):
        await prepared(tmp_path, population, "subject")


async def test_the_digest_of_the_rows_says_nothing_to_who_lacks_the_key(tmp_path) -> None:
    write_clinic(tmp_path)
    rows, _ = await prepared(tmp_path, declared(60))
    other = derive_content(b"another key", rows.features, rows.target)
    assert derive_content(derive_content_key(IDENTITY), rows.features, rows.target) == rows.content != other
    assert derive_content(b"k", rows.features[::-1], rows.target) != derive_content(b"k", rows.features, rows.target)


def test_changed_content_inherits_what_is_spent() -> None:
    federation = Federation()
    owner = federation.first()
    participant = owner.participant
    participant.handle(federation.request)
    participant.matched(federation.request.job, PLAN, "a" * 64)
    for other in list(federation.owners.values())[1:]:
        other.match(federation.request)
    federation.round(1, 0, make_updates(federation))
    owner.restart()
    owner.participant.resume()
    owner.participant.matched(federation.request.job, PLAN, "b" * 64)  # the nightly load
    federation.round(2, 1, make_updates(federation))
    contents = [entry.charge.content[:1] for entry in owner.ledger.entries if isinstance(entry, LedgerEntry)]
    assert contents[0] == "a"
    assert contents[-1] == "b"
    assert len(spent_events(owner.ledger.entries, "patients")) == 3


# Two jobs at once -------------------------------------------------------------------------------------------------


def test_two_jobs_on_one_population_never_overspend_it_together_however_their_steps_fall() -> None:
    """All ways in which asking, preparing and the first two rounds of two jobs can fall; each would fit alone."""
    limit = 1.2 * promised_epsilon(make_job(training={"rounds": 12}))
    outcomes = set()
    for order in sorted(set(itertools.permutations("aaabbb"))):
        federation = Federation(
            populations=[{"name": "patients", "mapping": "m", "declared_rows": 100, "epsilon": limit, "delta": 1e-3}]
        )
        owner = federation.first()
        jobs = {
            letter: make_job(name=f"race-{letter}", training={"rounds": 12}, privacy={"epsilon": limit})
            for letter in "ab"
        }
        steps = dict.fromkeys("ab", 0)
        for letter in order:
            job_id = JobId(f"race-{letter}")
            if steps[letter] == 0:
                request = MatchRequest(job_id, jobs[letter].canonical(), federation.signed.to_json())
                owner.participant.handle(request)
            elif steps[letter] == 1:
                owner.participant.matched(job_id, PLAN)
            elif job_id in owner.records.jobs():
                consent, accepted = owner.participant._consent, owner.records.jobs()[job_id]
                for number in range(1, 13):
                    charged = consent.reserve(accepted, number, consent.population(accepted.job))
                    owner.ledger.spend(charged)
                    owner.ledger.publish(charged.job, number)
            steps[letter] += 1
            assert epsilon_of(spent_events(owner.ledger.entries, "patients"), 1e-3) <= limit
        known = tuple(sorted(owner.records.jobs()))
        assert len(known) == 1, order
        outcomes |= set(known)
    assert outcomes == {"race-a", "race-b"}


# Units ------------------------------------------------------------------------------------------------------------


def test_what_a_population_was_charged_for_members_counts_for_its_records_and_never_the_other_way_round(
    tmp_path,
) -> None:
    ledger = opened(tmp_path / "ledger.jsonl")
    event = charge(1).event
    for number in (1, 2):
        ledger.require("patients", [event], 8.0, 1e-3, unit="member")
        ledger.reserve(replace(charge(number), unit="member"), rounds=1)
        ledger.spend(replace(charge(number), unit="member"))
    (told,) = budgets(make_policy(), ledger.entries)
    assert (told["unit"], told["rounds_charged"]) == ("record", 2)
    assert told["epsilon_spent"] == epsilon_of([Replaced(event)] * 2, 1e-3)
    ledger.require("patients", [event], 8.0, 1e-3)
    ledger.reserve(charge(1, job=Digest("b" * 64)), rounds=1)
    with pytest.raises(BudgetRefusal) as refused:
        ledger.require("patients", [event], 8.0, 1e-3, unit="member")
    assert refused.value.reason == "RECORD_CHARGES"
    ledger.close()
