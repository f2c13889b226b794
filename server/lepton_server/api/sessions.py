"""The open control sessions: one live stream a member, and a short grace for one that broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from lepton_core.errors import ConflictError, FaultError, LeptonError
from lepton_core.ids import MemberId
from lepton_core.session import ServerCommand
from lepton_protos.convert import MOST_IN_A_BATCH

#: Commands that may wait for a slow reader. Each stands until it is answered, so that a cut stream loses nothing.
MOST_WAITING = 1_024


@dataclass(eq=False)
class Session:
    """One stream's outgoing commands."""

    member: MemberId
    _waiting: asyncio.Queue[ServerCommand | None] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING + 1))
    _ending: LeptonError | None = None
    _ended: bool = False

    def push(self, command: ServerCommand) -> None:
        """Send soon; a reader that is too slow loses its stream instead."""
        if self._ended:
            return
        if self._waiting.qsize() >= MOST_WAITING:
            self.end(FaultError("the stream is read too slowly", where=f"member {self.member.hex()}"))
            return
        self._waiting.put_nowait(command)

    def end(self, error: LeptonError | None) -> None:
        """End the stream, with a reason or because the member is done; the first call counts."""
        if not self._ended:
            self._ended, self._ending = True, error
            self._waiting.put_nowait(None)

    async def next(self) -> tuple[ServerCommand, ...]:
        """The commands that wait, at least one and in order; none when the stream is to end.

        Raises:
            LeptonError: why the stream ends.
        """
        commands: list[ServerCommand] = []
        while len(commands) < MOST_IN_A_BATCH and (not commands or not self._waiting.empty()):
            command = await self._waiting.get()
            if command is None:
                if commands:  # said first, and the end next time
                    self._waiting.put_nowait(None)
                    break
                if self._ending is not None:
                    raise self._ending
                break
            commands.append(command)
        return tuple(commands)


class Sessions:
    """Who is connected. Runs on the event loop."""

    def __init__(self, on_lost: Callable[[MemberId], None], *, grace_s: float) -> None:
        self._on_lost = on_lost
        self._grace_s = grace_s
        self._live: dict[MemberId, Session] = {}
        #: Members counted as connected without a stream: within the grace time, or polling.
        self._leaving: dict[MemberId, asyncio.TimerHandle] = {}

    def open(self, member: MemberId) -> Session:
        """A session for the member; an older one of it ends."""
        older = self._live.get(member)
        if older is not None:
            older.end(
                ConflictError(
                    "the member has opened a newer session",
                    where=f"member {member.hex()}",
                    hint="run one daemon an owner",
                    reason="NEWER_SESSION",
                )
            )
        self._stay(member)
        session = self._live[member] = Session(member)
        return session

    def close(self, session: Session) -> None:
        """The stream has ended; the member is lost if it does not come back within the grace time."""
        session.end(None)
        if self._live.get(session.member) is session:
            del self._live[session.member]
            self._leave_after(session.member, self._grace_s)

    def touch(self, member: MemberId, *, valid_s: float) -> bool:
        """Count a member without a stream as connected for so long; False if it was connected already."""
        if member in self._live:
            return False
        new = member not in self._leaving
        self._stay(member)
        self._leave_after(member, valid_s)
        return new

    def push(self, member: MemberId, command: ServerCommand) -> None:
        """Send to the member, if it has a stream."""
        session = self._live.get(member)
        if session is not None:
            session.push(command)

    def is_connected(self, member: MemberId) -> bool:
        """True while the member has a stream, is within the grace time, or polls."""
        return member in self._live or member in self._leaving

    def count(self) -> int:
        """How many members are connected."""
        return len(self._live.keys() | self._leaving.keys())

    def end_all(self) -> None:
        """The coordinator stops: end every stream, and report nobody as lost."""
        for timer in self._leaving.values():
            timer.cancel()
        self._leaving.clear()
        for session in tuple(self._live.values()):
            session.end(FaultError("the coordinator is stopping", hint="reconnect", reason="STOPPING"))
        self._live.clear()

    def _stay(self, member: MemberId) -> None:
        timer = self._leaving.pop(member, None)
        if timer is not None:
            timer.cancel()

    def _leave_after(self, member: MemberId, delay_s: float) -> None:
        self._leaving[member] = asyncio.get_running_loop().call_later(delay_s, self._lose, member)

    def _lose(self, member: MemberId) -> None:
        self._leaving.pop(member, None)
        self._on_lost(member)
