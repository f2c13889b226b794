"""`Control`: a member's session, and `Poll` with the same meaning."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from lepton_core import __version__
from lepton_core.errors import ConflictError, IdentityError, InputError, LeptonError
from lepton_core.ids import JobId, MemberId, ModelVersion, OwnerName, require_name
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.session import PROTOCOL_VERSION, Heartbeat, Hello, MemberReport, ServerCommand, Welcome
from lepton_protos import convert
from lepton_protos.v1 import control_pb2 as pb
from lepton_server.api.guard import Call
from lepton_server.api.sessions import Session, Sessions
from lepton_server.coordinator import Coordinator
from lepton_server.identity.anchors import Anchors
from lepton_server.identity.principals import Principal
from lepton_server.jobs.events import MemberConnected, Reported
from lepton_server.pump import Pump

#: How long an open stream may stay silent before its `Hello`.
HELLO_S = 10.0
#: Polls that may be missed before a polling member counts as lost.
_MISSED_POLLS = 3
_MOST_REPORTS_A_POLL = 64
#: Bytes of commands that travel together, far below a message's 4 MiB.
_LARGEST_BATCH = 2**20


class ControlService:
    """Commands out, reports in. The member is the one of the certificate."""

    service = pb.DESCRIPTOR.services_by_name["Control"]

    def __init__(
        self, coordinator: Coordinator, pump: Pump, sessions: Sessions, anchors: Anchors, *, heartbeat_s: float
    ) -> None:
        self._coordinator = coordinator
        self._anchors = anchors
        self._pump = pump
        self._sessions = sessions
        self._heartbeat_s = heartbeat_s

    async def session(self, batches: AsyncIterator[pb.ReportBatch], call: Call) -> AsyncIterator[pb.CommandBatch]:
        """One member's stream. An answer that is refused does not end it; a message that cannot be read does."""
        try:
            async with asyncio.timeout(HELLO_S):
                first = await anext(batches, None)
        except TimeoutError:
            first = None
        opening = () if first is None else _said_in(first)
        member = _require_hello(opening[0][0] if opening else None, call)
        anchor = None if first is None else convert.anchor_from_proto(first)
        session = self._sessions.open(member)
        reader = asyncio.create_task(self._read(batches, session, call.principal))
        try:
            session.push(await self._welcome(call.principal))
            await self._pump.take(MemberConnected(member), first=self._anchoring(anchor, call.principal))
            await self._take(opening[1:], session)
            await self._repeat(session)
            sent = 0
            while commands := await session.next():
                for batch in _split(commands, first=sent + 1):
                    yield batch
                sent += len(commands)
        finally:
            self._sessions.close(session)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def poll(self, request: pb.PollRequest, call: Call) -> pb.PollReply:
        """Reports in, and what stands for the member out; a member that keeps polling is connected."""
        if len(request.reports) > _MOST_REPORTS_A_POLL:
            raise InputError(
                "too many reports", expected=f"at most {_MOST_REPORTS_A_POLL}", got=str(len(request.reports))
            )
        reports = [convert.report_from_proto(envelope) for envelope in request.reports]
        member = _member_of(call)
        commands: list[pb.ServerCommand] = []
        for report in reports:
            if isinstance(report, Hello):
                _require_hello(report, call)
                commands.append(convert.command_to_proto(await self._welcome(call.principal)))
        await self._pump.take(first=self._anchoring(convert.anchor_from_proto(request), call.principal))
        if self._sessions.touch(member, valid_s=_MISSED_POLLS * self._heartbeat_s):
            await self._pump.take(MemberConnected(member))
        await self._pump.take(*(Reported(member, said) for said in reports if not isinstance(said, (Hello, Heartbeat))))
        standing = await self._pump.call(self._coordinator.outstanding, member)
        return pb.PollReply(commands=[*commands, *map(convert.command_to_proto, standing)])

    async def links(self, request: pb.LinksRequest, call: Call) -> pb.LinksReply:
        """What a member needs to compute the newest model of a job from one that it has."""
        job, after = JobId(require_name(request.job, "job id")), ModelVersion(request.after_version)
        lineage = await self._pump.call(self._coordinator.lineage, _member_of(call), job, after)
        return pb.LinksReply(digests=lineage.links, snapshot=lineage.snapshot or "")

    async def _read(self, batches: AsyncIterator[pb.ReportBatch], session: Session, principal: Principal) -> None:
        """Take in batches, one after another, so that a member cannot send faster than they are taken in."""
        try:
            async for batch in batches:
                anchoring = self._anchoring(convert.anchor_from_proto(batch), principal)
                await self._take(_said_in(batch), session, anchoring)
        except LeptonError as error:
            session.end(error)
        else:
            session.end(None)

    async def _take(
        self,
        reports: Sequence[tuple[MemberReport, pb.MemberReport]],
        session: Session,
        first: Callable[[], None] | None = None,
    ) -> None:
        """What a member says at one time is taken in at one time."""
        said: list[Reported] = []
        for report, envelope in reports:
            match report:
                case Hello():
                    raise InputError("a session is opened once", where=f"member {session.member.hex()}")
                case Heartbeat():
                    await self._repeat(session)
                case _:
                    said.append(Reported(session.member, report, convert.take_bytes_of(envelope)))
        await self._pump.take(*said, first=first)

    async def _repeat(self, session: Session) -> None:
        for command in await self._pump.call(self._coordinator.outstanding, session.member):
            session.push(command)

    def _anchoring(self, anchor: LedgerAnchor | None, principal: Principal) -> Callable[[], None] | None:
        """Takes the anchor, where the coordinator is: together with what came with it, so that it costs no wait."""
        if anchor is None or principal.member is None:
            return None
        return functools.partial(self._anchors.take, OwnerName(principal.name), principal.member, anchor)

    async def _welcome(self, principal: Principal) -> Welcome:
        kept = await self._pump.call(self._anchors.given_back, OwnerName(principal.name))
        return Welcome(PROTOCOL_VERSION, __version__, self._heartbeat_s, kept)


