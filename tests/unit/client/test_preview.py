"""What an owner is shown before a job is asked of it is what its daemon would say, and nothing is written."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from lepton_admin.submission import resolve_offline
from lepton_client.home import Home
from lepton_client.ledger import CopiedLedger, FileLedger, derive_run
from lepton_client.pausing import pause
from lepton_client.preview import preview
from lepton_client.records import AcceptedJob, FileRecords
from lepton_client.spending import spending
from lepton_core.errors import ConflictError, InputError, SettingsError
from lepton_core.identity import fingerprint
from lepton_core.ids import JobId
from lepton_core.privacy.ledger import ADD_OR_REMOVE, UNIT_RECORD, Charge
from lepton_pool.promise import epsilon_after, epsilon_if_all_collude, promised_epsilon, round_event
from tests.unit.client.owners import (
    PLAN,
    VOCABULARY,
    FakeClock,
    Federation,
    make_distributed_job,
    make_job,
    make_list,
)
from tests.unit.client.test_home import make_home


@pytest.fixture
def federation() -> Federation:
    return Federation()


@pytest.fixture
def home(tmp_path, federation) -> Home:
    home = make_home(tmp_path / "aurora", federation)
    home.membership.write_bytes(federation.signed.to_json())
    return home


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_job_that_would_be_let_in_is_told_with_what_leaves_and_to_whom(home, federation) -> None:
    before = contents(home.folder)
    told = preview(home.folder, federation.job, FakeClock())
    assert contents(home.folder) == before
    assert told.refusal is None
    assert told.epsilon_of_job == promised_epsilon(federation.job) == told.epsilon_after > told.epsilon_spent == 0.0
    assert told.epsilon_budget == 8.0
    assert told.rounds == federation.job.training.rounds
    assert told.most_unpublished == 3
    assert told.epsilon_at_most == epsilon_after(federation.job, told.rounds + 3) > told.epsilon_of_job
    assert told.payload_bytes == federation.setup().terms.payload_bytes
    assert {mark for _, mark in told.peers} == {fingerprint(key.public) for key in federation.identities}
    assert told.concepts == tuple(VOCABULARY + name for name in ("radius", "texture", "area", "diagnosis"))
    json.dumps(asdict(told))


def test_what_is_spent_and_what_other_jobs_may_still_spend_count(home, federation) -> None:
    other = make_job(name="other", training={"rounds": 40}, privacy={"noise_multiplier": 0.8, "epsilon": 99.0})
    records = FileRecords(home.jobs, home.answers)
    records.accept(AcceptedJob(JobId("other-1"), other, federation.signed, PLAN))
    records.close()
    ledger = FileLedger(home.ledger, federation.identities[0], FakeClock())
    run = derive_run(JobId("other-1"), other)
    ledger.reserve(Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, 1, round_event(other), 1e-3, PLAN))
    ledger.close()
    small = make_job(privacy={"noise_multiplier": 1.3, "epsilon": 7.9})
    told = preview(home.folder, small, FakeClock())
    assert 0 < told.epsilon_spent < told.epsilon_after <= 8.0  # it would fit beside what is spent
    assert told.refusal is not None
    assert told.refusal["reason"] == "BUDGET_EXCEEDED"  # and not beside the rest of the other job


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"purpose": "marketing"}, "PURPOSE"),
        ({"model": {"kind": "mlp"}}, "MODEL"),
        ({"population": "others"}, "POPULATION"),
        ({"privacy": {"mode": "none", "noise_multiplier": None}}, "UNPROTECTED"),
        ({"privacy": {"noise_multiplier": 0.4, "epsilon": 1.0}}, "NOISE_TOO_LOW"),
    ],
)
def test_what_the_daemon_would_refuse_is_refused_here_with_all_its_words(home, federation, changes, reason) -> None:
    told = preview(home.folder, make_job(**changes), FakeClock())
    assert told.refusal is not None
    assert told.refusal["reason"] == reason
    assert told.refusal["message"]


def test_a_job_for_subjects_is_told_with_what_it_costs_a_subject_and_a_record(home, federation) -> None:
    job = make_job(privacy={"unit": "subject"})
    assert preview(home.folder, job, FakeClock()).refusal["reason"] == "UNIT"
    policy = home.folder / "policy.toml"
    policy.write_text(
        policy.read_text().replace(
            "declared_rows = 100\n", "declared_rows = 100\ndeclared_subjects = 40\nsubject_epsilon = 5.0\n"
        )
    )
    told = preview(home.folder, job, FakeClock())
    assert (told.refusal, told.unit, told.epsilon_budget, told.record_epsilon_budget) == (None, "subject", 5.0, 8.0)
    assert told.epsilon_after == told.epsilon_of_job < told.record_epsilon_after
    before = [(one["unit"], one["epsilon_spent"]) for one in spending(home.folder)["populations"]]
    assert before == [("record", 0.0), ("subject", 0.0)]
    # What was charged for records has no bound for subjects, and is told so.
    ledger = FileLedger(home.ledger, federation.identities[0], FakeClock())
    run = derive_run(JobId("other-1"), federation.job)
    ledger.reserve(Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, 1, round_event(federation.job), 1e-3, PLAN))
    ledger.close()
    told = preview(home.folder, job, FakeClock())
    assert (told.refusal["reason"], told.epsilon_spent, told.epsilon_after) == ("RECORD_CHARGES", None, None)
    record, subject = spending(home.folder)["populations"]
    assert record["epsilon_spent"] > 0.0
    assert (subject["epsilon_spent"], subject["epsilon_left"], subject["rounds_charged"]) == (None, 0.0, 1)


def test_a_paused_client_and_one_without_a_list_say_so(home, federation) -> None:
    home.membership.unlink()
    assert preview(home.folder, federation.job, FakeClock()).refusal["reason"] == "NO_ACCEPTED_LIST"
    pause(home, "", FakeClock())
    assert preview(home.folder, federation.job, FakeClock()).refusal["reason"] == "PAUSED"


def test_an_owner_who_is_not_on_the_list_is_told(home, federation) -> None:
    others = make_list(federation.identities[1:], federation.key)
    home.membership.write_bytes(others.to_json())
    assert preview(home.folder, federation.job, FakeClock()).refusal["reason"] == "NOT_LISTED"


def test_a_copy_of_a_ledger_takes_no_charge(federation) -> None:
    copy = CopiedLedger(federation.identities[0], FakeClock(), ())
    run = derive_run(JobId("other-1"), federation.job)
    charge = Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, 1, round_event(federation.job), 1e-3, PLAN)
    with pytest.raises(ConflictError, match="copy"):
        copy.reserve(charge)
    assert copy.entries == ()


JOB_FILE = f"""
name = "small"
[task]
ontology = "hospitals"
vocabulary = "{VOCABULARY}"
features = [{{ concept = "radius" }}]
target = {{ concept = "diagnosis", positive = "malignant" }}
[model]
kind = "logistic"
[training]
rounds = 4
[privacy]
epsilon = 2.0
[aggregation]
min_cohort = 3
bytes_per_parameter = 16.0
"""


def test_a_job_file_is_resolved_as_far_as_it_goes_by_itself(home, tmp_path) -> None:
    (tmp_path / "job.toml").write_text(JOB_FILE)
    job = resolve_offline(tmp_path / "job.toml")
    assert 0 < promised_epsilon(job) <= 2.0
    assert preview(home.folder, job, FakeClock()).refusal is None
    (tmp_path / "job.json").write_bytes(job.canonical())
    assert resolve_offline(tmp_path / "job.json") == job


def test_what_is_no_job_is_refused(tmp_path) -> None:
    (tmp_path / "job.toml").write_text(JOB_FILE + "no_such_key = 1\n")
    with pytest.raises(SettingsError, match="no_such_key"):
        resolve_offline(tmp_path / "job.toml")
    with pytest.raises(InputError):
        resolve_offline(tmp_path / "missing.toml")
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises((InputError, SettingsError)):
        resolve_offline(tmp_path / "job.json")


def test_noise_in_shares_is_told_with_whom_it_needs_and_what_is_left_without_them(home) -> None:
    job = make_distributed_job(privacy={"colluders": 1})
    told = preview(home.folder, job, FakeClock())
    assert (told.noise_contributors, told.colluders_tolerated) == (4, 1)
    assert told.epsilon_if_all_collude == epsilon_if_all_collude(job, 3) > told.epsilon_of_job > 0
    assert told.refusal is not None
    assert told.refusal["reason"] == "MODE"  # no owner takes part in a mode that its policy does not name


def test_the_epsilon_told_is_at_the_delta_that_is_told(home, federation) -> None:
    told = preview(home.folder, make_job(privacy={"delta": 1e-5}), FakeClock())
    assert told.delta == 1e-3
    assert told.epsilon_of_job < promised_epsilon(make_job(privacy={"delta": 1e-5}))
