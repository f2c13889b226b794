"""The pump takes inputs in batches, outlives the store's faults, and performs each effect once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from lepton_core.errors import FaultError, PeerViolation
from lepton_core.ids import Digest, JobId, MemberId
from lepton_core.ports import SystemClock
from lepton_core.session import JobClosed, ServerCommand
from lepton_core.views import JobEvent
from lepton_server import pump as pump_module
from lepton_server.jobs import events as ev
from lepton_server.pump import Pump, Work

MEMBER = MemberId(bytes(16))
CLOSED = JobClosed(JobId("job"), "finished", "")


class ScriptedHeart:
    """Stands at the pump's port: notes what comes in, answers with what the test says."""

    def __init__(self) -> None:
        self.batches: list[list[ev.Input]] = []
        self.faults: list[Exception] = []
        self.effects: dict[type, tuple[ev.Effect, ...]] = {}
        self.recovered: tuple[ev.Effect, ...] = ()
        self.taken = threading.Semaphore(0)

    def handle(self, inputs: Sequence[ev.Input]) -> tuple[ev.Effect, ...]:
        if self.faults:
            raise self.faults.pop(0)
        if any(isinstance(item, ev.TimerFired) and item.key == "bad" for item in inputs):
            raise ZeroDivisionError
        self.batches.append(list(inputs))
        self.taken.release()
        return tuple(effect for item in inputs for effect in self.effects.get(type(item), ()))

    def recover(self) -> tuple[ev.Effect, ...]:
        return self.recovered

    def named_artifacts(self) -> frozenset[str]:
        return frozenset({"b" * 64})


class NotedOutlets:
    """Keeps what would leave the process."""

    def __init__(self) -> None:
        self.told: list[tuple[MemberId, ServerCommand]] = []
        self.worked: list[Work] = []
        self.forgotten: list[ev.ForgetPayloads] = []
        self.swept: list[frozenset[str]] = []
        self.release = asyncio.Event()
        self.arrived = asyncio.Event()

    def tell(self, member: MemberId, command: ServerCommand) -> None:
        self.told.append((member, command))
        self.arrived.set()

    def announce(self, event: JobEvent) -> None:
        raise AssertionError(event)

    async def work(self, effect: Work) -> ev.WorkDone:
        self.worked.append(effect)
        self.arrived.set()
        await self.release.wait()
        return ev.InitialModelReady(effect.job_id, Digest("a" * 64))

    async def forget(self, effect: ev.ForgetPayloads) -> None:
        self.forgotten.append(effect)
        self.arrived.set()

    async def sweep(self, named: frozenset[str]) -> None:
        self.swept.append(named)
        self.arrived.set()


def made() -> tuple[Pump, ScriptedHeart, NotedOutlets]:
    coordinator, outlets = ScriptedHeart(), NotedOutlets()
    return Pump(coordinator, outlets, SystemClock()), coordinator, outlets


async def test_inputs_that_come_together_are_one_commit() -> None:
    pump, coordinator, _ = made()
    for number in range(5):
        pump.put(ev.TimerFired(str(number)))
    await pump.start()
    await pump.take(ev.TimerFired("last"))
    await pump.stop()
    assert [[item.key for item in batch] for batch in coordinator.batches] == [["0", "1", "2", "3", "4", "last"]]


async def test_what_goes_first_runs_with_its_inputs_and_keeps_back_no_others_if_it_fails() -> None:
    pump, coordinator, _ = made()
    threads: list[str] = []

    def refuse() -> None:
        raise PeerViolation("not this one's", where="member")

    waiting = [
        asyncio.ensure_future(
            pump.take(ev.TimerFired("good"), first=lambda: threads.append(threading.current_thread().name))
        ),
        asyncio.ensure_future(pump.take(ev.TimerFired("refused"), first=refuse)),
        asyncio.ensure_future(pump.take(first=refuse)),
        asyncio.ensure_future(pump.take(ev.TimerFired("other"))),
    ]
    await asyncio.sleep(0)
    await pump.start()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    await pump.stop()
    assert [type(outcome) for outcome in outcomes] == [type(None), PeerViolation, PeerViolation, type(None)]
    assert [[item.key for item in batch] for batch in coordinator.batches] == [["good", "other"]]
    assert [name.startswith("coordinator") for name in threads] == [True]


