"""A ledger that was rolled back, cut off or replaced trains no private job, whoever gives back its anchor."""

from __future__ import annotations

import io
import json

import pytest

from lepton_client.anchoring import Anchoring, load_anchor, save_anchor
from lepton_client.exported import export_ledger, verify_home
from lepton_client.ledger import FileLedger, MemoryLedger
from lepton_client.logs import open_log
from lepton_client.preview import preview
from lepton_client.records import FileRecords
from lepton_client.spending import spending
from lepton_client.status import status
from lepton_core.errors import BudgetRefusal, InputError
from lepton_core.ids import Digest
from lepton_core.privacy.anchor import LedgerAnchor, sign_anchor
from lepton_core.privacy.ledger import LedgerHead
from lepton_core.session import JobClosed
from tests.unit.client.owners import JOB_ID, FakeClock, Federation, make_job, make_updates, reports
from tests.unit.client.test_home import make_home
from tests.unit.client.test_ledger_blocks import IDENTITY, charge, opened, train


class Daemon:
    """A ledger in a folder with its anchoring, as a daemon has them, and the log."""

    def __init__(self, folder) -> None:
        self.heard = io.StringIO()
        self.ledger = opened(folder / "ledger.jsonl")
        self.anchoring = Anchoring(self.ledger, folder / "anchor.json", open_log(self.heard))

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.heard.getvalue().splitlines()]

    def is_whole(self) -> bool:
        try:
            self.ledger.require("patients", [], 8.0, 1e-3)
        except BudgetRefusal:
            with pytest.raises(BudgetRefusal, match="lepton privacy restore") as refused:
                self.ledger.reserve(charge(99), rounds=20)
            return refused.value.reason != "LEDGER_BEHIND"
        return True


@pytest.fixture
def anchored(tmp_path) -> LedgerAnchor:
    """What a coordinator keeps after five rounds; the folder has the ledger."""
    ledger = opened(tmp_path / "ledger.jsonl")
    train(ledger, 1, 2, 3, 4, 5)
    anchor = ledger.anchor()
    ledger.close()
    return anchor


def test_a_coordinator_that_knows_less_than_the_ledger_is_no_alarm(tmp_path, anchored) -> None:
    daemon = Daemon(tmp_path)
    older = sign_anchor(daemon.ledger.entries[2].head(), IDENTITY.public, IDENTITY.sign)
    empty = sign_anchor(LedgerHead(0, Digest("0" * 64)), IDENTITY.public, IDENTITY.sign)
    daemon.anchoring.given_back(())
    daemon.anchoring.given_back((older, empty, anchored))
    assert daemon.is_whole()
    assert daemon.log() == []
    assert load_anchor(tmp_path / "anchor.json") == anchored
    daemon.ledger.close()


@pytest.mark.parametrize("how", ["rolled back", "cut at a line", "cut within a line", "emptied", "removed", "another"])
def test_a_ledger_behind_its_anchor_charges_nothing_and_its_file_stays_as_it_was(tmp_path, anchored, how) -> None:
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    match how:
        case "rolled back":
            path.write_bytes(b"".join(lines[:2]))
        case "cut at a line":
            path.write_bytes(b"".join(lines[:-1]))
        case "cut within a line":
            path.write_bytes(b"".join(lines)[:-30])
        case "emptied":
            path.write_bytes(b"")
        case "removed":
            path.unlink()
        case "another":
            path.unlink()
            replaced = opened(path)
            train(replaced, *range(11, 20))
            replaced.close()
    daemon = Daemon(tmp_path)
    assert daemon.is_whole()
    left = path.read_bytes()
    daemon.anchoring.given_back((anchored,))
    assert not daemon.is_whole()
    assert [line["reason"] for line in daemon.log()] == ["LEDGER_BEHIND"]
    assert path.read_bytes() == left
    daemon.ledger.close()
    # The next start knows it without a coordinator; the ledger put back in its place ends it.
    again = Daemon(tmp_path)
    assert not again.is_whole()
    again.ledger.close()
    path.write_bytes(b"".join(lines))
    back = Daemon(tmp_path)
    assert back.is_whole()
    back.ledger.close()