def _said_in(batch: pb.ReportBatch) -> tuple[tuple[MemberReport, pb.MemberReport], ...]:
    """The reports of a batch, each with the envelope it came in.

    Raises:
        InputError: too many, or one that is empty or malformed.
    """
    return tuple(zip(convert.reports_from_proto(batch), batch.reports, strict=True))


def _split(commands: Sequence[ServerCommand], *, first: int) -> Iterator[pb.CommandBatch]:
    """The commands in as few messages as may be of their size."""
    batch = convert.commands_to_proto(commands, first=first)
    if len(commands) == 1 or batch.ByteSize() <= _LARGEST_BATCH:
        yield batch
        return
    half = len(commands) // 2
    yield from _split(commands[:half], first=first)
    yield from _split(commands[half:], first=first + half)


def _require_hello(report: MemberReport | None, call: Call) -> MemberId:
    """The member that opens the session.

    Raises:
        InputError: something else came first, or nothing.
        ConflictError: it speaks another version.
        IdentityError: the certificate belongs to another owner than the one that speaks.
    """
    if not isinstance(report, Hello):
        raise InputError("a session begins with a Hello", got=type(report).__name__, reason="NO_HELLO")
    if report.protocol_version != PROTOCOL_VERSION:
        raise ConflictError(
            "another version of the control protocol",
            expected=f"version {PROTOCOL_VERSION} (Lepton {__version__})",
            got=f"version {report.protocol_version} (Lepton {report.software_version[:40]})",
            hint="install the same release on both sides",
            reason="PROTOCOL_VERSION",
        )
    member = _member_of(call)
    if report.member != member:
        raise IdentityError(
            "the certificate belongs to another owner",
            where=call.principal.name,
            expected=f"member {member.hex()}",
            got=f"member {report.member.hex()}",
            hint="the daemon's identity.pem and its TLS folder come from different enrolments",
            reason="WRONG_MEMBER",
        )
    return member


def _member_of(call: Call) -> MemberId:
    if call.principal.member is None:
        raise IdentityError(
            "a certificate without a protocol identity", where=call.principal.name, reason="NO_IDENTITY"
        )
    return call.principal.member
