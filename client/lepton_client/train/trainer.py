"""The daemon's side of training: owns the worker process, so that the daemon never imports torch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_client.train.worker import FIRST_WEIGHTS, LOAD, METHODS, SUM, TRAIN, TRAIN_ALONE
from lepton_core.errors import ConflictError
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_pool.frames import Array, Frame, bytes_array
from lepton_pool.process import WorkerProcess

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_MODULE = "lepton_client.train.worker"
#: Long enough for a slow machine to import torch and for a large model's round; jobs' own deadlines are shorter.
DEADLINE_S = 600.0


class Trainer:
    """Trains on one set of rows at a time, in a process of its own that is replaced when it dies.

    The rows are kept here as well, and given to a new process before it trains. One call runs at a time; others wait.
    """

    def __init__(self, *, threads: int = 1, memory_mib: int | None = None, deadline_s: float = DEADLINE_S) -> None:
        self._worker = WorkerProcess(_MODULE, threads=threads, memory_mib=memory_mib)
        self._deadline_s = deadline_s
        self._turn = asyncio.Lock()
        #: The owner's rows; dropped by `close`.
        self._rows: dict[str, Floats | Indices] | None = None
        #: The worker's generation that holds `_rows`.
        self._loaded_into = 0

    @property
    def pid(self) -> int | None:
        """The worker process, or None if none runs."""
        return self._worker.pid

    async def start(self) -> None:
        """Starts the process and returns at once, while it still imports torch.

        Raises:
            FaultError: it cannot be started.
        """
        await self._worker.start()

    async def load(self, features: Floats, target: Floats, subjects: Indices | None = None) -> None:
        """Gives the rows to train on, in place of any before: features (rows, d), target (rows,) of classes, float32.

        `subjects` says whose each row is, (rows,), int64, for jobs whose unit is the subject.

        Raises:
            InputError, CodecError: rows that do not fit together, or are not finite.
            FaultError: the worker died or was late.
        """
        async with self._turn:
            self._rows = {"features": features, "target": target}
            if subjects is not None:
                self._rows["subjects"] = subjects
            await self._load()

    async def train(
        self,
        job: Job,
        model: Vector,
        kept: npt.NDArray[np.int64] | None,
        expected_batch: float,
        shuffle: int | None = None,
    ) -> Vector:
        """The update after the job's local steps, shape (length,), float32, 0 on coordinates not in `kept` (None: all).

        `expected_batch` is the public batch denominator: the units the owner declares times the sampling rate, never
        from the rows loaded or drawn, as either would leak their number. The privacy cost is one
        `SampledGaussian(noise_multiplier, sampling_rate, local_steps)`, due before this is called, whatever comes out.
        `shuffle` is the public seed of the order of epochs, if the job has one.

        Raises:
            ConflictError: nothing was loaded.
            JobError, RefusedError, NotFoundError: the job's model cannot be built or trained privately here.
            InputError: a model vector or indices that do not fit.
            FaultError: training diverged, or the worker died or was late; the next call starts another.
        """
        values = {"expected_batch": expected_batch, "shuffle": shuffle}
        answer = await self._on_rows(TRAIN, job, model, kept, values)
        return answer.array("update", np.float32)

    async def clipped_sum(self, job: Job, model: Vector, kept: npt.NDArray[np.int64] | None) -> Doubles:
        """The sum of the rows' clipped gradients, shape (length,), float64, 0 on coordinates not in `kept` (None: all).

        There is no noise in it: it is to be noised and masked before any of it leaves.

        Raises:
            ConflictError, JobError, RefusedError, NotFoundError, InputError, FaultError: as `train`.
        """
        answer = await self._on_rows(SUM, job, model, kept, {})
        return answer.array("sum", np.float64)

    async def _on_rows(
        self, kind: str, job: Job, model: Vector, kept: npt.NDArray[np.int64] | None, values: Mapping[str, Any]
    ) -> Frame:
        """What the worker answers, with the rows loaded."""
        async with self._turn:
            if self._rows is None:
                raise ConflictError("there are no rows to train on", where="trainer", hint="load them first")
            await self._worker.start()
            if self._loaded_into != self._worker.generation:
                await self._load()
            arrays: dict[str, Array] = {"job": bytes_array(job.canonical()), "model": model}
            if kept is not None and len(kept) < len(model):
                arrays["kept"] = kept  # all of them are twice as many bytes as the model, and go without saying
            return await self._worker.call(kind, values, arrays, deadline_s=self._deadline_s)

    async def first_weights(self, job: Job) -> Vector:
        """The job's first weights from its public seed, shape (length,), float32, where torch is needed to make them.

        Raises:
            JobError, RefusedError, NotFoundError: the model cannot be built here.
            FaultError: the worker died or was late.
        """
        async with self._turn:
            await self._worker.start()
            arrays = {"job": bytes_array(job.canonical())}
            answer = await self._worker.call(FIRST_WEIGHTS, {}, arrays, deadline_s=self._deadline_s)
            return answer.array("model", np.float32)

    async def methods(self, job: Job) -> dict[str, str]:
        """How each trained layer's rows would be clipped in a private job, in words by the layer's name.

        Raises:
            JobError, RefusedError, NotFoundError: the model cannot be built or trained privately here.
            FaultError: the worker died or was late.
        """
        async with self._turn:
            await self._worker.start()
            arrays = {"job": bytes_array(job.canonical())}
            answer = await self._worker.call(METHODS, {}, arrays, deadline_s=self._deadline_s)
            return dict(answer.values["methods"])

    async def train_alone(self, job: Job, features: Floats, target: Floats) -> Vector:
        """The whole job on these rows alone, for a demonstration's baselines: `lepton_client.train.alone`.

        Raises:
            JobError, RefusedError, NotFoundError, InputError, CodecError, FaultError: as `train`.
        """
        async with self._turn:
            arrays = {"job": bytes_array(job.canonical()), "features": features, "target": target}
            answer = await self._worker.call(TRAIN_ALONE, {}, arrays, deadline_s=self._deadline_s)
            return answer.array("model", np.float32)

    async def close(self) -> None:
        """Ends the process and drops the rows; safe to call twice."""
        self._rows = None
        await self._worker.close()

    async def _load(self) -> None:
        if self._rows is None:
            raise ConflictError("there are no rows to train on", where="trainer", hint="load them first")
        self._loaded_into = 0
        await self._worker.call(LOAD, {}, self._rows, deadline_s=self._deadline_s)
        self._loaded_into = self._worker.generation


def ask_methods(job: Job) -> dict[str, str]:
    """`Trainer.methods` of a process that is started for it and ended; seconds, as it imports torch.

    Raises:
        JobError, RefusedError, NotFoundError, FaultError: as `Trainer.methods`.
    """

    async def ask() -> dict[str, str]:
        trainer = Trainer(deadline_s=120.0)
        try:
            return await trainer.methods(job)
        finally:
            await trainer.close()

    return asyncio.run(ask())
