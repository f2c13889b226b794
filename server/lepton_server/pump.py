"""Runs the coordinator: inputs are taken in, in batches, by one thread; then its effects are performed.

Receive, step, commit, perform. Whatever is decided is decided in `Coordinator`; an effect that is lost here, by a
crash or an error, is given again by `recover` or `outstanding`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, Protocol, TypeVar, assert_never

import structlog

from lepton_core.errors import FaultError, LeptonError
from lepton_core.ids import MemberId
from lepton_core.ports import Clock
from lepton_core.session import ServerCommand
from lepton_core.views import JobEvent
from lepton_server.jobs import events as ev

P = ParamSpec("P")
T = TypeVar("T")

#: Most inputs in one commit, so that the first of a flood is not answered last.
MOST_IN_A_BATCH = 1_000
#: How long to wait before a batch that the store could not take is tried again.
RETRY_S = 1.0

Work = ev.RunInitialModel | ev.RunAggregate | ev.RunEvaluate
_log = structlog.get_logger("lepton.pump")


class Heart(Protocol):
    """What the pump drives: a `Coordinator`."""

    def handle(self, inputs: Sequence[ev.Input]) -> tuple[ev.Effect, ...]:
        """Take in a batch, durably; FaultError if the store could not, and nothing was taken in."""
        ...

    def recover(self) -> tuple[ev.Effect, ...]:
        """What must be under way after a start."""
        ...

    def named_artifacts(self) -> frozenset[str]:
        """Every artifact that a job names."""
        ...


class Outlets(Protocol):
    """Where effects go that leave the process or take long."""

    def tell(self, member: MemberId, command: ServerCommand) -> None:
        """Push a command, if the member is connected."""
        ...

    def announce(self, event: JobEvent) -> None:
        """Wake who watches the job."""
        ...

    async def work(self, effect: Work) -> ev.WorkDone:
        """Do the work, off the event loop; failures are results too."""
        ...

    async def add(self, effect: ev.RunAdd) -> None:
        """Add an input to its round's sum, off the event loop."""
        ...

    async def forget(self, effect: ev.ForgetPayloads) -> None:
        """Delete artifacts that nothing needs any more."""
        ...

    async def sweep(self, named: frozenset[str]) -> None:
        """Delete old artifacts that are none of these."""
        ...


@dataclass(eq=False)
class _Waiting:
    """Inputs that came together."""

    items: tuple[ev.Input, ...]
    #: Called in the coordinator's thread ahead of them, once; None if nothing is to be, or it has been.
    first: Callable[[], None] | None = None
    #: Set when they need not be repeated; None if nobody waits for it.
    done: asyncio.Future[None] | None = None
    #: What `first` raised: then they are not taken in.
    error: Exception | None = None


