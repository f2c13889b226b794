"""Wrong input to a federation that runs: each a typed error that says what, where, expected, got and what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from lepton_admin.demo.processes import free_port

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("demo")]


@pytest.fixture
def researcher(demo):
    return demo.folder / "researcher"


@pytest.fixture
def operator(demo):
    return demo.folder / "coordinator" / "operator"


@pytest.fixture(autouse=True)
def coordinator_stays_healthy(demo, operator, lepton):
    yield
    code, health, _ = lepton("coordinator", "health", "--profile", operator)
    assert (code, health["ready"], health["problems"], health["connected_members"]) == (0, True, [], 6)


def job_file(demo, tmp_path, *changes: tuple[str, str]):
    """The demo's job, changed; the paths of its evaluation set kept right."""
    text = (demo.folder / "data" / "job.toml").read_text("utf-8")
    data = (demo.folder / "data").as_posix()
    changes = (*changes, ('"holdout.csv"', f'"{data}/holdout.csv"'), ('"holdout.yaml"', f'"{data}/holdout.yaml"'))
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text, count=1)
        assert count == 1, pattern
    (tmp_path / "job.toml").write_text(text, encoding="utf-8")
    return tmp_path / "job.toml"


@pytest.fixture
def invitation(operator, lepton, tmp_path):
    """A fresh invitation for an owner, as a file and as a document."""
    file = tmp_path / "gamma.invitation"
    code, answer, _ = lepton("owner", "invite", "gamma", "--file", file, "--profile", operator)
    assert (code, answer["name"]) == (0, "gamma")
    return file, json.loads(file.read_text("utf-8"))


def test_an_invitation_is_written_for_its_reader_alone_and_never_overwritten(invitation, operator, lepton):
    file, document = invitation
    assert file.stat().st_mode & 0o777 == 0o600
    code, _, error = lepton("owner", "invite", "gamma", "--file", file, "--profile", operator)
    assert (code, error["code"]) == (5, "conflict")
    assert json.loads(file.read_text("utf-8")) == document


def test_a_wrong_token_does_not_enrol(invitation, lepton, tmp_path):
    file, document = invitation
    file.write_text(json.dumps(document | {"token": "A" * len(document["token"])}), encoding="utf-8")
    code, _, error = lepton("client", "enrol", file, tmp_path / "gamma")
    assert (code, error["code"]) == (6, "identity")
    assert {"message", "hint"} <= set(error)
    assert document["token"] not in json.dumps(error)
    assert not (tmp_path / "gamma" / "tls" / "cert.pem").exists()


def test_an_invitation_works_once(invitation, lepton, tmp_path):
    file, _ = invitation
    assert lepton("client", "enrol", file, tmp_path / "one")[0] == 0
    code, _, error = lepton("client", "enrol", file, tmp_path / "two")
    assert (code, error["code"]) == (6, "identity")


def test_another_ca_than_the_pinned_one_is_refused(invitation, lepton, tmp_path):
    file, document = invitation
    file.write_text(json.dumps(document | {"ca_fingerprint": "00" * 32}), encoding="utf-8")
    code, _, error = lepton("client", "enrol", file, tmp_path / "gamma")
    assert (code, error["code"], error["reason"]) == (6, "identity", "WRONG_CA")
    assert error["expected"] == "00" * 32


def test_a_coordinator_of_another_ca_is_not_talked_to(demo, lepton, tmp_path):
    other = tmp_path / "other"
    assert lepton("coordinator", "init", other, "--listen", f"127.0.0.1:{free_port()}", "--host", "127.0.0.1")[0] == 0
    profile = shutil.copytree(demo.folder / "researcher", tmp_path / "profile")
    shutil.copy(other / "operator" / "ca.pem", profile / "ca.pem")
    code, _, error = lepton("job", "list", "--profile", profile)
    assert (code, error["code"]) == (6, "identity")


