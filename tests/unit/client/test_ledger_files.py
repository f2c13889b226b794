"""Is what was charged, accepted and answered still known after a crash, and by one daemon only?"""

from __future__ import annotations

import json
import multiprocessing
import os

import pytest

from lepton_client.journal import Journal, read_lines, write_private
from lepton_client.ledger import FileLedger, derive_run, read_ledger
from lepton_client.records import AcceptedJob, FileRecords, read_jobs
from lepton_core.errors import BudgetRefusal, ConflictError, FaultError, IdentityError, InputError
from lepton_core.ids import Digest, JobId, ModelVersion
from lepton_core.privacy.events import SampledGaussian
from lepton_core.privacy.ledger import ADD_OR_REMOVE, UNIT_RECORD, Charge, ChargeState, spent_events
from lepton_pool.promise import promised_epsilon, round_event, rounds_event
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import JOB_ID, PLAN, FakeClock, Federation, make_job

EVENT = SampledGaussian(4.0, 0.25, 10)


@pytest.fixture
def identity():
    return make_identities(1, "owner")[0]


def charge(number: int = 1, run: str = "1") -> Charge:
    return Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, Digest(run * 64), number, EVENT, 1e-3, PLAN)


def open_ledger(path, identity) -> FileLedger:
    return FileLedger(path, identity, FakeClock())


def test_charges_survive_closing_and_opening(tmp_path, identity) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = open_ledger(path, identity)
    ledger.reserve(charge(1))
    ledger.spend(charge(1))
    ledger.reserve(charge(2))
    before = ledger.head
    ledger.close()
    again = open_ledger(path, identity)
    assert again.head == before
    assert again.charged_rounds(charge().job) == 2
    assert [entry.state for entry in again.entries] == [ChargeState.RESERVED, ChargeState.SPENT, ChargeState.RESERVED]
    assert read_ledger(path, identity.public) == again.entries
    again.close()


def test_a_line_torn_by_a_crash_is_cut_off_and_the_chain_goes_on(tmp_path, identity) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = open_ledger(path, identity)
    ledger.reserve(charge(1))
    ledger.close()
    whole = path.read_bytes()
    ledger = open_ledger(path, identity)
    ledger.reserve(charge(2))  # which tells of round 1, and then reserves
    ledger.close()
    full = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(full) if byte == ord("\n")]
    for cut in range(len(whole) + 1, len(full)):
        path.write_bytes(full[:cut])
        torn = open_ledger(path, identity)
        # What was written together may be torn between its lines: each of them holds alone.
        kept = max(length for length in ends if length <= cut)
        assert len(torn.entries) == ends.index(kept) + 1
        torn.close()
        assert path.read_bytes() == full[:kept]
    path.write_bytes(whole)
    again = open_ledger(path, identity)
    again.reserve(charge(2))
    again.close()
    assert path.read_bytes() == full


def test_a_damaged_whole_line_is_refused_and_not_repaired(tmp_path, identity) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = open_ledger(path, identity)
    ledger.reserve(charge(1))
    ledger.reserve(charge(2))
    ledger.close()
    content = path.read_bytes()
    for damaged in (content.replace(b'"round":2', b'"round":3'), content.split(b"\n", 1)[1], content[:40] + b"\n"):
        path.write_bytes(damaged)
        with pytest.raises((ConflictError, IdentityError, InputError)):
            open_ledger(path, identity)
        assert path.read_bytes() == damaged


def test_a_ledger_of_another_identity_is_refused(tmp_path, identity) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = open_ledger(path, identity)
    ledger.reserve(charge())
    ledger.close()
    with pytest.raises(IdentityError):
        open_ledger(path, make_identities(1, "thief")[0])


def test_a_second_daemon_is_refused_while_the_first_lives(tmp_path, identity) -> None:
    path = tmp_path / "ledger.jsonl"
    first = open_ledger(path, identity)
    with pytest.raises(ConflictError, match="another daemon"):
        open_ledger(path, identity)
    first.close()
    open_ledger(path, identity).close()


def _try_to_open(path, answer) -> None:
    try:
        Journal(path).close()
        answer.put("opened")
    except ConflictError as error:
        answer.put(error.reason)


def test_a_second_process_is_refused_while_the_first_lives(tmp_path) -> None:
    path = tmp_path / "answers.jsonl"
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    with Journal(path):
        other = spawn.Process(target=_try_to_open, args=(path, answer))
        other.start()
        assert answer.get(timeout=30) == "LOCKED"
        other.join(timeout=30)
    answer.close()
    answer.join_thread()


def test_a_round_is_charged_once_and_spent_only_after_it_was_reserved(tmp_path, identity) -> None:
    with open_closing(tmp_path, identity) as ledger:
        with pytest.raises(ConflictError) as unreserved:
            ledger.spend(charge())
        assert unreserved.value.reason == "NOT_RESERVED"
        ledger.reserve(charge())
        with pytest.raises(ConflictError) as twice:
            ledger.reserve(charge())
        assert twice.value.reason == "CHARGED_TWICE"
        ledger.spend(charge())
        with pytest.raises(ConflictError):
            ledger.spend(charge())


def open_closing(tmp_path, identity):
    import contextlib

    return contextlib.closing(open_ledger(tmp_path / "ledger.jsonl", identity))


