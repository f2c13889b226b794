"""The real `lepton demo`, once: what it finds, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal

import pytest

from lepton_admin.cli.main import run
from lepton_client.home import Home, load_identity
from lepton_kg.approval import require_signed
from lepton_kg.mapping import parse_mapping
from tests.e2e.conftest import ROUNDS
from tests.e2e.live import Live

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("demo")]
HOSPITALS = ["aurora", "birken", "changhe", "delta-clinic", "elm-park"]


def test_every_round_is_completed_by_five_owners_and_the_sixth_is_refused_with_its_reason(demo):
    result = demo.result
    assert result["rounds_completed"] == ROUNDS
    assert [owner["name"] for owner in result["owners"]] == HOSPITALS
    assert result["refused"] == [
        {
            "name": "fjord",
            "reason": "MISSING_CONCEPT",
            "subject": "https://example.org/hospitals/worst-concave-points",
        }
    ]
    # 398 patients less those with a planted fault.
    assert sum(owner["rows"] + owner["rows_refused"] for owner in result["owners"]) == 398
    assert sum(owner["rows_refused"] for owner in result["owners"]) == 9


def test_the_model_has_learnt_within_the_promised_privacy(demo):
    result = demo.result
    # So few rounds rank patients well, long before they are on the right side of a half.
    assert result["auc_federated"] >= 0.85
    assert (result["mode"], result["unit"], result["delta"]) == ("record-distributed", "record", 1e-4)
    for owner in result["owners"]:
        # An aborted round may have been paid for, and so is the one that a process may have died in.
        wasted = result["rounds_aborted"] + (owner["name"] == "changhe")
        assert 0 < owner["rounds_charged"] <= ROUNDS + wasted
        # A promise holds for the planned rounds, and every further one costs less than an even part of it.
        assert 0 < owner["epsilon"] <= max(1, owner["rounds_charged"] / ROUNDS)
    assert result["epsilon"] == max(owner["epsilon"] for owner in result["owners"])
    assert result["epsilon"] < result["epsilon_if_all_collude"] < 3
    assert 0 < result["epsilon_record_local"] <= 1
    # Noise moves accuracy by many points at so few patients, and ranks by few; one site alone may learn nothing.
    assert result["auc_pooled"] >= 0.9
    assert result["accuracy_pooled"] >= 0.75
    assert result["auc_record_local"] >= 0.75
    assert all(0 <= owner["accuracy_alone"] <= 1 for owner in result["owners"])


def test_every_mapping_is_signed_by_its_owner_and_every_owner_can_look_at_its_data(demo):
    for name in (*HOSPITALS, "fjord"):
        mapping = parse_mapping((demo.folder / "data" / name / "mapping.yaml").read_text("utf-8"), source=name)
        require_signed(mapping, load_identity(Home(demo.folder / "owners" / name)).public)
        page = demo.folder / "owners" / name / "quality.html"
        assert page.stat().st_mode & 0o777 == 0o600
        assert mapping.columns[0].column in page.read_text("utf-8")
    assert demo.result["quality"] == str(demo.folder / "owners" / "changhe" / "quality.html")


def test_the_member_that_lost_power_was_taken_out_of_the_sum_exactly_and_came_back(demo, lepton):
    result = demo.result
    lost = result["lost"]
    # One kill: the round that ran, and the next one where that had its keys already, whose secrets are as lost.
    assert result["dropped_and_recovered"] == len(lost)
    assert [one["round"] for one in lost] in ([lost[0]["round"]], [lost[0]["round"], lost[0]["round"] + 1])
    assert result["pair_masks_reconstructed"] == 4 * len(lost)
    for one in lost:
        assert (one["owner"], one["step"]) == ("changhe", "input")
        assert one["survivors"] == [name for name in HOSPITALS if name != "changhe"]
        # Its mask with each of the four others was rebuilt and taken off.
        assert one["pair_masks_reconstructed"] == 4
        assert one["came_back_in_round"] > lost[-1]["round"]

        code, view, _ = lepton("round", "show", result["job"], one["round"], "--profile", demo.folder / "researcher")
        assert code == 0
        assert view["state"] == "completed"
        assert [member["owner"] for member in view["dropped"]] == ["changhe"]
        back = lepton(
            "round", "show", result["job"], one["came_back_in_round"], "--profile", demo.folder / "researcher"
        )
        assert "changhe" in back[1]["survivors"]


def test_a_member_uploads_at_most_eleven_tenths_of_a_byte_a_parameter(demo, lepton):
    result = demo.result
    assert 0 < result["bytes_per_parameter_up"] <= 1.1
    code, view, _ = lepton("job", "show", result["job"], "--profile", demo.folder / "researcher")
    assert code == 0
    payloads = {entry["payload_bytes"] for entry in view["rounds"]}
    assert payloads == {round(result["bytes_per_parameter_up"] * result["model_parameters"])}
    assert result["protocol_message_bytes"] == sum(entry["message_bytes"] for entry in view["rounds"]) > 0


def test_a_jobs_page_states_what_its_members_moved_and_what_encoding_cost(demo, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["job", "show", demo.result["job"], "--profile", str(demo.folder / "researcher")]) == 0
    page = capsys.readouterr().out
    table = page[page.index("what a member moves") :].splitlines()
    for column in ("up", "down", "bits a parameter", "clipped", "error of the mean", "E of a member"):
        assert column in table[2] + table[1]
    assert sum("expected" in line for line in table) >= ROUNDS


def test_the_times_are_told(demo):
    assert 0 < demo.result["seconds_first_round"] < demo.result["seconds_total"]


def test_the_coordinator_holds_neither_federation_key_nor_any_owners_key(demo):
    names = {path.name for path in (demo.folder / "coordinator").rglob("*")}
    assert not names & {"federation.pem", "identity.pem"}
    federation_key = (demo.folder / "researcher" / "federation" / "federation.pem").read_bytes()
    holders = [path for path in (demo.folder / "coordinator").rglob("*") if path.is_file()]
    assert not [path for path in holders if federation_key.strip() in path.read_bytes()]


def test_no_private_key_or_invitation_can_be_read_by_others(demo):
    secrets = [
        path
        for path in demo.folder.rglob("*")
        if path.is_file() and (path.suffix == ".pem" and b"PRIVATE KEY" in path.read_bytes())
    ]
    secrets += list((demo.folder / "invitations").iterdir())
    assert len(secrets) > 20
    assert [str(path) for path in secrets if path.stat().st_mode & 0o077] == []


def test_seven_processes_run_and_each_owner_is_one_of_its_own(demo):
    running = demo.offspring()
    assert len([line for line in running if "client run" in line]) == 6
    assert len([line for line in running if "coordinator serve" in line]) == 1


# SIGTERM unwinds as Ctrl-C does, which ends the demo of the other tests and must leave nothing, too.
# By day it is sent while little runs yet.
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGTERM, "enrolling six hospitals"),
        pytest.param(signal.SIGTERM, "starting six daemons", marks=pytest.mark.nightly),
        (signal.SIGKILL, "starting six daemons"),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.split()[0],
)
def test_nothing_is_left_of_a_demo_that_is_ended_early(tmp_path, number, told):
    live = Live(tmp_path, "demo", "--folder", str(tmp_path / "folder"))
    try:
        live.wait_for(told, 120.0)
        assert len(live.offspring()) > 1
        live.process.send_signal(number)
        code = live.process.wait(30)
        live.wait_until_nothing_is_left()
        assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    finally:
        if live.process.poll() is None:
            os.killpg(live.process.pid, signal.SIGKILL)


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path, lepton):
    (tmp_path / "thesis.txt").write_text("three years")
    code, answer, error = lepton("demo", "--folder", tmp_path)
    assert (code, answer, error["code"]) == (5, None, "conflict")
    assert json.dumps(error["where"]) == json.dumps(str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "three years"