def test_a_daemon_with_another_owners_certificate_is_turned_away(demo, tmp_path):
    home = shutil.copytree(demo.folder / "owners" / "aurora", tmp_path / "impostor", symlinks=True)
    shutil.rmtree(home / "tls")
    shutil.copytree(demo.folder / "owners" / "birken" / "tls", home / "tls")
    ended = subprocess.run(
        [sys.executable, "-m", "lepton_admin.cli.main", "client", "run", str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 6, ended.stderr
    assert "error: identity" in ended.stderr


def test_a_second_daemon_in_one_folder_is_refused(demo):
    ended = subprocess.run(
        [sys.executable, "-m", "lepton_admin.cli.main", "client", "run", str(demo.folder / "owners" / "aurora")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 5, ended.stderr
    assert "error: conflict" in ended.stderr


def test_an_owner_may_not_do_what_the_operator_may(demo, lepton):
    code, _, error = lepton("owner", "list", "--profile", demo.folder / "owners" / "aurora")
    assert (code, error["code"]) == (6, "identity")


def test_an_unknown_concept_is_named_with_the_nearest_one(demo, researcher, lepton, tmp_path):
    file = job_file(demo, tmp_path, ('concept = "mean-radius"', 'concept = "mean-radios"'))
    code, _, error = lepton("job", "submit", file, "--profile", researcher)
    assert (code, error["code"], error["reason"]) == (3, "job", "UNKNOWN_CONCEPT")
    assert "mean-radios" in error["where"] + error.get("got", "")
    assert "mean-radius" in error["hint"]


def test_a_unit_that_cannot_convert_is_told_with_its_concept(demo, researcher, lepton, tmp_path):
    file = job_file(demo, tmp_path, ('concept = "mean-area"', 'concept = "mean-area", unit = "mg/dL"'))
    code, _, error = lepton("job", "submit", file, "--profile", researcher)
    assert (code, error["reason"]) == (3, "UNIT_MISMATCH")
    assert error["where"].endswith("mean-area")
    assert {"expected", "got"} <= set(error)


def test_every_wrong_key_of_a_job_file_is_told_at_once(demo, researcher, lepton, tmp_path):
    changes = (("expected_rows", "expected_row"), ("min_cohort = 4", "min_cohort = 1"))
    code, _, error = lepton("job", "submit", job_file(demo, tmp_path, *changes), "--profile", researcher)
    assert (code, error["code"]) == (3, "settings")
    assert "did you mean 'expected_rows'" in error["got"]
    assert "aggregation.min_cohort" in error["got"]


def test_an_ontology_that_nobody_published_is_not_found(demo, researcher, lepton, tmp_path):
    file = job_file(demo, tmp_path, ('ontology = "[0-9a-f]{64}"', 'ontology = "birds"'))
    code, _, error = lepton("job", "submit", file, "--profile", researcher)
    assert (code, error["code"], error["got"]) == (5, "not-found", "birds")
    assert error["expected"] == "hospitals"


def test_a_missing_job_file_is_told_with_what_lies_beside(demo, researcher, lepton):
    code, _, error = lepton("job", "submit", demo.folder / "data" / "jop.toml", "--profile", researcher)
    assert (code, error["code"]) == (3, "input")
    assert error["where"] == str(demo.folder / "data" / "jop.toml")
    assert "job.toml" in error["got"]


def test_a_job_over_the_owners_budget_is_refused_by_every_owner_and_fails(demo, researcher, lepton, tmp_path):
    file = job_file(demo, tmp_path, (r"epsilon = 1\.0", "epsilon = 1.65"), ("rounds = 100", "rounds = 2"))
    code, answer, error = lepton("job", "submit", file, "--profile", researcher)
    assert code == 0, error
    code, _, error = lepton("job", "watch", answer["job"], "--profile", researcher)
    view = lepton("job", "show", answer["job"], "--profile", researcher)[1]
    assert (code, view["state"], view["model_version"], view["rounds"]) == (9, "failed", 0, [])
    refusals = {owner["owner"]: owner["code"] for owner in view["owners"]}
    assert refusals.pop("fjord") == "refused.match"
    assert refusals == dict.fromkeys(["aurora", "birken", "changhe", "delta-clinic", "elm-park"], "refused.budget")


def test_a_purpose_that_no_policy_allows_is_refused_with_the_policys_key(demo, researcher, lepton, tmp_path):
    file = job_file(demo, tmp_path, ('purpose = "research"', 'purpose = "marketing"'))
    answer = lepton("job", "submit", file, "--profile", researcher)[1]
    assert lepton("job", "watch", answer["job"], "--profile", researcher)[0] == 9
    view = lepton("job", "show", answer["job"], "--profile", researcher)[1]
    assert {(owner["reason"], owner["subject"]) for owner in view["owners"]} == {("PURPOSE", "policy.jobs.purposes")}


def test_an_unknown_job_round_or_model_is_not_found(demo, researcher, lepton, tmp_path):
    job = demo.result["job"]
    for words in (
        ("job", "show", "no-such-job"),
        ("job", "watch", "no-such-job"),
        ("round", "show", job, "999"),
        ("model", "list", "no-such-job"),
        ("model", "export", job, "--version", "999", "--file", tmp_path / "m.safetensors"),
    ):
        code, _, error = lepton(*words, "--profile", researcher)
        assert (code, error["code"]) == (5, "not-found"), words
    assert not (tmp_path / "m.safetensors").exists()


def test_a_job_that_has_ended_cannot_be_aborted(demo, researcher, lepton):
    job = demo.result["job"]
    code, _, error = lepton("job", "abort", job, "--reason", "too late", "--profile", researcher)
    assert (code, error["code"]) == (5, "conflict")
    assert lepton("job", "show", job, "--profile", researcher)[1]["state"] == "finished"


def test_a_port_in_use_is_a_typed_error(demo, lepton, tmp_path):
    address = (demo.folder / "coordinator" / "address").read_text("utf-8").strip()
    home = tmp_path / "second"
    assert lepton("coordinator", "init", home, "--listen", address, "--host", "127.0.0.1")[0] == 0
    ended = subprocess.run(
        [sys.executable, "-m", "lepton_admin.cli.main", "coordinator", "serve", str(home), "--output", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"LEPTON_DEBUG": "0"},
    )
    assert ended.returncode == 8, ended.stderr
    error = json.loads(ended.stderr.strip().splitlines()[-1])
    assert error["code"] == "fault"
    assert address.rpartition(":")[2] in json.dumps(error)


def test_a_coordinator_that_does_not_run_cannot_be_reached(demo, lepton, tmp_path):
    profile = shutil.copytree(demo.folder / "researcher", tmp_path / "profile")
    (profile / "address").write_text(f"127.0.0.1:{free_port()}\n", encoding="utf-8")
    code, _, error = lepton("job", "list", "--profile", profile)
    assert (code, error["code"]) == (8, "fault")
    assert error["hint"]
