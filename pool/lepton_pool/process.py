"""The outside of a worker process: start it, ask it with a deadline, notice its death, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from lepton_core.errors import FaultError, InputError, from_dict
from lepton_pool.frames import Array, Frame, encode, receive_frame

#: How long a worker has to end by itself after its input is closed, before it is killed.
_CLOSE_GRACE_S = 2.0
#: How much of an answer is buffered before it is asked for; asyncio's 64 KiB makes large models slow.
_READ_AHEAD_BYTES = 1 << 20


class WorkerProcess:
    """One long-lived `python -m module`, asked one request at a time; started again at the request after its death.

    A request that is late or cancelled costs the process, as nothing else stops native code. Start it from a
    thread that lives as long as it should: on Linux the kernel ends it with the thread that started it.
    """

    def __init__(self, module: str, *, threads: int = 1, memory_mib: int | None = None) -> None:
        """`memory_mib` is the most memory that the process may take; None sets no bound."""
        self._module = module
        self._threads = threads
        self._memory_mib = memory_mib
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._number = 0
        self._closed = False
        #: How many processes have been started; a state kept in the worker is gone when this changes.
        self.generation = 0

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        return self._process.pid if self._is_alive() and self._process is not None else None

    async def start(self) -> None:
        """Starts the process if none runs; returns at once, while the worker still imports.

        Raises:
            FaultError: the process cannot be started, or this object was closed.
        """
        async with self._turn:
            await self._ensure()

    async def call(
        self, kind: str, values: Mapping[str, Any], arrays: Mapping[str, Array], *, deadline_s: float
    ) -> Frame:
        """The worker's answer.

        Raises:
            LeptonError: whatever the worker raised, as its own class.
            InputError: values or arrays that cannot travel.
            FaultError: no answer within the deadline (which counts waiting for earlier requests), or the worker died.
        """
        try:
            async with asyncio.timeout(deadline_s), self._turn:
                process = await self._ensure()
                return await self._exchange(process, kind, values, arrays)
        except TimeoutError:
            raise FaultError(
                f"a worker did not finish {kind} in time",
                where=self._module,
                expected=f"an answer within {deadline_s:g} s",
                got="none; the worker was ended",
                hint="give it longer, or less to do",
                reason="DEADLINE",
            ) from None

    async def close(self) -> None:
        """Ends the process and waits for it; safe to call twice. Requests under way fail."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            await _end(process)

    async def _exchange(
        self, process: asyncio.subprocess.Process, kind: str, values: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Frame:
        if process.stdin is None or process.stdout is None:
            raise FaultError("a worker without pipes", where=self._module)
        self._number += 1
        parts = encode(Frame({**values, "kind": kind, "number": self._number}, arrays))
        answer: Frame | None = None
        try:
            process.stdin.writelines(parts)
            # Reading while writing: neither side waits for the other with a full pipe.
            drained, answer = await asyncio.gather(
                process.stdin.drain(), receive_frame(process.stdout), return_exceptions=False
            )
            del drained
        except (ConnectionError, FaultError):
            answer = None
        finally:
            if answer is None:
                await self._abandon(process)
        if answer is None or answer.values.get("number") != self._number:
            raise FaultError(
                "a worker died",
                where=self._module,
                got=f"exit status {process.returncode}" if process.returncode is not None else "no answer",
                hint="it is started again at the next request; see its standard error",
                reason="WORKER_DIED",
            )
        if answer.values.get("status") != "done":
            raise from_dict(answer.values.get("error", {}))
        return answer

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _ensure(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise FaultError("a worker that was closed", where=self._module, reason="CLOSED")
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._threads < 1:
            raise InputError("a worker needs a thread", where="threads", expected="at least 1", got=str(self._threads))
        threads = str(self._threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                threads,
                *([str(self._memory_mib)] if self._memory_mib is not None else []),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_READ_AHEAD_BYTES,
                env=environment,
            )
        except OSError as error:
            raise FaultError("a worker cannot be started", where=self._module, got=str(error)) from None
        self.generation += 1
        return self._process

    async def _abandon(self, process: asyncio.subprocess.Process) -> None:
        """Kills a process whose stream can no longer be trusted."""
        if self._process is process:
            self._process = None
        _kill(process)
        await asyncio.shield(_end(process))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_CLOSE_GRACE_S):
            await process.wait()
    except TimeoutError:
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill it, unless it has ended by itself a moment ago."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
