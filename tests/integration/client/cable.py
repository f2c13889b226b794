"""A serving process of its own, and a cable to it that can be slow and can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from lepton_client.patience import QUIET_S
from lepton_client.transfer_link import Transfers
from lepton_core.ids import JobId, RoundNumber, digest_of
from lepton_protos.channel import CHUNK_BYTES, load_endpoint, open_aio_channel
from lepton_server.store.artifacts import FolderArtifacts

#: A question to a server that died may hang for 30 s before it is asked again, and the next one has to start.
RESTART_DEADLINE_S = 120.0


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
    """A TCP relay that is cut when so many bytes have gone one way; pulled out once, it is put back at once.

    With `bytes_per_s`, no more than so many go through in a second, each way.
    """

    def __init__(self, target: str, cut_at: float, *, upward: bool, bytes_per_s: float = float("inf")) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._left = cut_at
        self._bytes_per_s = bytes_per_s
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
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        ends, ways = [writer], []
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
            ends.append(up_writer)
            ways = [
                asyncio.create_task(self._carry(reader, up_writer, upward=True)),
                asyncio.create_task(self._carry(up_reader, writer, upward=False)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the server is gone, or the cable is taken away
        finally:
            for way in ways:
                way.cancel()
            for end in ends:  # whatever comes in between, no socket stays open
                end.transport.abort()
            self._open.discard(task)
        await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        free_s = 0.0
        while data := await reader.read(2**16):
            if upward == self._upward and not self.cuts:
                if len(data) >= self._left:
                    self.cuts += 1
                    writer.write(data[: int(self._left)])
                    await writer.drain()
                    return
                self._left -= len(data)
            if upward:
                self.up += len(data)
            else:
                self.down += len(data)
            writer.write(data)
            await writer.drain()
            if self._bytes_per_s < float("inf"):
                free_s = max(free_s, time.monotonic()) + len(data) / self._bytes_per_s
                await asyncio.sleep(free_s - time.monotonic())


@contextlib.asynccontextmanager
async def transfers_of(
    folder: Path, address: str | None = None, *, bulk: bool = False, quiet_s: float = QUIET_S
) -> AsyncIterator[Transfers]:
    """The daemon's transfers with that server; with `bulk`, large ones over connections of their own."""
    endpoint = load_endpoint(folder / "client")
    channel = open_aio_channel(endpoint if address is None else replace(endpoint, address=address))
    try:
        yield Transfers(channel, bulk=endpoint if bulk else None, quiet_s=quiet_s)
    finally:
        await channel.close(None)


def cuts(by_day: int) -> list[Any]:
    """Numbers of cuts at random bytes: a few by day, forty by night."""
    return [*range(by_day), *(pytest.param(number, marks=pytest.mark.nightly) for number in range(by_day, 40))]


async def require_upload_outlives_its_server(folder: Path, *, chunks: int, bulk: bool) -> None:
    """Kill the server in the middle of an upload of so many chunks, and start it again."""
    payload = os.urandom(chunks * CHUNK_BYTES)
    job, digest = JobId("killed"), digest_of(payload)
    with serving(folder) as first:
        async with transfers_of(folder, bulk=bulk) as transfers:
            uploading = asyncio.create_task(
                transfers.upload(job, RoundNumber(1), payload, digest, deadline_s=RESTART_DEADLINE_S)
            )
            partial = folder / "artifacts" / "partial"
            while not any(file.stat().st_size > 4 * CHUNK_BYTES for file in partial.iterdir()):
                assert not uploading.done()
                await asyncio.sleep(0)
            first.send_signal(signal.SIGKILL)
            first.wait()
            kept = max(file.stat().st_size for file in partial.iterdir())
            with serving(folder):
                await uploading
    assert kept >= 4 * CHUNK_BYTES
    assert FolderArtifacts(folder / "artifacts").get(digest) == payload