async def test_what_goes_first_is_not_done_again_when_the_store_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "RETRY_S", 0.0)
    pump, coordinator, _ = made()
    coordinator.faults = [FaultError("the disk is full")]
    calls: list[int] = []
    await pump.start()
    await pump.take(ev.TimerFired("one"), first=lambda: calls.append(1))
    await pump.stop()
    assert calls == [1]
    assert len(coordinator.batches) == 1


async def test_a_store_fault_keeps_the_inputs_and_is_told_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "RETRY_S", 0.0)
    pump, coordinator, outlets = made()
    coordinator.effects[ev.MemberConnected] = (ev.Tell(MEMBER, CLOSED),)
    coordinator.faults = [FaultError("the disk is full"), FaultError("the disk is full")]
    problems: list[str] = []
    await pump.start()
    taken = asyncio.ensure_future(pump.take(ev.MemberConnected(MEMBER)))
    while not taken.done():
        problems.append(pump.problem)
        await asyncio.sleep(0)
    assert any("disk is full" in problem for problem in problems)
    assert pump.problem == ""
    assert coordinator.batches == [[ev.MemberConnected(MEMBER)]]
    assert outlets.told == [(MEMBER, CLOSED)]
    await pump.stop()


async def test_an_input_that_cannot_be_handled_is_dropped_and_the_others_are_not() -> None:
    pump, coordinator, outlets = made()
    coordinator.effects[ev.MemberLost] = (ev.Tell(MEMBER, CLOSED),)
    pump.put(ev.TimerFired("bad"))
    pump.put(ev.MemberLost(MEMBER))
    await pump.start()
    await pump.take(ev.TimerFired("good"))
    await pump.stop()
    assert [item for batch in coordinator.batches for item in batch] == [ev.MemberLost(MEMBER), ev.TimerFired("good")]
    assert outlets.told == [(MEMBER, CLOSED)]


async def test_what_recovery_gives_is_performed_and_a_timer_comes_back_as_an_input() -> None:
    pump, coordinator, _ = made()
    coordinator.recovered = (
        ev.SetTimer("late", SystemClock().now() + 3_600.0),
        ev.SetTimer("cancelled", 0.0),
        ev.CancelTimer("cancelled"),
        ev.SetTimer("due", 0.0),
    )
    await pump.start()
    assert await asyncio.to_thread(coordinator.taken.acquire, timeout=5.0)
    await pump.stop()
    assert coordinator.batches == [[ev.TimerFired("due")]]


async def test_work_under_way_is_not_begun_twice_and_its_result_is_an_input() -> None:
    pump, coordinator, outlets = made()
    work = ev.RunInitialModel(JobId("job"), None)  # type: ignore[arg-type]
    coordinator.recovered = (work, work)
    coordinator.effects[ev.TimerFired] = (work,)
    await pump.start()
    await pump.take(ev.TimerFired("again"))
    await outlets.arrived.wait()
    assert outlets.worked == [work]
    outlets.release.set()
    for _ in range(2):
        assert await asyncio.to_thread(coordinator.taken.acquire, timeout=5.0)
    await pump.stop()
    assert coordinator.batches[-1] == [ev.InitialModelReady(JobId("job"), Digest("a" * 64))]


async def test_stopping_takes_in_what_has_arrived() -> None:
    pump, coordinator, _ = made()
    await pump.start()
    pump.put(ev.TimerFired("arrived"))
    await pump.stop()
    assert coordinator.batches == [[ev.TimerFired("arrived")]]


async def test_what_no_job_names_is_swept_at_the_start_and_when_a_job_has_ended() -> None:
    pump, coordinator, outlets = made()
    coordinator.effects[ev.MemberLost] = (ev.SweepArtifacts(),)
    await pump.start()
    await outlets.arrived.wait()
    assert outlets.swept == [frozenset({"b" * 64})]
    outlets.arrived.clear()
    await pump.take(ev.MemberLost(MEMBER))
    await outlets.arrived.wait()
    assert outlets.swept == [frozenset({"b" * 64})] * 2
    await pump.stop()