class Pump:
    """The one caller of a coordinator. Everything here but the coordinator's own calls runs on the event loop."""

    def __init__(self, coordinator: Heart, outlets: Outlets, clock: Clock) -> None:
        self._coordinator = coordinator
        self._outlets = outlets
        self._clock = clock
        #: The only thread that touches the coordinator and, through `call`, its store.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coordinator")
        self._inputs: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._drain: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        #: Why inputs wait, in one sentence; empty while they do not.
        self.problem: str = ""

    async def start(self) -> None:
        """Rebuild every running job, perform what must be under way, and begin to take inputs.

        Raises:
            FaultError: the store cannot be read.
        """
        self._perform((*await self.call(self._coordinator.recover), ev.SweepArtifacts()))
        self._drain = asyncio.create_task(self._take_batches(), name="pump")

    async def stop(self) -> None:
        """Take in what has arrived, if the store allows, and end. Work under way is given up and done again later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        # Asked to end, not cancelled: a batch that is being committed must not be taken in twice.
        self._stopping.set()
        self._arrived.set()
        if self._drain is not None:
            await self._drain
        self._thread.shutdown(wait=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed in the coordinator's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def act(self, function: Callable[[], tuple[ev.Effect, ...]]) -> None:
        """Call the coordinator's function and perform the effects it gives."""
        self._perform(await self.call(function))

    def put(self, item: ev.Input) -> None:
        """Take the input in soon."""
        self._inputs.append(_Waiting((item,)))
        self._arrived.set()

    async def take(self, *items: ev.Input, first: Callable[[], None] | None = None) -> None:
        """Take the inputs in, in one batch, and return when they need not be repeated.

        A sender that waits for it cannot flood. `first` is called in the coordinator's thread ahead of them; what it
        raises is raised here, and then none of them is taken in.
        """
        if not items and first is None:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inputs.append(_Waiting(items, first, done))
        self._arrived.set()
        await done

    # ---- inputs ----------------------------------------------------------------------------------------------------

    async def _take_batches(self) -> None:
        while self._inputs or not self._stopping.is_set():
            await self._arrived.wait()
            if not self._inputs:
                continue
            if not await self._take_batch():
                if self._stopping.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RETRY_S)

    async def _take_batch(self) -> bool:
        """One commit; False if the store could not take it, and the inputs still wait."""
        batch = self._next_batch()
        try:
            effects = await self._handle(batch)
        except FaultError as error:
            if self.problem != str(error):
                _log.error("inputs wait for the store", **error.as_dict())
            self.problem = str(error)
            return False
        if self.problem:
            _log.info("the store takes inputs again")
            self.problem = ""
        del self._inputs[: len(batch)]
        if not self._inputs and not self._stopping.is_set():
            self._arrived.clear()
        self._perform(effects)
        for waiting in batch:
            if waiting.done is None or waiting.done.done():
                continue
            if waiting.error is None:
                waiting.done.set_result(None)
            else:
                waiting.done.set_exception(waiting.error)
        return True

    def _next_batch(self) -> list[_Waiting]:
        """What is taken in together; inputs that came together are not parted."""
        count = place = 0
        for place, waiting in enumerate(self._inputs):
            count += len(waiting.items)
            if place and count > MOST_IN_A_BATCH:
                return self._inputs[:place]
        return self._inputs[: place + 1]

    async def _handle(self, batch: Sequence[_Waiting]) -> tuple[ev.Effect, ...]:
        """The batch's effects; where the batch fails for another reason than the store, each input by itself."""
        try:
            return await self.call(self._take_in, batch)
        except FaultError:
            raise
        except Exception:  # noqa: BLE001 - one input that cannot be handled must not stop the coordinator
            items = _accepted(batch)
            if len(items) == 1:
                _log.exception("an input was dropped", input=type(items[0]).__name__)
                return ()
        effects: list[ev.Effect] = []
        for item in items:
            effects.extend(await self._handle([_Waiting((item,))]))
        return tuple(effects)

    def _take_in(self, batch: Sequence[_Waiting]) -> tuple[ev.Effect, ...]:
        """In the coordinator's thread: what goes first, then the inputs."""
        for waiting in batch:
            if waiting.first is not None:
                try:
                    waiting.first()
                except Exception as error:  # noqa: BLE001 - raised where the inputs came from
                    waiting.error = error
                waiting.first = None
        items = _accepted(batch)
        return self._coordinator.handle(items) if items else ()

    # ---- effects ---------------------------------------------------------------------------------------------------

    def _perform(self, effects: Sequence[ev.Effect]) -> None:
        for effect in effects:
            match effect:
                case ev.Tell(member, command):
                    self._outlets.tell(member, command)
                case ev.Announce(event):
                    self._outlets.announce(event)
                case ev.SetTimer(key, at):
                    self._set_timer(key, at)
                case ev.CancelTimer(key):
                    self._cancel_timer(key)
                case ev.RunInitialModel() | ev.RunAggregate() | ev.RunEvaluate():
                    self._begin(_work_key(effect), partial(self._work, effect))
                case ev.RunAdd():
                    self._begin(effect.payload, partial(self._outlets.add, effect))
                case ev.ForgetPayloads():
                    self._begin(effect, partial(self._outlets.forget, effect))
                case ev.SweepArtifacts():
                    self._begin(effect, self._sweep)
                case ev.Reject(member, error):
                    _log.warning("a member's report was refused", member=member.hex(), **error.as_dict())
                case ev.RecordModel() | ev.RecordRound() | ev.Audit():
                    pass  # written with the transition
                case _:
                    assert_never(effect)

    def _set_timer(self, key: str, at: float) -> None:
        self._cancel_timer(key)
        delay = max(0.0, at - self._clock.now())
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self._fire, key)

    def _cancel_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        self.put(ev.TimerFired(key))

    def _begin(self, key: object, start: Callable[[], Awaitable[None]]) -> None:
        """Run in the background, unless the same is under way."""
        if key in self._tasks:
            return

        async def run() -> None:
            try:
                await start()
            except LeptonError as error:
                _log.warning("work in the background failed", **error.as_dict())
            except Exception:  # noqa: BLE001 - the boundary of a background task
                _log.exception("work in the background failed")

        task = asyncio.create_task(run())
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _sweep(self) -> None:
        await self._outlets.sweep(await self.call(self._coordinator.named_artifacts))

    async def _work(self, effect: Work) -> None:
        self.put(await self._outlets.work(effect))


def _accepted(batch: Sequence[_Waiting]) -> list[ev.Input]:
    """The inputs of a batch, but for those that nothing may come of."""
    return [item for waiting in batch if waiting.error is None for item in waiting.items]


def _work_key(effect: Work) -> tuple[str, str, int]:
    """What makes two pieces of work the same."""
    match effect:
        case ev.RunInitialModel(job):
            return "initial", job, 0
        case ev.RunAggregate():
            return "aggregate", effect.job_id, effect.round
        case ev.RunEvaluate():
            return "evaluate", effect.job_id, effect.version
        case _:
            assert_never(effect)
