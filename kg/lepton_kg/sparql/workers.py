"""A few worker processes that run queries; one that takes too long, or too much memory, is killed and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_core.errors import FaultError, RefusedError, from_dict

#: A worker loads the triple store in less than a tenth of this.
_END_S = 2.0


@dataclass(frozen=True)
class QueryLimits:
    """What one query may take, and how many run at once."""

    #: From when it is handed in, waiting included.
    seconds: float = 10.0
    rows: int = 100_000
    #: Of the result as it is sent.
    bytes: int = 16 * 2**20
    #: Of a worker's address space, of which the triple store takes some 0.5 GiB for itself.
    memory_bytes: int = 4 * 2**30
    workers: int = 2


class QueryWorkers:
    """Starts processes when they are needed. Use it in one event loop; close it."""

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._idle: list[Process] = []
        #: Every process that has been started and not ended.
        self._all: set[Process] = set()
        self._places = asyncio.Semaphore(limits.workers)
        self._closed = False

    async def run(self, place: Path, query: str, media_type: str) -> bytes:
        """The query's result over the store in `place`, whole, in that media type.

        Raises:
            InputError: the query is none.
            RefusedError: it took too long (`reason` TIME_LIMIT), too much memory (MEMORY_LIMIT), or gives too much
                (RESULT_TOO_LARGE).
            FaultError: no worker became free in time, or the store cannot be read.
        """
        request = {
            "path": str(place),
            "query": query,
            "type": media_type,
            "rows": self._limits.rows,
            "bytes": self._limits.bytes,
            "seconds": self._limits.seconds,
        }
        begun = False
        try:
            async with asyncio.timeout(self._limits.seconds), self._places:
                begun = True
                return await self._run(request)
        except TimeoutError:
            if not begun:
                raise FaultError(
                    "no place for a query became free",
                    expected=f"one of {self._limits.workers} within {self._limits.seconds:g} s",
                    hint="ask again later",
                    reason="BUSY",
                ) from None
            raise RefusedError(
                "a query that takes this long is ended",
                expected=f"an answer within {self._limits.seconds:g} s",
                hint="ask for less, or in smaller steps",
                reason="TIME_LIMIT",
            ) from None

    async def close(self) -> None:
        """End every process."""
        self._closed = True
        for process in [*self._all]:
            await self._end(process)

    async def _run(self, request: dict[str, Any]) -> bytes:
        process = self._idle.pop() if self._idle else await self._start()
        try:
            head, body = await _exchange(process, request)
        except (OSError, asyncio.IncompleteReadError):
            raise RefusedError(
                "a query that ended its process",
                expected=f"at most {self._limits.memory_bytes // 2**20} MiB of memory",
                got="more, as it seems",
                hint="ask for less, or in smaller steps",
                reason="MEMORY_LIMIT",
            ) from None
        else:
            self._idle.append(process)
        finally:
            if process not in self._idle:
                await self._end(process)
        if head["error"] is not None:
            raise from_dict(head["error"])
        return body

    async def _start(self) -> Process:
        if self._closed:
            raise FaultError("the service is stopping", reason="BUSY")
        # Nothing of this process's environment but where Python finds its modules.
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lepton_kg.sparql.worker", str(self._limits.memory_bytes)),
            stdin=PIPE,
            stdout=PIPE,
            env=environment,
        )
        self._all.add(process)
        return process

    async def _end(self, process: Process) -> None:
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # A killed process ends at once; the deadline is for a machine that has come to a halt.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()


async def _exchange(process: Process, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    if process.stdin is None or process.stdout is None:
        raise AssertionError  # both are pipes
    text = json.dumps(request).encode()
    process.stdin.write(struct.pack(">I", len(text)) + text)
    await process.stdin.drain()
    head_length, body_length = struct.unpack(">II", await process.stdout.readexactly(8))
    head: dict[str, Any] = json.loads(await process.stdout.readexactly(head_length))
    return head, await process.stdout.readexactly(body_length)
