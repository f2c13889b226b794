"""The control session: dials out, says hello, takes commands in, sends reports, and comes back when it is lost.

Everything is level-triggered, so nothing of a lost stream is missed: the coordinator repeats what is unanswered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from lepton_client.logs import Log
from lepton_core import __version__
from lepton_core.errors import ConflictError, FaultError, IdentityError, InputError, LeptonError
from lepton_core.ids import MemberId
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.session import (
    PROTOCOL_VERSION,
    Heartbeat,
    Hello,
    MemberReport,
    RoundReport,
    ServerCommand,
    Welcome,
)
from lepton_protos import convert
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import control_pb2, control_pb2_grpc

#: The first retry comes soon, as most losses are a restart; then full jitter between these bounds, in seconds, so
#: that members cut off together do not come back together (AWS, "Exponential backoff and jitter").
FIRST_RETRY_S = 0.2
LEAST_RETRY_S = 1.0
MOST_RETRY_S = 60.0
#: Longest that the coordinator may take to answer a hello, or to take one report in.
WELCOME_DEADLINE_S = 20.0
WRITE_DEADLINE_S = 30.0
#: Least and most time between heartbeats, whatever the coordinator asks for.
LEAST_HEARTBEAT_S = 0.05
MOST_HEARTBEAT_S = 300.0
#: TLS failures in a row before the first welcome that mean a wrong CA or certificate rather than a cut connection.
_TLS_FAILURES = 3
#: Commands taken in and not handled yet; beyond them the coordinator waits.
_WAITING_COMMANDS = 256

#: Bytes of reports that travel together, far below a message's 4 MiB; one report alone may have more.
_LARGEST_BATCH = 2**20


class AnchorsOfLedger(Protocol):
    """The ledger's part in a session: what rides on its messages, and what its welcome brings."""

    def moved(self, since: int) -> LedgerAnchor | None:
        """Where the ledger stands, if it has another number of entries than this."""
        ...

    def given_back(self, anchors: Sequence[LedgerAnchor]) -> None:
        """What the coordinator keeps of this owner's ledgers."""
        ...


_Call = grpc.aio.StreamStreamCall[control_pb2.ReportBatch, control_pb2.CommandBatch]


