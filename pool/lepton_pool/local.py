"""The embedded engine: one long-lived worker process on this machine."""

from __future__ import annotations

import asyncio

from lepton_core.errors import FaultError
from lepton_pool.frames import Frame
from lepton_pool.process import WorkerProcess

_MODULE = "lepton_pool.worker"


class LocalEngine:
    """Work runs one piece after another in a process of its own, so that a crash there costs nothing here."""

    def __init__(self, *, threads: int = 1) -> None:
        self._worker = WorkerProcess(_MODULE, threads=threads)
        self._tasks: set[asyncio.Task[Frame]] = set()

    @property
    def worker(self) -> WorkerProcess:
        """The process, for status."""
        return self._worker

    async def start(self) -> None:
        """Starts the process, which imports torch meanwhile; returns at once.

        Raises:
            FaultError: it cannot be started.
        """
        await self._worker.start()

    def submit(self, kind: str, inputs: Frame, *, deadline_s: float) -> LocalHandle:
        """Queues the work; the deadline counts from now and includes the work queued before."""
        task = asyncio.create_task(self._worker.call(kind, inputs.values, inputs.arrays, deadline_s=deadline_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return LocalHandle(task)

    async def close(self) -> None:
        """Gives up all work and ends the process; safe to call twice."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.close()


class LocalHandle:
    """Work in the local engine."""

    def __init__(self, task: asyncio.Task[Frame]) -> None:
        self._task = task

    async def result(self) -> Frame:
        """As `Handle.result`; the caller's own cancellation leaves the work running."""
        await asyncio.wait([self._task])
        if self._task.cancelled():
            raise FaultError("the work was cancelled", where=_MODULE, reason="CANCELLED")
        return self._task.result()

    def cancel(self) -> None:
        """As `Handle.cancel`."""
        self._task.cancel()
