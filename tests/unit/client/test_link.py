"""Does a session let itself be ended at any moment?"""

from __future__ import annotations

import asyncio
import io

import grpc
import grpc.aio
import pytest

from lepton_client import link
from lepton_client.link import ControlSession, _heartbeat_s
from lepton_client.logs import open_log
from lepton_core import __version__
from lepton_core.ids import MemberId
from lepton_core.session import PROTOCOL_VERSION, Welcome
from lepton_protos import convert


class SlowlyEndingStream:
    """A stream that is lost after its welcome, with a write under way that takes a moment to be given up."""

    def __init__(self) -> None:
        self._greeted = False
        self._writing = asyncio.Event()
        self.giving_up = asyncio.Event()
        self.given_up = asyncio.Event()

    async def write(self, _message: object) -> None:
        if not self._greeted:
            return
        self._writing.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.giving_up.set()
            await self.given_up.wait()

    async def read(self) -> object:
        if not self._greeted:
            self._greeted = True
            return convert.command_to_proto(Welcome(PROTOCOL_VERSION, __version__, 0.001), sequence=1)
        await self._writing.wait()
        return grpc.aio.EOF

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def cancel(self) -> None:
        """Nothing to end."""


async def test_a_session_that_is_ended_while_its_stream_is_lost_ends(monkeypatch) -> None:
    monkeypatch.setattr(link, "WELCOME_DEADLINE_S", 0.1)
    stream = SlowlyEndingStream()
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        session = ControlSession(channel, MemberId(bytes(16)), open_log(io.StringIO()))
        session._stub = type("Stub", (), {"Session": lambda _: stream})()
        running = asyncio.create_task(session.run())
        await stream.giving_up.wait()
        running.cancel()
        # The cancellation arrives while the lost stream is still cleared away.
        await asyncio.sleep(0)
        stream.given_up.set()
        await asyncio.wait({running}, timeout=3)
        ended = running.cancelled()
        running.cancel()
        await asyncio.wait({running})
        assert ended


@pytest.mark.parametrize(("asked", "kept"), [(0.0, 0.05), (-5.0, 0.05), (30.0, 30.0), (1e300, 300.0)])
async def test_no_coordinator_can_make_a_daemon_send_without_pause_or_fall_silent(asked: float, kept: float) -> None:
    assert _heartbeat_s(Welcome(PROTOCOL_VERSION, __version__, asked)) == kept
