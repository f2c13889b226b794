"""Runs the participant: a command in, its effects out, their completions in again; and nothing else.

The participant and everything heavy in it run in one thread, one call at a time, off the event loop; the effects of a
call are performed, in order, before the next call.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_never
from uuid import uuid4

from lepton_client.binding import Binding, Prepared, told_of
from lepton_client.computing import compute
from lepton_client.effects import Effect, Follow, Forget, ForgetJob, Match, SendReport, Train, Upload
from lepton_client.link import ControlSession
from lepton_client.logs import Log
from lepton_client.models import Models
from lepton_client.pacing import Pace
from lepton_client.participant import Effects, Participant
from lepton_client.train.trainer import Trainer
from lepton_client.transfer_link import Transfers
from lepton_compression.update import kept_indices
from lepton_core.errors import AbortedError, FaultError, LeptonError
from lepton_core.ids import Digest, JobId, RoundNumber
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.privacy.rules import RECORD_MODES
from lepton_core.session import JobClosed, MatchAnswer, RoundClosed, RoundRefusal, ServerCommand
from lepton_pool.models import BUILT_IN, architecture_of, initial_vector
from lepton_pool.steps import Learnt

#: How often the participant looks for rounds that the coordinator has forgotten, in seconds.
_TICK_S = 5.0
#: Longest a restarted daemon prepares open jobs before it connects all the same, in seconds.
_CATCH_UP_S = 60.0


class Pump:
    """Connects one participant with the session, the transfers, the owner's data and the training worker."""

    def __init__(
        self,
        *,
        participant: Participant,
        session: ControlSession,
        transfers: Transfers,
        binding: Binding,
        trainer: Trainer,
        training_deadline_s: float,
        log: Log,
    ) -> None:
        self._participant = participant
        self._session = session
        self._transfers = transfers
        self._binding = binding
        self._trainer = trainer
        self._models = Models(transfers, self._first_weights)
        self._training_deadline_s = training_deadline_s
        self._log = log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="participant")
        self._turn = asyncio.Lock()
        self._training = asyncio.Lock()
        #: Work under way, with the upload's round where it is an upload.
        self._tasks: dict[asyncio.Task[None], tuple[JobId, RoundNumber] | None] = {}
        #: The owner's rows, by job; dropped when the job is over.
        self._prepared: dict[JobId, Prepared] = {}
        #: When updates of private jobs leave; dropped when the job is over.
        self._paces: dict[JobId, Pace] = {}
        #: The job whose rows the worker holds.
        self._loaded: JobId | None = None

    async def run_until(self, stop: asyncio.Event) -> None:
        """Take part until told to stop.

        Raises:
            IdentityError, ConflictError: the coordinator does not want this owner, or speaks another version.
        """
        await self._catch_up()
        parts = [
            asyncio.create_task(self._session.run()),
            asyncio.create_task(self._take_commands()),
            asyncio.create_task(self._tick()),
            asyncio.create_task(_wait(stop)),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _cancel(parts)

    async def _catch_up(self) -> None:
        """After a restart, make open jobs ready before connecting.

        A member that is not ready would be put into the next round, and the others would wait for it.
        """
        await self._step(self._participant.resume)
        if not self._tasks:
            return
        await asyncio.wait(tuple(self._tasks), timeout=_CATCH_UP_S)
        for job_id, prepared in tuple(self._prepared.items())[:1]:
            try:
                await self._trainer.load(prepared.features, prepared.target, prepared.subjects)
                self._loaded = job_id
            except LeptonError as error:
                self._log.warning("the training worker is not ready", code=error.code, told=str(error))

    async def close(self) -> None:
        """End everything under way and wait for it."""
        await _cancel(list(self._tasks))
        self._prepared.clear()
        await asyncio.to_thread(self._thread.shutdown)

    async def _take_commands(self) -> None:
        while True:
            commands = await self._session.commands.get()
            for command in commands:
                self._tell(command)
            await self._step(*(functools.partial(self._participant.handle, command) for command in commands))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self._step(self._participant.tick)

    async def _step(self, *calls: Callable[[], Effects]) -> None:
        """Calls of the participant, one after another, then their effects: answers given together leave together."""
        async with self._turn:
            for effect in await asyncio.get_running_loop().run_in_executor(self._thread, self._all, calls):
                self._perform(effect)

    def _all(self, calls: tuple[Callable[[], Effects], ...]) -> Effects:
        effects: list[Effect] = []
        for call in calls:
            try:
                effects += call()
            except LeptonError as error:
                self._log.error("not done", code=error.code, reason=error.reason, message=error.message)
            except Exception:  # noqa: BLE001 - a boundary: a command that meets a fault of ours must not end the daemon
                self._log.exception("a fault in the daemon", id=uuid4().hex)
        return tuple(effects)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendReport(report):
                if isinstance(report, MatchAnswer | RoundRefusal):
                    self._log.info("answer", **_told(report))
                self._session.report(report)
            case Match():
                self._begin(self._match(effect))
            case Train():
                self._begin(self._train(effect))
            case Follow():
                self._models.told(effect)
            case Upload():
                self._begin(self._upload(effect), (effect.job_id, effect.round))
            case Forget(job_id, number):
                # Training is left to end by itself, as ending it would cost the worker its process.
                for task, upload in self._tasks.items():
                    if upload == (job_id, number):
                        task.cancel()
            case ForgetJob(job_id):
                self._prepared.pop(job_id, None)
                self._paces.pop(job_id, None)
                self._models.forget(job_id)
            case _:
                assert_never(effect)

    def _begin(self, work: Coroutine[Any, Any, None], upload: tuple[JobId, RoundNumber] | None = None) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = upload
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    async def _match(self, effect: Match) -> None:
        outcome: Digest | LeptonError
        content = coverage = ""
        try:
            prepared = await self._binding.prepare(effect.job, effect.population)
        except Exception as error:  # noqa: BLE001 - what a library raises over the owner's data is one job's refusal
            outcome = told_of(error)
            self._log.warning("the data cannot serve the job", job=effect.job_id, code=outcome.code, told=str(outcome))
        else:
            self._prepared[effect.job_id] = prepared
            outcome, content, coverage = prepared.plan, prepared.content, prepared.coverage
        await self._step(lambda: self._participant.matched(effect.job_id, outcome, content, coverage))

    async def _train(self, effect: Train) -> None:
        deadline_s = min(self._training_deadline_s, effect.job.aggregation.step_deadline_s)
        try:
            async with asyncio.timeout(deadline_s):
                update, rows = await self._update(effect, deadline_s)
        except TimeoutError:
            late: LeptonError = FaultError(
                "training took too long", expected=f"within {deadline_s:g} s", reason="DEADLINE"
            )
            await self._training_failed(effect, late)
        except LeptonError as error:
            await self._training_failed(effect, error)
        except Exception:  # noqa: BLE001 - a fault of ours or of a library ends one round, not the daemon
            fault = uuid4().hex
            self._log.exception("a fault in training", id=fault)
            await self._training_failed(effect, AbortedError("a fault in the daemon", got=fault, reason="FAULT"))
        else:
            await self._step(lambda: self._participant.trained(effect.job_id, effect.round, update, rows))

    async def _update(self, effect: Train, deadline_s: float) -> tuple[Learnt, int]:
        job = effect.job
        model = await self._models.model(effect, deadline_s=deadline_s)
        kept = None
        if job.privacy.mode in RECORD_MODES:
            kept = await compute(len(model), kept_indices, effect.ring_plan, effect.codec_seed)
        async with self._training:
            prepared = self._prepared.get(effect.job_id)
            if prepared is None:
                raise AbortedError("the job is over", where=f"job {effect.job_id}", reason="JOB_CLOSED")
            if self._loaded != effect.job_id:
                self._loaded = None
                await self._trainer.load(prepared.features, prepared.target, prepared.subjects)
                self._loaded = effect.job_id
            began = asyncio.get_running_loop().time()
            if job.privacy.mode == "record-distributed":
                learnt: Learnt = await self._trainer.clipped_sum(job, model, kept)
            else:
                learnt = await self._trainer.train(job, model, kept, effect.expected_batch, effect.shuffle)
            elapsed_s = asyncio.get_running_loop().time() - began
        if job.privacy.mode != "none":
            pace = self._paces.setdefault(effect.job_id, Pace.of(job))
            await asyncio.sleep(pace.wait_s(elapsed_s, deadline_s))
        return learnt, len(prepared.target)

    async def _first_weights(self, job: Job) -> Vector:
        if job.model.kind in BUILT_IN:
            return await asyncio.to_thread(initial_vector, architecture_of(job))
        return await self._trainer.first_weights(job)

    async def _training_failed(self, effect: Train, error: LeptonError) -> None:
        self._log.warning(
            "training failed", job=effect.job_id, round=int(effect.round), code=error.code, told=str(error)
        )
        await self._step(lambda: self._participant.training_failed(effect.job_id, effect.round, error))

    async def _upload(self, effect: Upload) -> None:
        job_id, number = effect.job_id, effect.round
        try:
            await self._transfers.upload(job_id, number, effect.payload, effect.digest, deadline_s=effect.deadline_s)
        except LeptonError as error:
            failed = error
            self._log.warning("upload failed", job=job_id, round=int(number), code=error.code, told=str(error))
            await self._step(lambda: self._participant.upload_failed(job_id, number, failed))
        else:
            await self._step(lambda: self._participant.uploaded(job_id, number))

    def _tell(self, command: ServerCommand) -> None:
        if isinstance(command, RoundClosed):
            outcome = command.outcome.value
            self._log.info("round closed", job=command.job, round=int(command.round), outcome=outcome)
        elif isinstance(command, JobClosed):
            self._log.info("job closed", job=command.job, state=command.state)


def _told(report: MatchAnswer | RoundRefusal) -> dict[str, object]:
    """What the log says of an answer: exactly what leaves."""
    told: dict[str, object] = {"job": report.job, "can": report.refusal is None}
    if isinstance(report, RoundRefusal):
        told["round"] = int(report.round)
    if report.refusal is not None:
        told |= {"code": report.refusal.code, "reason": report.refusal.reason, "subject": report.refusal.subject}
    return told


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
