"""What was not sent is kept whole, for the open job it belongs to, wherever the process is killed."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_client.residuals import FileResiduals, Kept, Mark, MemoryResiduals, Residuals, Slot
from lepton_core.errors import FaultError, InputError
from lepton_core.ids import JobId, ModelVersion, RoundNumber

JOB, OTHER = JobId("job-1"), JobId("job-2")


def kept_of(number: int, version: int | None = None) -> Kept:
    generator = np.random.default_rng(number)
    mark = Mark(RoundNumber(number), ModelVersion(number - 1 if version is None else version), bytes([number]) * 32)
    words = generator.integers(0, 2**63, 5, dtype=np.uint64)
    return Kept(mark, words, generator.standard_normal(1000).astype(np.float32))


def assert_same(found: Kept, expected: Kept) -> None:
    assert found.mark == expected.mark
    assert np.array_equal(found.words, expected.words)
    assert np.array_equal(found.residual, expected.residual)


@pytest.fixture(params=["memory", "files"])
def residuals(request: pytest.FixtureRequest, tmp_path: Path) -> Residuals:
    return MemoryResiduals() if request.param == "memory" else FileResiduals(tmp_path / "residuals", ())


# Both stores ------------------------------------------------------------------------------------------------------


def test_what_is_staged_is_pending_and_what_has_counted_is_settled(residuals: Residuals) -> None:
    assert residuals.mark(JOB, Slot.PENDING) is None
    residuals.stage(JOB, kept_of(1))
    assert residuals.mark(JOB, Slot.PENDING) == kept_of(1).mark
    assert residuals.mark(JOB, Slot.SETTLED) is None
    assert_same(residuals.read(JOB, Slot.PENDING), kept_of(1))
    residuals.settle(JOB)
    assert residuals.mark(JOB, Slot.PENDING) is None
    assert_same(residuals.read(JOB, Slot.SETTLED), kept_of(1))
    residuals.stage(JOB, kept_of(2))
    assert_same(residuals.read(JOB, Slot.SETTLED), kept_of(1))
    residuals.settle(JOB)
    assert_same(residuals.read(JOB, Slot.SETTLED), kept_of(2))


def test_what_did_not_count_leaves_what_was_settled_as_it_was(residuals: Residuals) -> None:
    residuals.stage(JOB, kept_of(1))
    residuals.settle(JOB)
    residuals.stage(JOB, kept_of(2))
    residuals.drop(JOB)
    residuals.settle(JOB)
    residuals.drop(JOB)
    assert residuals.mark(JOB, Slot.PENDING) is None
    assert_same(residuals.read(JOB, Slot.SETTLED), kept_of(1))


def test_a_later_attempt_takes_the_place_of_an_earlier_one(residuals: Residuals) -> None:
    residuals.stage(JOB, kept_of(1))
    residuals.stage(JOB, kept_of(2, version=0))
    assert_same(residuals.read(JOB, Slot.PENDING), kept_of(2, version=0))


def test_a_job_that_is_over_leaves_nothing_and_no_other_job_loses_anything(residuals: Residuals) -> None:
    for job in (JOB, OTHER):
        residuals.stage(job, kept_of(1))
        residuals.settle(job)
        residuals.stage(job, kept_of(2))
    residuals.forget(JOB)
    residuals.forget(JOB)
    assert [residuals.mark(JOB, slot) for slot in Slot] == [None, None]
    with pytest.raises(InputError, match="no residual"):
        residuals.read(JOB, Slot.SETTLED)
    assert_same(residuals.read(OTHER, Slot.SETTLED), kept_of(1))
    assert_same(residuals.read(OTHER, Slot.PENDING), kept_of(2))


# Files ------------------------------------------------------------------------------------------------------------


def test_files_are_the_owners_alone_and_outlive_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "residuals"
    residuals = FileResiduals(folder, ())
    residuals.stage(JOB, kept_of(1))
    residuals.settle(JOB)
    residuals.stage(JOB, kept_of(2))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "job-1.settled": 0o600,
        "job-1.pending": 0o600,
    }
    again = FileResiduals(folder, [JOB])
    assert_same(again.read(JOB, Slot.SETTLED), kept_of(1))
    assert_same(again.read(JOB, Slot.PENDING), kept_of(2))


def test_what_belongs_to_no_open_job_or_was_never_finished_is_deleted_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "residuals"
    residuals = FileResiduals(folder, ())
    for job in (JOB, OTHER):
        residuals.stage(job, kept_of(1))
        residuals.settle(job)
    (folder / ".job-1.pending.4711").write_bytes(b"half a file")
    FileResiduals(folder, [OTHER])
    assert [path.name for path in folder.iterdir()] == ["job-2.settled"]


@pytest.mark.parametrize("place", [0, 25, 60, 500, -1])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, place: int) -> None:
    residuals = FileResiduals(tmp_path / "residuals", ())
    residuals.stage(JOB, kept_of(1))
    path = tmp_path / "residuals" / "job-1.pending"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="delete it") as refused:
        residuals.read(JOB, Slot.PENDING)
    assert refused.value.reason == "RESIDUAL_UNREADABLE"


def test_a_file_that_is_cut_or_another_jobs_is_refused(tmp_path: Path) -> None:
    residuals = FileResiduals(tmp_path / "residuals", ())
    residuals.stage(JOB, kept_of(1))
    path = tmp_path / "residuals" / "job-1.pending"
    whole = path.read_bytes()
    for bad in (b"", whole[:10], whole[:40], whole[:-1], whole + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="cannot be read"):
            residuals.read(JOB, Slot.PENDING)
    (tmp_path / "residuals" / "job-2.pending").write_bytes(whole)
    with pytest.raises(InputError, match="cannot be read"):
        residuals.mark(OTHER, Slot.PENDING)


def test_a_name_that_is_no_job_id_reaches_no_file(tmp_path: Path) -> None:
    residuals = FileResiduals(tmp_path / "residuals", ())
    with pytest.raises(InputError, match="job id"):
        residuals.stage(JobId("../identity"), kept_of(1))


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "residuals").write_text("a file")
    with pytest.raises(FaultError, match="free space"):
        FileResiduals(tmp_path / "residuals", ())


def test_what_is_kept_is_not_shown() -> None:
    assert repr(kept_of(1)) == f"Kept({kept_of(1).mark!r}, 5 words, 1000 values)"


# Killed -----------------------------------------------------------------------------------------------------------


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Do the work in a process of its own that SIGKILL ends before its `step`-th file operation; False if it ended.

    CPython tells its audit hooks of each opening, renaming and removing before it happens.
    """
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _: tuple[object, ...]) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.remove"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_file_operation_leaves_the_residual_of_before_or_of_after(tmp_path: Path) -> None:
    seen: list[tuple[int | None, int | None]] = []
    step = 0
    while True:
        folder = tmp_path / f"{step}"
        residuals = FileResiduals(folder, ())
        residuals.stage(JOB, kept_of(1))
        residuals.settle(JOB)

        def work(residuals: FileResiduals = residuals) -> None:
            residuals.stage(JOB, kept_of(2))
            residuals.settle(JOB)

        killed = killed_at(step, work)
        after = FileResiduals(folder, [JOB])
        marks = {slot: after.mark(JOB, slot) for slot in Slot}
        for slot, mark in marks.items():
            if mark is not None:
                assert_same(after.read(JOB, slot), kept_of(mark.round))
        rounds = [mark.round if mark is not None else None for mark in (marks[Slot.SETTLED], marks[Slot.PENDING])]
        seen.append((rounds[0], rounds[1]))
        if not killed:
            break
        step += 1
    assert seen == sorted(seen, key=[(1, None), (1, 2), (2, None)].index), "forward only, through nothing else"
    assert set(seen) == {(1, None), (1, 2), (2, None)}
    assert len(seen) >= 5


def test_a_kill_while_a_job_ends_deletes_both_or_leaves_them_to_the_next_start(tmp_path: Path) -> None:
    for step in range(2):
        folder = tmp_path / f"{step}"
        residuals = FileResiduals(folder, ())
        residuals.stage(JOB, kept_of(1))
        residuals.settle(JOB)
        residuals.stage(JOB, kept_of(2))
        assert killed_at(step, lambda residuals=residuals: residuals.forget(JOB))
        FileResiduals(folder, ())
        assert not list(folder.iterdir())
