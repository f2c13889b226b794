"""Transfers at once: big ones advance side by side, small ones are not held up by them, and memory stays small."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lepton_client.transfer_link import Transfers
from lepton_core.ids import JobId, RoundNumber, digest_of
from lepton_protos.channel import CHUNK_BYTES, load_endpoint, open_aio_channel
from lepton_protos.incoming import Progress
from lepton_server.store.artifacts import FolderArtifacts
from tests.integration.client.cable import serving, transfers_of

DEADLINE_S = 60.0
BIG = 160 * CHUNK_BYTES
SMALL = 200_000
#: Longest that an upload among others may stand still; a disk that syncs takes its time.
STILL_AT_MOST_S = 5.0
#: What an upload may take of the server: chunks that wait to be written, HTTP/2 windows, and their copies.
WINDOW = 16 * CHUNK_BYTES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("transfers")
    with serving(place):
        yield place


@dataclass
class Watched:
    """What was told of one upload, and when."""

    told: list[tuple[float, int]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, what: str) -> Progress:
        del what
        return self.tell

    def tell(self, done: int, size: int) -> None:
        self.told.append((time.monotonic(), min(done, size)))
        if done > 0:
            self.begun.set()

    def done_at(self, moment_s: float) -> int:
        """Bytes that were done then."""
        return max((done for at_s, done in self.told if at_s <= moment_s), default=0)

    @property
    def longest_still_s(self) -> float:
        return max(after - before for (before, _), (after, _) in zip(self.told, self.told[1:], strict=False))


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


async def test_big_uploads_advance_side_by_side_and_small_ones_are_not_held_up(folder: Path) -> None:
    # All over one connection, so that the streams share its flow control too.
    channel = open_aio_channel(load_endpoint(folder / "client"))
    watched = [Watched(), Watched()]
    memory = channel.unary_unary("/bench.Bare/Memory", None, None)
    before_kib = int(await memory(b"", timeout=DEADLINE_S))
    small_s: list[tuple[float, float]] = []

    async def send(transfers: Transfers, name: str, size: int) -> None:
        payload = random.Random(name).randbytes(size)
        await transfers.upload(JobId(name), RoundNumber(1), payload, digest_of(payload), deadline_s=DEADLINE_S)

    async def send_small(first: int) -> None:
        for one in watched:
            await one.begun.wait()
        for number in range(first, first + 5):
            began_s = time.monotonic()
            await send(Transfers(channel), f"small-{number}", SMALL)
            small_s.append((began_s, time.monotonic()))

    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(
                *(send(Transfers(channel, one.of), f"big-{n}", BIG) for n, one in enumerate(watched)),
                *(send_small(first) for first in (0, 5, 10)),
            )
        after_kib = int(await memory(b"", timeout=DEADLINE_S))
    finally:
        await channel.close(None)
    ends_s = [one.told[-1][0] for one in watched]
    first_end_s = min(ends_s)
    assert min(one.done_at(first_end_s) for one in watched) >= BIG / 3
    assert max(one.longest_still_s for one in watched) < STILL_AT_MOST_S
    assert len(small_s) == 15
    assert sum(ended_s < first_end_s for _, ended_s in small_s) >= 5
    assert max(ended_s - began_s for began_s, ended_s in small_s) < (first_end_s - watched[0].told[0][0]) / 2
    assert (after_kib - before_kib) * 1024 < 5 * WINDOW
