"""The real coordinator with a liar at its wire: `python -m tests.hostile.coordinator HOME TAP`.

Everything is the product but two hooks of this process: what it is about to tell a member, and what it hears from one.
A job whose name is a lie's is lied to in that way; every other job is served honestly. TAP gets a line of JSON for
each command and report of a job, as it was on the wire: what a test can hold daemons to.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from lepton_core.ids import JobId, MemberId
from lepton_core.secagg.messages import SurvivorSet, Unmasking
from lepton_core.session import (
    MatchAnswer,
    MemberReport,
    RoundInvite,
    RoundRefusal,
    ServerCommand,
    Welcome,
)
from lepton_server.api.sessions import Session
from lepton_server.app import serve
from lepton_server.jobs.events import Reported
from lepton_server.jobs.phases import Roll
from lepton_server.logs import configure_logs
from lepton_server.pump import Pump
from tests.hostile.coordinator_lie import Lie
from tests.hostile.coordinator_lies import LIES


class Wire:
    """Between the coordinator and its members: tells and hears through each job's lie. Runs on the event loop."""

    def __init__(self, tap: TextIO) -> None:
        self._tap = tap
        self._push = Session.push
        self._sessions: dict[MemberId, Session] = {}
        self._lies: dict[JobId, Lie] = {}

    def lie(self, job: JobId) -> Lie:
        """How this job is lied to."""
        if job not in self._lies:
            self._lies[job] = _kind_of(job)(self.say)
        return self._lies[job]

    def tell(self, session: Session, command: ServerCommand) -> None:
        """What an honest coordinator would tell, through the lie."""
        if isinstance(command, Welcome):
            self._sessions[session.member] = session
            self._push(session, command)
            for lie in tuple(self._lies.values()):
                lie.welcomed(session.member)
            return
        for told in self.lie(_job_of(command)).tell(session.member, command):
            self.say(session.member, told)

    def say(self, member: MemberId, command: ServerCommand) -> None:
        """Exactly this, to the member."""
        self._note("told", member, command)
        self._push(self._sessions[member], command)

    def hear(self, said: Reported) -> tuple[Reported, ...]:
        """What the coordinator's own machines are let know of a report."""
        self._note("heard", said.member, said.report)
        return tuple(self.lie(said.report.job).hear(said))

    def _note(self, way: str, member: MemberId, said: ServerCommand | MemberReport) -> None:
        message = getattr(said, "message", said)
        line = {
            "way": way,
            "member": member.hex(),
            "job": _job_of(said),
            "round": int(said.setup.round if isinstance(said, RoundInvite) else getattr(said, "round", 0)),
            "kind": type(message).__name__,
        }
        match message:
            case MatchAnswer(refusal=refusal) | RoundRefusal(refusal=refusal):
                line["reason"] = refusal.reason if refusal is not None else ""
            case SurvivorSet(survivors):
                line["survivors"] = [survivor.hex() for survivor in survivors]
            case Unmasking(revealed=revealed):
                line["revealed"] = {entry.dealer.hex(): entry.kind.name for entry in revealed}
        self._tap.write(json.dumps(line) + "\n")


def _kind_of(job: str) -> type[Lie]:
    """The lie that the job is named after; its id is the name and a random end."""
    return LIES.get(job.rpartition("-")[0], Lie)


def _job_of(said: ServerCommand | MemberReport) -> JobId:
    return said.setup.job if isinstance(said, RoundInvite) else said.job


def install(wire: Wire) -> None:
    """Hook this process's coordinator."""
    take, honest_choice = Pump.take, Roll.eligible.fget

    async def hearing(pump: Pump, *items: object, first: Callable[[], None] | None = None) -> None:
        await take(pump, first=first)
        for item in items:
            for one in wire.hear(item) if isinstance(item, Reported) else (item,):
                await take(pump, one)

    def choice(roll: Roll) -> frozenset[MemberId]:
        """Whoever is willing, where the lie is to ask again."""
        asks_again = roll.model is not None and _kind_of(roll.model.job).asks_again
        return roll.willing if asks_again else honest_choice(roll)

    def telling(session: Session, command: ServerCommand) -> None:
        wire.tell(session, command)

    Session.push = telling
    Pump.take = hearing
    Roll.eligible = property(choice)


if __name__ == "__main__":
    configure_logs()
    with Path(sys.argv[2]).open("a", buffering=1, encoding="utf-8") as tap:
        install(Wire(tap))
        asyncio.run(serve(Path(sys.argv[1])))
