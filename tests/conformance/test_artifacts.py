"""Both artifact stores behave alike, and the one on disk survives what disks do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

import pytest

from lepton_core.errors import FaultError, InputError, NotFoundError
from lepton_core.ids import Digest, digest_of
from lepton_core.ports import SystemClock
from lepton_server.store import growing
from lepton_server.store.artifacts import FolderArtifacts, MemoryArtifacts, Spool

DATA = bytes(range(256)) * 17
DIGEST = digest_of(DATA)
SLOT = digest_of(b"aurora" + DATA)
ABSENT = Digest("0" * 64)


@pytest.fixture(params=["memory", "folder"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    """An empty artifact store."""
    return MemoryArtifacts() if request.param == "memory" else FolderArtifacts(tmp_path / "artifacts")


def test_bytes_come_back_by_their_digest(artifacts: Spool) -> None:
    assert artifacts.put(DATA) == artifacts.put(DATA) == DIGEST
    assert artifacts.has(DIGEST)
    assert artifacts.get(DIGEST) == DATA
    assert artifacts.size(DIGEST) == len(DATA)
    assert artifacts.read_at(DIGEST, 4_000, 1_000) == DATA[4_000:]
    assert artifacts.put(b"") == digest_of(b"")


def test_what_is_not_there_is_not_found(artifacts: Spool) -> None:
    assert not artifacts.has(ABSENT)
    with pytest.raises(NotFoundError):
        artifacts.get(ABSENT)
    with pytest.raises(NotFoundError):
        artifacts.size(ABSENT)
    with pytest.raises(NotFoundError):
        artifacts.read_at(ABSENT, 0, 1)
    artifacts.delete(ABSENT)


def test_deleted_bytes_are_gone(artifacts: Spool) -> None:
    artifacts.delete(artifacts.put(DATA))
    assert not artifacts.has(DIGEST)


def test_an_upload_in_pieces_becomes_an_artifact_at_its_end_only(artifacts: Spool) -> None:
    artifacts.write_at(SLOT, 0, DATA[:1_000])
    assert artifacts.received(SLOT) == 1_000
    assert not artifacts.has(DIGEST)
    artifacts.write_at(SLOT, 1_000, DATA[1_000:])
    artifacts.finish(SLOT, DIGEST, len(DATA))
    assert artifacts.get(DIGEST) == DATA
    assert artifacts.received(SLOT) == 0


def test_a_piece_sent_again_replaces_what_lay_there_and_behind(artifacts: Spool) -> None:
    artifacts.write_at(SLOT, 0, b"x" * 2_000)
    artifacts.write_at(SLOT, 500, DATA[500:700])
    assert artifacts.received(SLOT) == 700
    artifacts.write_at(SLOT, 0, DATA)
    artifacts.finish(SLOT, DIGEST, len(DATA))
    assert artifacts.get(DIGEST) == DATA


@pytest.mark.parametrize("offset", [-1, 11])
def test_a_piece_that_leaves_a_gap_is_refused(artifacts: Spool, offset: int) -> None:
    artifacts.write_at(SLOT, 0, bytes(10))
    with pytest.raises(InputError, match="gap"):
        artifacts.write_at(SLOT, offset, b"later")
    assert artifacts.received(SLOT) == 10


def test_an_upload_of_another_length_is_refused_and_forgotten(artifacts: Spool) -> None:
    artifacts.write_at(SLOT, 0, DATA[:-1])
    with pytest.raises(InputError, match="length"):
        artifacts.finish(SLOT, DIGEST, len(DATA))
    assert artifacts.received(SLOT) == 0
    assert not artifacts.has(DIGEST)


def test_an_upload_of_another_hash_is_refused_and_forgotten(artifacts: Spool) -> None:
    artifacts.write_at(SLOT, 0, DATA[:-1] + b"\x00")
    with pytest.raises(InputError, match="hash"):
        artifacts.finish(SLOT, DIGEST, len(DATA))
    assert artifacts.received(SLOT) == 0
    assert not artifacts.has(DIGEST)


def test_an_empty_upload_is_an_artifact_too(artifacts: Spool) -> None:
    artifacts.finish(SLOT, digest_of(b""), 0)
    assert artifacts.get(digest_of(b"")) == b""


def test_a_discarded_upload_is_forgotten(artifacts: Spool) -> None:
    artifacts.write_at(SLOT, 0, DATA)
    artifacts.discard(SLOT)
    artifacts.discard(SLOT)
    assert artifacts.received(SLOT) == 0


def test_uploads_and_artifacts_survive_a_restart(tmp_path: Path) -> None:
    before = FolderArtifacts(tmp_path)
    before.put(b"whole")
    before.write_at(SLOT, 0, DATA[:100])

    after = FolderArtifacts(tmp_path)
    assert after.get(digest_of(b"whole")) == b"whole"
    assert after.received(SLOT) == 100


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "", "0" * 63, "0" * 64 + "/"])
def test_only_digests_become_paths(tmp_path: Path, name: str) -> None:
    artifacts = FolderArtifacts(tmp_path)
    for call in (artifacts.get, artifacts.has, artifacts.delete, artifacts.size, artifacts.received):
        with pytest.raises(InputError):
            call(Digest(name))
    with pytest.raises(InputError):
        artifacts.write_at(Digest(name), 0, b"x")


def test_bytes_that_changed_on_disk_are_never_given_out(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path)
    digest = artifacts.put(DATA)
    (tmp_path / digest[:2] / digest).write_bytes(DATA[::-1])
    with pytest.raises(FaultError, match="changed on disk"):
        artifacts.get(digest)


def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FaultError, match="artifacts folder"):
        FolderArtifacts(tmp_path / "file" / "artifacts")


def test_old_unfinished_uploads_are_swept_and_young_ones_kept(tmp_path: Path) -> None:
    class Later:
        def __init__(self, by: float) -> None:
            self.by = by

        def now(self) -> float:
            return (tmp_path / "partial" / SLOT).stat().st_mtime + self.by

    artifacts = FolderArtifacts(tmp_path)
    artifacts.write_at(SLOT, 0, DATA)
    assert artifacts.sweep(Later(59.0), older_than_s=60.0) == 0
    assert artifacts.received(SLOT) == len(DATA)
    assert artifacts.sweep(Later(61.0), older_than_s=60.0) == 1
    assert artifacts.received(SLOT) == 0


def test_a_folder_that_came_back_without_its_empty_shelves_takes_artifacts_again(tmp_path: Path) -> None:
    first = FolderArtifacts(tmp_path)
    first.put(DATA)
    for shelf in tmp_path.iterdir():
        if shelf.name not in {"partial", DIGEST[:2]}:
            shelf.rmdir()
    again = FolderArtifacts(tmp_path)
    assert again.get(DIGEST) == DATA
    assert all(again.has(again.put(bytes([number]))) for number in range(32))


def test_an_upload_that_rests_or_has_lost_its_file_goes_on_without_a_gap(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path)
    artifacts.write_at(SLOT, 0, DATA[:100])
    artifacts.rest(SLOT)
    artifacts.rest(DIGEST)
    artifacts.write_at(SLOT, 100, DATA[100:200])
    artifacts.rest(SLOT)
    (tmp_path / "partial" / SLOT).unlink()
    with pytest.raises(InputError, match="gap"):
        artifacts.write_at(SLOT, 200, DATA[200:])
    assert artifacts.received(SLOT) == 0
    artifacts.write_at(SLOT, 0, DATA)
    artifacts.finish(SLOT, DIGEST, len(DATA))
    assert artifacts.get(DIGEST) == DATA


def test_only_uploads_under_way_hold_their_files_open(tmp_path: Path) -> None:
    def open_files() -> int:
        return sum(str(tmp_path) in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())

    artifacts = FolderArtifacts(tmp_path)
    slots = [digest_of(bytes([number])) for number in range(3)]
    for slot in slots:
        artifacts.write_at(slot, 0, DATA)
    assert open_files() == 3
    artifacts.rest(slots[0])
    artifacts.finish(slots[1], DIGEST, len(DATA))
    artifacts.discard(slots[2])
    assert open_files() == 0


def test_what_is_there_can_be_claimed(artifacts: Spool) -> None:
    artifacts.put(DATA)
    assert artifacts.claim(DIGEST)
    assert not artifacts.claim(ABSENT)


def test_a_sweep_takes_old_artifacts_that_are_not_named_and_not_claimed(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path)
    named, claimed, put, uploaded, unnamed = contents = [bytes([number]) * 9 for number in range(5)]
    for content in contents:
        artifacts.put(content)
    artifacts.write_at(SLOT, 0, DATA)
    for path in (*tmp_path.glob("??/*"), tmp_path / "partial" / SLOT):
        os.utime(path, (0.0, 0.0))
    foreign = tmp_path / "00" / "an operator's note"
    foreign.write_bytes(b"")
    os.utime(foreign, (0.0, 0.0))
    names = frozenset({digest_of(named)})

    assert artifacts.claim(digest_of(claimed))
    artifacts.put(put)
    artifacts.finish(SLOT, DIGEST, len(DATA))
    artifacts.delete(digest_of(uploaded))
    artifacts.write_at(SLOT, 0, uploaded)
    artifacts.finish(SLOT, digest_of(uploaded), len(uploaded))
    assert artifacts.sweep_unnamed(names, SystemClock(), older_than_s=86_400.0) == 1
    assert not artifacts.claim(digest_of(unnamed))
    assert all(artifacts.has(digest_of(kept)) for kept in (named, claimed, put, uploaded, DATA))
    assert foreign.exists()


def test_of_two_threads_that_write_one_slot_one_waits_so_that_what_is_hashed_is_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = FolderArtifacts(tmp_path / "artifacts")
    inside, go_on, write_all = Event(), Event(), growing.write_all

    def slow(descriptor: int, data: bytes, offset: int) -> None:
        if data == b"x" * 10:
            inside.set()
            assert go_on.wait(10.0)
        write_all(descriptor, data, offset)

    monkeypatch.setattr(growing, "write_all", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(artifacts.write_at, SLOT, 0, b"x" * 10)
        assert inside.wait(10.0)
        second = threads.submit(artifacts.write_at, SLOT, 0, DATA)
        assert wait([second], timeout=0.1).not_done
        go_on.set()
        first.result()
        second.result()
    artifacts.finish(SLOT, DIGEST, len(DATA))
    assert artifacts.get(DIGEST) == DATA