def test_the_same_job_submitted_again_is_charged_again(tmp_path, identity) -> None:
    job = make_job()
    first, second = derive_run(JobId("job-1"), job), derive_run(JobId("job-2"), job)
    assert first != second
    with open_closing(tmp_path, identity) as ledger:
        for run in (first, second):
            ledger.reserve(Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, 1, EVENT, 1e-3, PLAN))
        assert len(spent_events(ledger.entries, "patients")) == 2


def test_the_budget_holds_over_what_was_charged_in_an_earlier_life(tmp_path, identity) -> None:
    with open_closing(tmp_path, identity) as ledger:
        ledger.require("patients", [EVENT], 1.0, 1e-3)
        for number in range(1, 9):
            ledger.reserve(charge(number))
    with open_closing(tmp_path, identity) as again:
        with pytest.raises(BudgetRefusal) as refused:
            again.require("patients", [EVENT], 1.0, 1e-3)
        assert refused.value.reason == "BUDGET_EXCEEDED"
        again.open("others", "people of another clinic")
        again.require("others", [EVENT], 1.0, 1e-3)


def test_nothing_is_charged_in_memory_that_the_disk_refused(tmp_path, identity, monkeypatch) -> None:
    with open_closing(tmp_path, identity) as ledger:
        ledger.reserve(charge(1))
        before = (tmp_path / "ledger.jsonl").read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(FaultError, match="No space left"):
                ledger.reserve(charge(2))
        assert ledger.charged_rounds(charge().job) == 1
        assert (tmp_path / "ledger.jsonl").read_bytes() == before
        ledger.reserve(charge(2))
        assert ledger.charged_rounds(charge().job) == 2


def test_a_jobs_rounds_compose_to_one_event_of_all_its_steps() -> None:
    job = make_job()
    assert round_event(job) == SampledGaussian(4.0, 0.25, 2)
    assert rounds_event(job, 3) == SampledGaussian(4.0, 0.25, 6)
    assert rounds_event(job, 0) is None
    assert 0 < promised_epsilon(job) < 4.0
    assert round_event(make_job(privacy={"mode": "none", "noise_multiplier": None})) is None


# Records ----------------------------------------------------------------------------------------------------------


def open_records(folder) -> FileRecords:
    return FileRecords(folder / "jobs.jsonl", folder / "answers.jsonl")


def test_the_versions_handed_out_stay_as_they_were_when_another_is_answered_on(tmp_path) -> None:
    records = open_records(tmp_path)
    records.record_answer(JOB_ID, ModelVersion(0), Digest("a" * 64))
    before = records.answered(JOB_ID)
    assert records.answered(JOB_ID) is before
    records.record_answer(JOB_ID, ModelVersion(1), Digest("b" * 64))
    assert (before, records.answered(JOB_ID)) == ({0}, {0, 1})
    records.close()


def test_accepted_and_closed_jobs_and_answers_survive(tmp_path) -> None:
    federation = Federation()
    accepted = AcceptedJob(JOB_ID, federation.job, federation.signed, PLAN)
    records = open_records(tmp_path)
    records.accept(accepted)
    records.accept(AcceptedJob(JobId("job-2"), federation.job, federation.signed, PLAN))
    records.close_job(JobId("job-2"), "finished")
    records.record_answer(JOB_ID, ModelVersion(0), Digest("a" * 64))
    records.record_answer(JOB_ID, ModelVersion(1), Digest("b" * 64))
    records.close()
    again = open_records(tmp_path)
    assert again.jobs()[JOB_ID] == accepted
    assert again.jobs()[JobId("job-2")].closed == "finished"
    assert again.answered(JOB_ID) == {0, 1}
    assert again.answered(JobId("job-2")) == frozenset()
    assert [again.has_answered_on(JOB_ID, Digest(letter * 64)) for letter in "abc"] == [True, True, False]
    for version, model in ((1, "c"), (2, "a")):
        with pytest.raises(ConflictError) as twice:
            again.record_answer(JOB_ID, ModelVersion(version), Digest(model * 64))
        assert twice.value.reason == "ANSWERED_ALREADY"
    again.close()
    assert set(read_jobs(tmp_path / "jobs.jsonl")) == {JOB_ID, "job-2"}


def test_a_daemon_that_has_forgotten_refuses_to_start(tmp_path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"job_id": "job-1"}\n')
    with pytest.raises(InputError, match="cannot be read") as unread:
        open_records(tmp_path)
    assert unread.value.where == f"{tmp_path / 'answers.jsonl'}, line 1"
    (tmp_path / "answers.jsonl").write_text("")
    open_records(tmp_path).close()


def test_a_private_file_is_replaced_whole_and_readable_by_its_owner_only(tmp_path) -> None:
    path = tmp_path / "identity.pem"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FaultError):
        write_private(tmp_path / "nowhere" / "file", b"")


def test_lines_are_read_while_another_process_writes(tmp_path) -> None:
    path = tmp_path / "journal"
    assert read_lines(path) == ()
    with Journal(path) as journal:
        journal.append(json.dumps({"a": 1}).encode(), b"two")
        assert read_lines(path) == (b'{"a": 1}', b"two")
        assert path.stat().st_mode & 0o777 == 0o600