class ControlSession:
    """A session that outlives its streams. `run` keeps it up; `commands` and `report` are its two ends."""

    def __init__(
        self, channel: grpc.aio.Channel, member: MemberId, log: Log, anchors: AnchorsOfLedger | None = None
    ) -> None:
        """`anchors` is the ledger's part in it, if this owner has one."""
        make: Any = control_pb2_grpc.ControlStub  # generated without annotations
        self._stub: Any = make(channel)
        self._member = member
        self._log = log
        self._anchors = anchors
        #: Entries of the ledger that the stream's other end was told of.
        self._anchored = -1
        self._jitter = random.SystemRandom()
        #: Commands in the order they came, those together that came together; whoever handles them takes them out.
        self.commands: asyncio.Queue[tuple[ServerCommand, ...]] = asyncio.Queue(_WAITING_COMMANDS)
        self._outbox: deque[MemberReport] = deque()
        self._outbox_filled = asyncio.Event()
        self._welcomed_once = False
        self._welcomed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """True while the coordinator has welcomed this member and the stream lives."""
        return self._welcomed.is_set()

    def report(self, report: MemberReport) -> None:
        """Send the report, now or when there is a stream again."""
        self._outbox.append(report)
        self._outbox_filled.set()

    async def run(self) -> None:
        """Keep the session up until cancelled.

        Raises:
            IdentityError: revoked, another member's certificate, or another CA; trying again cannot help.
            ConflictError: the coordinator speaks another version of the protocol.
        """
        attempt = tls_failures = 0
        while True:
            self._welcomed.clear()
            try:
                await self._one_stream()
                error: LeptonError = FaultError("the coordinator has ended the session")
            except LeptonError as failed:
                error = failed
            if self._welcomed.is_set():
                attempt = tls_failures = 0
            tls_failures += isinstance(error, IdentityError) and not error.reason
            if self._is_fatal(error, tls_failures):
                raise error
            pause_s = self._pause_s(attempt)
            attempt += 1
            self._welcomed.clear()
            self._log.warning("session lost", code=error.code, reason=error.message, retry_in_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)

    def _is_fatal(self, error: LeptonError, tls_failures: int) -> bool:
        if isinstance(error, ConflictError):
            return True
        if not isinstance(error, IdentityError):
            return False
        # A handshake that a dying coordinator cuts short looks like a certificate that does not hold.
        return bool(error.reason) or (tls_failures >= _TLS_FAILURES and not self._welcomed_once)

    def _pause_s(self, attempt: int) -> float:
        if attempt == 0:
            return FIRST_RETRY_S
        return self._jitter.uniform(LEAST_RETRY_S, min(MOST_RETRY_S, LEAST_RETRY_S * 2.0**attempt))

    async def _one_stream(self) -> None:
        call: _Call = self._stub.Session()
        try:
            welcome = await self._greet(call)
            self._welcomed_once = True
            self._welcomed.set()
            self._log.info("session open", software_version=welcome.software_version)
            taken_in = _TakenIn()
            reading = asyncio.create_task(self._read(call, taken_in))
            writing = asyncio.create_task(self._write(call, taken_in, _heartbeat_s(welcome)))
            try:
                done, _ = await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                reading.cancel()
                writing.cancel()
                # Unlike awaiting each, this lets the session's own cancellation through.
                await asyncio.gather(reading, writing, return_exceptions=True)
        except grpc.RpcError as failure:
            raise error_from_rpc(failure) from None
        except asyncio.InvalidStateError:
            # A write on a stream that has just ended; why it ended is its status.
            raise await _error_of(call) from None
        finally:
            call.cancel()

    async def _greet(self, call: _Call) -> Welcome:
        try:
            async with asyncio.timeout(WELCOME_DEADLINE_S):
                hello = Hello(PROTOCOL_VERSION, __version__, self._member)
                self._anchored = -1
                await call.write(convert.reports_to_proto((hello,), anchor=self._moved()))
                answer = await call.read()
        except TimeoutError:
            raise FaultError("the coordinator does not answer", expected=f"within {WELCOME_DEADLINE_S:g} s") from None
        if not isinstance(answer, control_pb2.CommandBatch):
            raise await _error_of(call)
        welcome, *more = self._readable(answer)[1] or (None,)
        if not isinstance(welcome, Welcome):
            raise FaultError("the coordinator did not begin with a welcome", got=type(welcome).__name__)
        if welcome.protocol_version != PROTOCOL_VERSION:
            raise ConflictError(
                "coordinator and daemon speak different versions of the protocol",
                where="coordinator",
                expected=f"protocol {PROTOCOL_VERSION}, software {__version__}",
                got=f"protocol {welcome.protocol_version}, software {welcome.software_version}",
                hint="install the same release of lepton-fl on both sides",
                reason="PROTOCOL_VERSION",
            )
        if self._anchors is not None:
            self._anchors.given_back(welcome.anchors)
        if more:
            await self.commands.put(tuple(more))
        return welcome

    def _moved(self) -> LedgerAnchor | None:
        """Where the ledger stands, if it has moved since this stream's other end was told."""
        anchor = self._anchors.moved(self._anchored) if self._anchors is not None else None
        if anchor is not None:
            self._anchored = anchor.sequence
        return anchor

    async def _read(self, call: _Call, taken_in: _TakenIn) -> None:
        while True:
            batch = await call.read()
            if not isinstance(batch, control_pb2.CommandBatch):
                error = await _error_of(call)
                raise error
            sequence, commands = self._readable(batch)
            if commands:
                await self.commands.put(commands)
            taken_in.sequence = max(taken_in.sequence, sequence)

    def _readable(self, batch: control_pb2.CommandBatch) -> tuple[int, tuple[ServerCommand, ...]]:
        """The highest number in the batch, and its commands; the owner's log tells of one that cannot be read."""
        highest, commands = 0, []
        try:
            for sequence, command in convert.commands_from_proto(batch):
                if isinstance(command, InputError):
                    self._log.warning("a command that cannot be read", code=command.code, reason=command.message)
                    continue
                highest = max(highest, sequence)
                commands.append(command)
        except InputError as error:
            self._log.warning("commands that cannot be read", code=error.code, reason=error.message)
        return highest, tuple(commands)

    async def _write(self, call: _Call, taken_in: _TakenIn, heartbeat_s: float) -> None:
        while True:
            if not self._outbox:
                self._outbox_filled.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s):
                        await self._outbox_filled.wait()
            reports = self._next_batch()
            batch = convert.reports_to_proto(
                reports or (Heartbeat(),), acknowledged=taken_in.sequence, anchor=self._moved()
            )
            try:
                async with asyncio.timeout(WRITE_DEADLINE_S):
                    await call.write(batch)
            except TimeoutError:
                raise FaultError(
                    "the coordinator takes nothing in", expected=f"within {WRITE_DEADLINE_S:g} s"
                ) from None
            for _ in reports:
                self._outbox.popleft()

    def _next_batch(self) -> tuple[MemberReport, ...]:
        """What waits to be sent, as much as may travel together."""
        batch: list[MemberReport] = []
        size = 0
        for report in itertools.islice(self._outbox, convert.MOST_IN_A_BATCH):
            size += len(report.payload) if isinstance(report, RoundReport) else 0
            if batch and size > _LARGEST_BATCH:
                break
            batch.append(report)
        return tuple(batch)


def _heartbeat_s(welcome: Welcome) -> float:
    """The pause between heartbeats that the coordinator asks for, as far as it makes sense."""
    return min(MOST_HEARTBEAT_S, max(LEAST_HEARTBEAT_S, welcome.heartbeat_s))


class _TakenIn:
    """The highest number of a command taken in on one stream."""

    def __init__(self) -> None:
        self.sequence = 0


async def _error_of(call: _Call) -> LeptonError:
    """Why a stream ended."""
    code = await call.code()
    if code == grpc.StatusCode.OK:
        return FaultError("the coordinator has ended the session")
    failure = grpc.aio.AioRpcError(
        code, await call.initial_metadata(), await call.trailing_metadata(), await call.details(), None
    )
    return error_from_rpc(failure)
