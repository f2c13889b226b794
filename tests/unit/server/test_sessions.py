"""One live session a member, a grace for a broken one, and no memory for a slow reader."""

from __future__ import annotations

import asyncio

import pytest

from lepton_core.errors import ConflictError, FaultError
from lepton_core.ids import JobId, MemberId
from lepton_core.session import JobClosed
from lepton_server.api.sessions import MOST_WAITING, Sessions

MEMBER = MemberId(bytes(16))
CLOSED = JobClosed(JobId("job"), "finished", "")


def made(grace_s: float) -> tuple[Sessions, asyncio.Queue[MemberId]]:
    lost: asyncio.Queue[MemberId] = asyncio.Queue()
    return Sessions(lost.put_nowait, grace_s=grace_s), lost


async def test_commands_reach_the_open_session_in_order() -> None:
    sessions, _ = made(60.0)
    session = sessions.open(MEMBER)
    other = JobClosed(JobId("other"), "failed", "why")
    sessions.push(MEMBER, CLOSED)
    sessions.push(MEMBER, other)
    sessions.push(MemberId(b"x" * 16), CLOSED)  # nobody
    assert await session.next() == (CLOSED, other)
    sessions.push(MEMBER, CLOSED)
    session.end(None)
    assert await session.next() == (CLOSED,)
    assert await session.next() == ()


async def test_a_member_that_comes_back_within_the_grace_is_not_lost() -> None:
    sessions, lost = made(60.0)
    sessions.close(sessions.open(MEMBER))
    assert sessions.is_connected(MEMBER)
    sessions.open(MEMBER)
    assert lost.empty()
    assert sessions.count() == 1


async def test_a_member_that_stays_away_is_lost_once() -> None:
    sessions, lost = made(0.0)
    session = sessions.open(MEMBER)
    sessions.close(session)
    sessions.close(session)
    assert await asyncio.wait_for(lost.get(), 5.0) == MEMBER
    assert not sessions.is_connected(MEMBER)
    assert lost.empty()


async def test_the_end_of_a_replaced_session_loses_nobody() -> None:
    sessions, lost = made(0.0)
    older = sessions.open(MEMBER)
    newer = sessions.open(MEMBER)
    with pytest.raises(ConflictError):
        await older.next()
    sessions.close(older)
    sessions.push(MEMBER, CLOSED)
    assert await newer.next() == (CLOSED,)
    assert sessions.is_connected(MEMBER)
    assert lost.empty()


async def test_a_reader_that_is_too_slow_loses_its_stream_and_no_memory() -> None:
    sessions, _ = made(60.0)
    session = sessions.open(MEMBER)
    for _ in range(3 * MOST_WAITING):
        sessions.push(MEMBER, CLOSED)
    came = 0
    while came < MOST_WAITING:
        commands = await session.next()
        assert set(commands) == {CLOSED}
        came += len(commands)
    with pytest.raises(FaultError, match="too slowly"):
        await session.next()


async def test_a_polling_member_is_connected_until_it_stops() -> None:
    sessions, lost = made(60.0)
    assert sessions.touch(MEMBER, valid_s=60.0)
    assert not sessions.touch(MEMBER, valid_s=60.0)
    assert sessions.is_connected(MEMBER)
    assert not sessions.touch(MEMBER, valid_s=0.0)
    assert await asyncio.wait_for(lost.get(), 5.0) == MEMBER
    assert sessions.touch(MEMBER, valid_s=60.0)


async def test_a_coordinator_that_stops_reports_nobody_as_lost() -> None:
    sessions, lost = made(0.0)
    session = sessions.open(MEMBER)
    sessions.touch(MemberId(b"y" * 16), valid_s=60.0)
    sessions.end_all()
    with pytest.raises(FaultError):
        await session.next()
    sessions.close(session)
    assert sessions.count() == 0
    assert lost.empty()