def test_what_the_owner_did_not_sign_is_ignored_with_a_warning(tmp_path, anchored) -> None:
    from tests.protocol.seeded import make_identities

    daemon = Daemon(tmp_path)
    liar = make_identities(1, "liar")[0]
    head = LedgerHead(10**6, Digest("f" * 64))
    named = LedgerAnchor(IDENTITY.public, 10**6, Digest("f" * 64), liar.sign(b"anything"))
    daemon.anchoring.given_back((sign_anchor(head, liar.public, liar.sign), named))
    assert daemon.is_whole()
    assert [(line["level"], line["reason"]) for line in daemon.log()] == [
        ("warning", "UNKNOWN_ANCHOR"),
        ("warning", "BAD_SIGNATURE"),
    ]
    assert not (tmp_path / "anchor.json").exists()
    daemon.ledger.close()


def test_what_is_sent_is_the_newest_place_and_only_if_it_moved(tmp_path, anchored) -> None:
    daemon = Daemon(tmp_path)
    assert daemon.anchoring.moved(-1) == anchored
    assert daemon.anchoring.moved(anchored.sequence) is None
    train(daemon.ledger, 6)
    moved = daemon.anchoring.moved(anchored.sequence)
    moved.require_signed()
    assert moved == daemon.ledger.anchor()
    assert moved.sequence == anchored.sequence + 2  # what may have been under way before the restart, and round 6
    daemon.ledger.close()


def test_an_anchor_that_cannot_be_read_is_told_with_what_to_do(tmp_path) -> None:
    for content in (b"", b"{}", b'{"identity": 3}', b"\xff"):
        (tmp_path / "anchor.json").write_bytes(content)
        with pytest.raises(InputError, match="delete it"):
            load_anchor(tmp_path / "anchor.json")


def test_private_jobs_are_refused_and_others_are_not() -> None:
    federation = Federation(
        jobs={"allow_unprotected": True},
        populations=[
            {
                "name": "patients",
                "mapping": "m",
                "declared_rows": 100,
                "epsilon": 8.0,
                "delta": 1e-3,
                "modes": ["record-local", "none"],
            }
        ],
    )
    owner = federation.first()
    head = LedgerHead(7, Digest("7" * 64))
    assert not owner.ledger.compare(sign_anchor(head, owner.identity.public, owner.identity.sign))
    (answer,) = reports(owner.match(federation.request))
    assert (answer.refusal.code, answer.refusal.reason) == ("refused.budget", "LEDGER_BEHIND")
    owner.participant.handle(JobClosed(JOB_ID, "aborted", ""))
    federation.job = make_job(privacy={"mode": "none", "noise_multiplier": None})
    federation.request = type(federation.request)(JOB_ID, federation.job.canonical(), federation.signed.to_json())
    federation.match_all()
    assert federation.round(1, 0, make_updates(federation)).result is not None


def test_a_ledger_that_falls_behind_while_a_job_runs_leaves_the_job() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    federation.round(1, 0, make_updates(federation))
    owner.ledger.compare(sign_anchor(LedgerHead(9, Digest("9" * 64)), owner.identity.public, owner.identity.sign))
    second = federation.round(2, 1, make_updates(federation))
    assert second.refusals[owner.identity.member].refusal.reason == "LEDGER_BEHIND"
    assert isinstance(owner.ledger, MemoryLedger)
    assert owner.identity.member not in second.trains


def test_an_owner_sees_the_alarm_in_every_view_of_its_folder(tmp_path) -> None:
    federation = Federation()
    home = make_home(tmp_path / "aurora", federation)
    identity = federation.identities[0]
    FileRecords(home.jobs, home.answers).close()
    FileLedger(home.ledger, identity, FakeClock()).close()
    assert status(home.folder)["ledger_alarm"] == spending(home.folder)["ledger_alarm"] == ""
    save_anchor(home.anchor, sign_anchor(LedgerHead(3, Digest("3" * 64)), identity.public, identity.sign))
    for told in (status(home.folder), spending(home.folder)):
        assert "behind its anchor" in told["ledger_alarm"]
        assert "lepton privacy restore" in told["ledger_alarm"]
    for refused in (verify_home, lambda home: export_ledger(home, tmp_path / "copy.json", FakeClock())):
        with pytest.raises(BudgetRefusal) as behind:
            refused(home)
        assert behind.value.reason == "LEDGER_BEHIND"
    from lepton_client.membership import accept
    from tests.unit.client.test_home import write_list

    accept(home, write_list(home, federation.signed), clock=FakeClock())
    assert preview(home.folder, federation.job, FakeClock()).refusal["reason"] == "LEDGER_BEHIND"
