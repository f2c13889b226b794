"""The coordinator's long work: model arithmetic in threads, evaluation in the compute engine. Failures are results."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, assert_never

import structlog

from lepton_core.errors import FaultError, LeptonError
from lepton_pool.engine import Engine
from lepton_server.jobs import events as ev
from lepton_server.pump import Work
from lepton_server.registry import evaluate, initial
from lepton_server.rounds import aggregate
from lepton_server.rounds.sums import RunningSums
from lepton_server.store.port import Artifacts

T = TypeVar("T")

#: Sums and models of several jobs at once; each thread holds one vector of its model's size.
_THREADS = 2
_log = structlog.get_logger("lepton.work")


class Workshop:
    """Performs `RunInitialModel`, `RunAggregate` and `RunEvaluate`."""

    def __init__(self, artifacts: Artifacts, engine: Engine, sums: RunningSums) -> None:
        self._artifacts = artifacts
        self._sums = sums
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="work")
        #: Slices of sums being unmasked, apart from the threads that wait for them.
        self._slices = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="unmask")

    async def run(self, effect: Work) -> ev.WorkDone:
        """The work's outcome; an unexpected failure is logged with an id and becomes the work's failure."""
        try:
            # Started with the first work, not before: it imports torch, and a coordinator without jobs needs none.
            await self._engine.start()
            match effect:
                case ev.RunInitialModel():
                    return await self._in_thread(lambda: initial.run(effect, self._artifacts))
                case ev.RunAggregate():
                    return await self._in_thread(lambda: aggregate.run(effect, self._artifacts, self._slices.map))
                case ev.RunEvaluate():
                    return await evaluate.run(effect, self._artifacts, self._engine)
                case _:
                    assert_never(effect)
        except Exception:  # noqa: BLE001 - the boundary of a worker; logged with an id
            incident = uuid.uuid4().hex[:12]
            _log.exception("work failed", incident=incident, work=type(effect).__name__, job=effect.job_id)
            fault = FaultError("the coordinator failed at its own work", got=f"incident {incident} in its log")
            return _failed(effect, fault)

    async def add(self, effect: ev.RunAdd) -> None:
        """Add an uploaded input to its round's sum; what fails here is met again when the survivors are frozen."""
        await self._in_thread(lambda: self._sums.add(effect.setup, effect.payload))

    async def forget(self, effect: ev.ForgetPayloads) -> None:
        """Delete masked inputs that no sum needs any more."""

        def delete() -> None:
            for digest in effect.digests:
                self._artifacts.delete(digest)

        await self._in_thread(delete)

    def close(self) -> None:
        """Let running work end, start no more."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._slices.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _failed(effect: Work, error: LeptonError) -> ev.WorkDone:
    match effect:
        case ev.RunInitialModel():
            return ev.InitialModelFailed(effect.job_id, error)
        case ev.RunAggregate():
            return ev.AggregateFailed(effect.job_id, effect.round, error)
        case ev.RunEvaluate():
            return ev.EvaluateFailed(effect.job_id, effect.version, error)
        case _:
            assert_never(effect)
