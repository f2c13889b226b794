"""Bulk bytes through the production transfer layer, against a bare gRPC stream of the same chunks in the same run.

Two processes over mutual TLS on loopback. Bare and real transfers alternate, the best of each counts; the bare stream
carries such bytes in the same chunks over the same options, and neither looks at them nor keeps them. Downloads go to a
file, durably; `download_memory_*` are those of the same bytes into memory. `*_processor_ratio` is the bare stream's
processor time of both processes over that of the transfer, the least of each: a machine that others use changes it
less than `*_ratio`. `kept_*` are those of the bare stream itself where its receiver hashes the chunks and writes them
to a file, not synced, in a thread beside: what SHA-256 and the file leave of it. `disk_mb_s` is how fast the same bytes
are written and synced alone: no transfer to a file is faster. `round_mb_s` is `--members` uploads of `--round-mb` each,
eight at a time, validated, made durable and added up. `rss_mb` is the most memory the serving process ever had.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
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
from lepton_protos.durable import sync_data, write_all
from lepton_protos.outgoing import open_outgoing
from lepton_protos.spooling import SYNC_BYTES

_MB = 1e6
_DEADLINE_S = 300.0
_AT_ONCE = 8
#: A file whose size does not fit 31 bits, made of blocks that differ.
_LARGE, _BLOCK = 2**31 + 64 * 2**20, 2**20
_LARGE_DEADLINE_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes and repetitions."""
    parser.add_argument("--mb", type=int, default=256, help="MiB of the single transfers")
    parser.add_argument("--members", type=int, default=100, help="members of the round")
    parser.add_argument("--round-mb", type=int, default=10, help="MB of a member's upload in the round")
    parser.add_argument("--large", action="store_true", help="a file of more than 2 GiB, up and down, as well")
    parser.add_argument("--repeats", type=int, default=4, help="transfers of each kind, of which the best counts")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Throughputs in 10^6 bytes a second, ratios to the bare stream, and the server's memory."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.transfer_server", folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
            try:
                _wait_for(Path(folder) / "ready", server)
                return asyncio.run(_measure(Path(folder), args))
            finally:
                if server.stdin is not None:
                    server.stdin.close()
                server.wait(30.0)


