"""Transfers whose cable is pulled at any byte, or whose server is killed, go on where they were."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from lepton_client.transfer_link import Transfers
from lepton_core.errors import FaultError, PeerViolation
from lepton_core.ids import Digest, JobId, RoundNumber, digest_of
from lepton_protos.channel import CHUNK_BYTES, load_endpoint, open_aio_channel
from lepton_server.store.artifacts import FolderArtifacts

SIZE = 12 * CHUNK_BYTES + 12_345
DEADLINE_S = 40.0
#: Bytes in flight when a cable is cut, in sockets and HTTP/2 windows.
LOST_AT_MOST = 6 * CHUNK_BYTES


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The production servicer and artifact folder, in a process of its own that shows the same certificate again."""
    (folder / "ready").unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.transfer_server", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 30.0
            while not (folder / "ready").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.kill()


class Cable:
    """A TCP relay that is cut when so many bytes have gone one way; pulled out once, it is put back at once."""

    def __init__(self, target: str, cut_at: int, *, upward: bool) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._left = cut_at
        self._upward = upward
        self._open: set[asyncio.Task[None]] = set()
        self.cuts = 0
        #: Bytes that went up and down.
        self.up = self.down = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        ways = [
            asyncio.create_task(self._carry(reader, up_writer, upward=True)),
            asyncio.create_task(self._carry(up_reader, writer, upward=False)),
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, up_writer):
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        self._open.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        while data := await reader.read(2**16):
            if upward == self._upward and not self.cuts:
                if len(data) >= self._left:
                    self.cuts += 1
                    writer.write(data[: self._left])
                    await writer.drain()
                    return
                self._left -= len(data)
            if upward:
                self.up += len(data)
            else:
                self.down += len(data)
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def transfers_of(folder: Path, address: str | None = None) -> AsyncIterator[Transfers]:
    endpoint = load_endpoint(folder / "client")
    channel = open_aio_channel(endpoint if address is None else replace(endpoint, address=address))
    try:
        yield Transfers(channel)
    finally:
        await channel.close(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("transfers")
    with serving(place):
        yield place


@pytest.mark.parametrize("number", range(6))
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


@pytest.mark.parametrize("number", range(3))
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
    payload = os.urandom(48 * CHUNK_BYTES)
    job, digest = JobId("killed"), digest_of(payload)
    with serving(tmp_path) as first:
        async with transfers_of(tmp_path) as transfers:
            uploading = asyncio.create_task(
                transfers.upload(job, RoundNumber(1), payload, digest, deadline_s=DEADLINE_S)
            )
            partial = tmp_path / "artifacts" / "partial"
            while not any(file.stat().st_size > 4 * CHUNK_BYTES for file in partial.iterdir()):
                assert not uploading.done()
                await asyncio.sleep(0)
            first.send_signal(signal.SIGKILL)
            first.wait()
            kept = max(file.stat().st_size for file in partial.iterdir())
            with serving(tmp_path):
                await uploading
    assert kept >= 4 * CHUNK_BYTES
    assert FolderArtifacts(tmp_path / "artifacts").get(digest) == payload


async def test_several_uploads_at_once_all_arrive(folder: Path) -> None:
    payloads = [random.Random(50 + number).randbytes(3 * CHUNK_BYTES + number) for number in range(12)]
    async with transfers_of(folder) as transfers:
        await asyncio.gather(
            *(
                transfers.upload(JobId(f"many-{n}"), RoundNumber(1), one, digest_of(one), deadline_s=DEADLINE_S)
                for n, one in enumerate(payloads)
            )
        )
    for one in payloads:
        assert FolderArtifacts(folder / "artifacts").get(digest_of(one)) == one


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
