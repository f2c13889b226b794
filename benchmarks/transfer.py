"""Bulk bytes through the production transfer layer, against a bare gRPC stream of the same chunks in the same run.

Two processes over mutual TLS on loopback. Bare and real transfers alternate, the best of each counts; the bare stream
carries such bytes in the same chunks over the same options, and neither looks at them nor keeps them. `round_mb_s`
is `--members` uploads of `--round-mb` each, eight at a time, validated, made durable and added up. `rss_mb` is the most
memory the serving process ever had.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from lepton_client.transfer_link import Transfers
from lepton_core.errors import FaultError
from lepton_core.ids import JobId, RoundNumber, digest_of
from lepton_pool.memory import keep_freed_memory
from lepton_protos.channel import CHUNK_BYTES, load_endpoint, open_aio_channel

_MB = 1e6
_DEADLINE_S = 300.0
_AT_ONCE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes and repetitions."""
    parser.add_argument("--mb", type=int, default=256, help="MiB of the single transfers")
    parser.add_argument("--members", type=int, default=100, help="members of the round")
    parser.add_argument("--round-mb", type=int, default=10, help="MB of a member's upload in the round")
    parser.add_argument("--repeats", type=int, default=4, help="transfers of each kind, of which the best counts")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Throughputs in 10^6 bytes a second, ratios to the bare stream, and the server's memory."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.transfer_server", folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
            try:
                _wait_for(Path(folder) / "ready", server)
                return asyncio.run(_measure(Path(folder) / "client", args))
            finally:
                if server.stdin is not None:
                    server.stdin.close()
                server.wait(30.0)


async def _measure(endpoint: Path, args: argparse.Namespace) -> dict[str, object]:
    channel = open_aio_channel(load_endpoint(endpoint))
    transfers = Transfers(channel)
    size = args.mb * CHUNK_BYTES
    best: dict[str, float] = {}

    async def timed(kind: str, call: Callable[[], Awaitable[object]]) -> None:
        started = time.perf_counter()
        await call()
        best[kind] = max(best.get(kind, 0.0), size / _MB / (time.perf_counter() - started))

    bare_up: Any = channel.stream_unary("/bench.Bare/Up", None, None)
    bare_down: Any = channel.unary_stream("/bench.Bare/Down", None, None)
    for repeat in range(args.repeats):
        payload = os.urandom(size)
        digest = digest_of(payload)
        await timed("bare_up", lambda payload=payload: bare_up(_slices(payload), timeout=_DEADLINE_S))  # type: ignore[misc]
        await timed(
            "up",
            lambda payload=payload, digest=digest, repeat=repeat: transfers.upload(  # type: ignore[misc]
                JobId(f"single-{repeat}"), RoundNumber(1), payload, digest, deadline_s=_DEADLINE_S
            ),
        )
        await timed("bare_down", lambda: _drain(bare_down(str(args.mb).encode(), timeout=_DEADLINE_S)))
        await timed(
            "down",
            lambda digest=digest: transfers.download(digest, largest=size, deadline_s=_DEADLINE_S),  # type: ignore[misc]
        )
    round_mb_s = await _round(channel, transfers, args)
    memory: Any = channel.unary_unary("/bench.Bare/Memory", None, None)
    peak_kib = int(await memory(b"", timeout=_DEADLINE_S))
    await channel.close(None)
    return {
        "upload_mb_s": best["up"],
        "download_mb_s": best["down"],
        "upload_ratio": best["up"] / best["bare_up"],
        "download_ratio": best["down"] / best["bare_down"],
        "round_mb_s": round_mb_s,
        "rss_mb": peak_kib * 1024 / _MB,
        "bare_upload_mb_s": best["bare_up"],
        "bare_download_mb_s": best["bare_down"],
    }


async def _round(channel: Any, transfers: Transfers, args: argparse.Namespace) -> float:
    """MB a second from the first byte of the first member to the sum over all, which is checked."""
    words = args.round_mb * 10**6 // 8
    shared = np.frombuffer(os.urandom(8 * words), dtype="<u8")
    payloads = [(shared + np.uint64(member)).tobytes() for member in range(args.members)]
    digests = [digest_of(payload) for payload in payloads]
    add: Any = channel.unary_unary("/bench.Bare/Add", None, None)
    total: Any = channel.unary_unary("/bench.Bare/Total", None, None)
    turn = asyncio.Semaphore(_AT_ONCE)

    async def member(number: int) -> None:
        async with turn:
            job = JobId(f"member-{number}")
            await transfers.upload(job, RoundNumber(1), payloads[number], digests[number], deadline_s=_DEADLINE_S)
            await add(f"{words} {digests[number]}".encode(), timeout=_DEADLINE_S)

    started = time.perf_counter()
    await asyncio.gather(*(member(number) for number in range(args.members)))
    found = (await total(" ".join(digests).encode(), timeout=_DEADLINE_S)).decode()
    elapsed = time.perf_counter() - started
    expected = shared * np.uint64(args.members) + np.uint64(args.members * (args.members - 1) // 2)
    if found != digest_of(expected.tobytes()):
        raise FaultError("the sum is not that of the uploads", where="benchmark")
    return float(args.members * 8 * words / _MB / elapsed)


async def _slices(payload: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(payload), CHUNK_BYTES):
        yield payload[start : start + CHUNK_BYTES]


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


def _wait_for(place: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30.0
    while not place.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise FaultError("the serving process did not start", where="benchmark", expected="within 30 s")
        time.sleep(0.02)
