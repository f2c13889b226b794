"""Transfers whose cable is pulled at any byte, or whose server is killed, go on where they were."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_client import upload_link
from lepton_core.errors import FaultError, PeerViolation
from lepton_core.ids import Digest, JobId, RoundNumber, digest_of
from lepton_protos.channel import CHUNK_BYTES, load_endpoint
from lepton_protos.incoming import partial_of
from lepton_server.store.artifacts import FolderArtifacts
from tests.integration.client.cable import Cable, cuts, require_upload_outlives_its_server, serving, transfers_of

SIZE = 12 * CHUNK_BYTES + 12_345
DEADLINE_S = 40.0
#: Bytes in flight when a fast cable is cut, in sockets and HTTP/2 windows.
LOST_AT_MOST = 6 * CHUNK_BYTES
#: A line on which a chunk takes far longer than a round trip: 0.1 s.
SLOW_BYTES_S = 10 * CHUNK_BYTES
#: TLS, HTTP/2 and what is beside the chunks, for so many of them.
OVERHEAD = 128 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("transfers")
    with serving(place):
        yield place


@pytest.mark.parametrize("number", cuts(3))
async def test_an_upload_cut_at_any_byte_sends_only_what_was_in_flight_again(folder: Path, number: int) -> None:
    payload = random.Random(number).randbytes(SIZE)
    cut_at = random.Random(100 + number).randrange(2_000, SIZE)
    async with (
        Cable(load_endpoint(folder / "client").address, cut_at, upward=True) as cable,
        transfers_of(folder, cable.address) as transfers,
    ):
        job = JobId(f"cut-{number}")
        await transfers.upload(job, RoundNumber(1), payload, digest_of(payload), deadline_s=DEADLINE_S)
    assert cable.cuts == 1
    assert FolderArtifacts(folder / "artifacts").get(digest_of(payload)) == payload
    # What was in the buffers of both ends is lost with the connection: the chunk under way and some behind it.
    assert cable.up <= SIZE + LOST_AT_MOST


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every chunk that an upload hands to gRPC, whether they arrive or not."""
    sizes: list[int] = []
    encode = upload_link.encode_chunk

    def counting(head, data):
        sizes.append(len(data))
        return encode(head, data)

    monkeypatch.setattr(upload_link, "encode_chunk", counting)
    return sizes


