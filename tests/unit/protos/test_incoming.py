"""A download into a file: checked, resumed from what is on disk, and there only when it is whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lepton_core.errors import ConflictError, FaultError, PeerViolation
from lepton_core.ids import Digest, digest_of
from lepton_protos.incoming import IncomingBytes, IncomingFile, partial_of
from lepton_protos.v1.transfer_pb2 import DownloadChunk

CONTENT = bytes(range(256)) * 5_000
DIGEST = digest_of(CONTENT)
LARGEST = len(CONTENT)


def take(incoming: IncomingFile | IncomingBytes, data: bytes, *, size: int = len(CONTENT)) -> None:
    incoming.require_next(DownloadChunk(offset=incoming.length, size=size), len(data), at=incoming.length)
    incoming.write(incoming.length, data)


def test_a_file_appears_when_its_bytes_are_whole_and_not_before(tmp_path: Path):
    path = tmp_path / "model"
    incoming = IncomingFile.open(path, DIGEST, largest=LARGEST)
    take(incoming, CONTENT[:1_000])
    assert stat.S_IMODE(partial_of(path, DIGEST).stat().st_mode) == 0o600
    assert not path.exists()
    take(incoming, CONTENT[1_000:])
    incoming.finish()
    incoming.close()
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_process_left_is_gone_on_with(tmp_path: Path):
    path = tmp_path / "model"
    partial_of(path, DIGEST).write_bytes(CONTENT[:70_000])
    incoming = IncomingFile.open(path, DIGEST, largest=LARGEST)
    assert incoming.length == 70_000
    take(incoming, CONTENT[70_000:])
    incoming.finish()
    incoming.close()
    assert path.read_bytes() == CONTENT


def test_a_left_file_that_was_damaged_is_refused_and_deleted_so_that_the_next_try_begins_anew(tmp_path: Path):
    path = tmp_path / "model"
    partial_of(path, DIGEST).write_bytes(b"x" + CONTENT[1:70_000])
    incoming = IncomingFile.open(path, DIGEST, largest=LARGEST)
    take(incoming, CONTENT[70_000:])
    with pytest.raises(PeerViolation, match="other bytes"):
        incoming.finish()
    incoming.close()
    assert list(tmp_path.iterdir()) == []


def test_a_left_file_larger_than_allowed_is_begun_anew(tmp_path: Path):
    partial_of(tmp_path / "model", DIGEST).write_bytes(bytes(LARGEST + 1))
    incoming = IncomingFile.open(tmp_path / "model", DIGEST, largest=LARGEST)
    assert incoming.length == 0
    incoming.close()


def test_two_downloads_of_one_file_at_once_are_refused(tmp_path: Path):
    first = IncomingFile.open(tmp_path / "model", DIGEST, largest=LARGEST)
    with pytest.raises(ConflictError) as refused:
        IncomingFile.open(tmp_path / "model", DIGEST, largest=LARGEST)
    assert refused.value.reason == "DOWNLOADING"
    first.close()
    IncomingFile.open(tmp_path / "model", DIGEST, largest=LARGEST).close()


def test_a_link_in_the_place_of_the_partial_file_is_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    partial_of(tmp_path / "model", DIGEST).symlink_to(victim)
    with pytest.raises(FaultError):
        IncomingFile.open(tmp_path / "model", DIGEST, largest=LARGEST)
    assert victim.read_bytes() == b"mine"


def test_a_folder_that_is_not_there_is_a_typed_error(tmp_path: Path):
    with pytest.raises(FaultError) as fault:
        IncomingFile.open(tmp_path / "none" / "model", DIGEST, largest=LARGEST)
    assert fault.value.reason == "DISK"


@pytest.mark.parametrize(
    ("chunk", "length"),
    [
        (DownloadChunk(offset=0, size=LARGEST + 1), 1),
        (DownloadChunk(offset=1, size=LARGEST), 1),
        (DownloadChunk(offset=0, size=5), 6),
    ],
)
def test_sizes_and_offsets_are_checked_before_anything_is_kept(tmp_path: Path, chunk: DownloadChunk, length: int):
    incoming = IncomingFile.open(tmp_path / "model", DIGEST, largest=LARGEST)
    for one in (incoming, IncomingBytes(DIGEST, LARGEST)):
        with pytest.raises(PeerViolation) as refused:
            one.require_next(chunk, length, at=0)
        assert refused.value.reason == "BAD_DOWNLOAD"
        assert one.length == 0
    incoming.close()


def test_a_download_in_memory_is_given_only_when_it_is_what_was_asked_for():
    incoming = IncomingBytes(DIGEST, LARGEST)
    take(incoming, CONTENT[:-1])
    with pytest.raises(PeerViolation):
        incoming.whole()
    take(incoming, CONTENT[-1:])
    assert incoming.whole() == CONTENT
    other = IncomingBytes(Digest("0" * 64), LARGEST)
    take(other, os.urandom(10), size=10)
    with pytest.raises(PeerViolation):
        other.whole()