async def _measure(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    endpoint = load_endpoint(folder / "client")
    channel = open_aio_channel(endpoint)
    transfers = Transfers(channel, bulk=endpoint)
    size = args.mb * CHUNK_BYTES
    best: dict[str, float] = {}
    least_s: dict[str, float] = {}
    processor: Any = channel.unary_unary("/bench.Bare/Processor", None, None)

    async def timed(kind: str, call: Callable[..., Awaitable[object]], *given: object, **named: object) -> None:
        used_s = time.process_time() + float(await processor(b"", timeout=_DEADLINE_S))
        started = time.perf_counter()
        await call(*given, **named)
        best[kind] = max(best.get(kind, 0.0), size / _MB / (time.perf_counter() - started))
        used_s = time.process_time() + float(await processor(b"", timeout=_DEADLINE_S)) - used_s
        least_s[kind] = min(least_s.get(kind, used_s), used_s)

    large = await _large(folder, channel, transfers) if args.large else {}
    bare_up: Any = channel.stream_unary("/bench.Bare/Up", None, None)
    bare_kept: Any = channel.stream_unary("/bench.Bare/Kept", None, None)
    bare_down: Any = channel.unary_stream("/bench.Bare/Down", None, None)
    for repeat in range(args.repeats):
        payload = os.urandom(size)
        digest = digest_of(payload)
        await timed("bare_up", lambda chunks: bare_up(chunks, timeout=_DEADLINE_S), _slices(payload))
        await timed("kept", lambda chunks: bare_kept(chunks, timeout=_DEADLINE_S), _slices(payload))
        job = JobId(f"single-{repeat}")
        await timed("up", transfers.upload, job, RoundNumber(1), payload, digest, deadline_s=_DEADLINE_S)
        await timed("disk", asyncio.to_thread, _write, folder / "alone", payload)
        await timed("bare_down", lambda: _drain(bare_down(str(args.mb).encode(), timeout=_DEADLINE_S)))
        await timed("down_memory", transfers.download, digest, largest=size, deadline_s=_DEADLINE_S)
        (folder / "model").unlink(missing_ok=True)  # deleting what the last one left is not this one's time
        await timed("down", transfers.download_to, folder / "model", digest, largest=size, deadline_s=_DEADLINE_S)
    round_mb_s = await _round(channel, transfers, args)
    memory: Any = channel.unary_unary("/bench.Bare/Memory", None, None)
    peak_kib = int(await memory(b"", timeout=_DEADLINE_S))
    await channel.close(None)
    return {
        "upload_mb_s": best["up"],
        "download_mb_s": best["down"],
        "upload_ratio": best["up"] / best["bare_up"],
        "download_ratio": best["down"] / best["bare_down"],
        "upload_processor_ratio": least_s["bare_up"] / least_s["up"],
        "download_processor_ratio": least_s["bare_down"] / least_s["down"],
        "kept_mb_s": best["kept"],
        "kept_ratio": best["kept"] / best["bare_up"],
        "kept_processor_ratio": least_s["bare_up"] / least_s["kept"],
        "disk_mb_s": best["disk"],
        "round_mb_s": round_mb_s,
        "rss_mb": peak_kib * 1024 / _MB,
        "download_memory_mb_s": best["down_memory"],
        "download_memory_ratio": best["down_memory"] / best["bare_down"],
        **large,
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


async def _large(folder: Path, channel: Any, transfers: Transfers) -> dict[str, object]:
    """A file of more than 2 GiB from disk to disk, and the most memory that this process and the server took for it."""
    memory: Any = channel.unary_unary("/bench.Bare/Memory", None, None)
    block, source, copy = os.urandom(_BLOCK), folder / "large", folder / "large-copy"
    with source.open("wb") as file:
        for number in range(_LARGE // _BLOCK):
            file.write(number.to_bytes(8, "little") + block[8:])
        file.write(b"end")
    with open_outgoing(source) as outgoing:
        digest, size = outgoing.digest(), outgoing.size
    before = _peak_mb(), int(await memory(b"", timeout=_DEADLINE_S)) * 1024 / _MB
    started = time.perf_counter()
    await transfers.upload_from(source, digest, job=JobId("large"), number=RoundNumber(1), deadline_s=_LARGE_DEADLINE_S)
    uploaded = time.perf_counter()
    await transfers.download_to(copy, digest, largest=size, deadline_s=_LARGE_DEADLINE_S)
    ended = time.perf_counter()
    with open_outgoing(copy) as outgoing:
        if outgoing.digest() != digest:
            raise FaultError("the file that came back is another", where="benchmark")
    after = _peak_mb(), int(await memory(b"", timeout=_DEADLINE_S)) * 1024 / _MB
    source.unlink()
    copy.unlink()
    return {
        "large_bytes": size,
        "large_upload_mb_s": size / _MB / (uploaded - started),
        "large_download_mb_s": size / _MB / (ended - uploaded),
        "large_client_rss_growth_mb": after[0] - before[0],
        "large_server_rss_growth_mb": after[1] - before[1],
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MB


async def _slices(payload: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(payload), CHUNK_BYTES):
        yield payload[start : start + CHUNK_BYTES]


def _write(path: Path, payload: bytes) -> None:
    """Write and sync as a transfer does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for start in range(0, len(payload), SYNC_BYTES):
            write_all(descriptor, memoryview(payload)[start : start + SYNC_BYTES], start)
            sync_data(descriptor, size=len(payload))
    finally:
        os.close(descriptor)
        path.unlink()


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


def _wait_for(place: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30.0
    while not place.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise FaultError("the serving process did not start", where="benchmark", expected="within 30 s")
        time.sleep(0.02)