@pytest.mark.parametrize("number", cuts(2))
async def test_an_upload_over_a_slow_line_cut_at_any_byte_sends_at_most_one_chunk_again(
    folder: Path, handed_over: list[int], number: int
) -> None:
    payload = random.Random(300 + number).randbytes(5 * CHUNK_BYTES + 4_321)
    cut_at = random.Random(400 + number).randrange(CHUNK_BYTES // 2, len(payload))
    target = load_endpoint(folder / "client").address
    async with (
        Cable(target, cut_at, upward=True, bytes_per_s=SLOW_BYTES_S) as cable,
        transfers_of(folder, cable.address) as transfers,
    ):
        job = JobId(f"slow-{number}")
        await transfers.upload(job, RoundNumber(1), payload, digest_of(payload), deadline_s=DEADLINE_S)
    assert cable.cuts == 1
    assert FolderArtifacts(folder / "artifacts").get(digest_of(payload)) == payload
    assert sum(handed_over) <= len(payload) + CHUNK_BYTES
    assert cable.up <= len(payload) + CHUNK_BYTES + OVERHEAD


@pytest.mark.parametrize("number", cuts(2))
async def test_a_download_cut_at_any_byte_goes_on_where_it_was(folder: Path, number: int) -> None:
    payload = random.Random(10 + number).randbytes(SIZE)
    FolderArtifacts(folder / "artifacts").put(payload)
    cut_at = random.Random(200 + number).randrange(10_000, SIZE)
    async with (
        Cable(load_endpoint(folder / "client").address, cut_at, upward=False) as cable,
        transfers_of(folder, cable.address) as transfers,
    ):
        found = await transfers.download(digest_of(payload), largest=SIZE, deadline_s=DEADLINE_S)
    assert cable.cuts == 1
    assert found == payload
    assert cable.down <= SIZE + LOST_AT_MOST


async def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    await require_upload_outlives_its_server(tmp_path, chunks=48, bulk=False)


async def killed_at(way: str, folder: Path, address: str, file: Path, digest: Digest, growing: Path) -> int:
    """Have a process transfer this file, and kill it when what grows has four chunks; gives the bytes that it has."""
    command = [sys.executable, "-m", "tests.integration.client.transferring", way, str(folder), address]
    process = await asyncio.create_subprocess_exec(*command, str(file), digest)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not growing.exists() or growing.stat().st_size < 4 * CHUNK_BYTES:
                assert process.returncode is None
                await asyncio.sleep(0.01)
    finally:
        process.kill()
        await process.wait()
    assert process.returncode == -signal.SIGKILL
    return growing.stat().st_size


async def test_a_download_to_a_file_goes_on_after_the_client_was_killed(folder: Path, tmp_path: Path) -> None:
    payload = random.Random(77).randbytes(SIZE)
    digest = FolderArtifacts(folder / "artifacts").put(payload)
    target, file = load_endpoint(folder / "client").address, tmp_path / "model"
    async with Cable(target, float("inf"), upward=False, bytes_per_s=SLOW_BYTES_S) as slow:
        kept = await killed_at("down", folder, slow.address, file, digest, partial_of(file, digest))
    async with (
        Cable(target, float("inf"), upward=False) as cable,
        transfers_of(folder, cable.address) as transfers,
    ):
        await transfers.download_to(file, digest, largest=SIZE, deadline_s=DEADLINE_S)
    assert kept >= 4 * CHUNK_BYTES
    assert file.read_bytes() == payload
    assert list(tmp_path.iterdir()) == [file]
    assert cable.down <= SIZE - kept + OVERHEAD


async def test_an_upload_from_a_file_goes_on_after_the_client_was_killed(tmp_path: Path) -> None:
    payload = random.Random(78).randbytes(SIZE)
    file, digest = tmp_path / "model", digest_of(payload)
    file.write_bytes(payload)
    with serving(tmp_path / "server"):
        folder = tmp_path / "server"
        target, partial = load_endpoint(folder / "client").address, folder / "artifacts" / "partial"
        async with Cable(target, float("inf"), upward=True, bytes_per_s=SLOW_BYTES_S) as slow:
            slot = partial / digest_of(f"bench/{digest}".encode())
            kept = await killed_at("up", folder, slow.address, file, digest, slot)
        async with (
            Cable(target, float("inf"), upward=True) as cable,
            transfers_of(folder, cable.address) as transfers,
        ):
            await transfers.upload_from(file, digest, job=JobId("file"), number=RoundNumber(1), deadline_s=DEADLINE_S)
        assert FolderArtifacts(folder / "artifacts").get(digest) == payload
    assert kept >= 4 * CHUNK_BYTES
    assert cable.up <= SIZE - kept + OVERHEAD


async def test_a_download_larger_than_allowed_or_not_there_is_refused(folder: Path) -> None:
    payload = os.urandom(2 * CHUNK_BYTES)
    FolderArtifacts(folder / "artifacts").put(payload)
    async with transfers_of(folder) as transfers:
        with pytest.raises(PeerViolation, match="larger than allowed"):
            await transfers.download(digest_of(payload), largest=len(payload) - 1, deadline_s=DEADLINE_S)


async def test_an_upload_to_nobody_ends_at_its_deadline(tmp_path: Path, folder: Path) -> None:
    del tmp_path
    async with transfers_of(folder, "127.0.0.1:9") as transfers:
        with pytest.raises(FaultError, match="took too long"):
            await transfers.upload(JobId("none"), RoundNumber(1), b"x", Digest("0" * 64), deadline_s=1.0)
