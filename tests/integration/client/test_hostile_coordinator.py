"""Is a coordinator that sends too much, other bytes, or another protocol met with a typed error and little memory?"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io

import grpc
import grpc.aio
import pytest

from lepton_client.link import ControlSession
from lepton_client.logs import open_log
from lepton_client.transfer_link import Transfers
from lepton_core.errors import ConflictError, FaultError, IdentityError, LeptonError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, JobId, MemberId, RoundNumber, digest_of
from lepton_core.session import PROTOCOL_VERSION, Hello, JobClosed, MatchAnswer, Welcome
from lepton_protos import convert
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.status import to_status
from lepton_protos.v1 import control_pb2, control_pb2_grpc, transfer_pb2, transfer_pb2_grpc

MEMBER = MemberId(b"m" * 16)
CONTENT = bytes(range(256)) * 8192  # 2 MiB
DIGEST = digest_of(CONTENT)
JOB, ROUND = JobId("job-1"), RoundNumber(1)


@contextlib.asynccontextmanager
async def coordinator(*, control=None, transfer=None):
    """A channel to servicers on a free port of this machine."""
    server = grpc.aio.server()
    if control is not None:
        control_pb2_grpc.add_ControlServicer_to_server(control, server)
    if transfer is not None:
        transfer_pb2_grpc.add_TransferServicer_to_server(transfer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


class Sends(transfer_pb2_grpc.TransferServicer):
    """Sends these chunks of (offset, size, data), from one list a call; falls silent at None."""

    def __init__(self, *calls: list[tuple[int, int, bytes] | grpc.StatusCode | None]) -> None:
        self.calls, self.offsets = list(calls), []

    async def Download(self, request, context):  # noqa: N802 - its name on the wire
        self.offsets.append(request.offset)
        for chunk in self.calls.pop(0):
            if isinstance(chunk, grpc.StatusCode):
                await context.abort(chunk, "lost")
            if chunk is None:
                await asyncio.Event().wait()
            offset, size, data = chunk
            yield transfer_pb2.DownloadChunk(offset=offset, size=size, data=data)


async def download(servicer: Sends, digest: Digest = DIGEST, largest: int = 2 * CHUNK_BYTES) -> bytes:
    async with coordinator(transfer=servicer) as channel:
        return await Transfers(channel).download(digest, largest=largest, deadline_s=20.0)


def chunks(content: bytes, start: int = 0) -> list:
    size = len(content)
    return [(at, size, content[at : at + CHUNK_BYTES]) for at in range(start, size, CHUNK_BYTES)]


async def test_a_download_is_checked_and_given_whole() -> None:
    assert await download(Sends(chunks(CONTENT))) == CONTENT


async def test_an_interrupted_download_goes_on_where_it_stopped() -> None:
    servicer = Sends([chunks(CONTENT)[0], grpc.StatusCode.UNAVAILABLE], chunks(CONTENT, CHUNK_BYTES))
    assert await download(servicer) == CONTENT
    assert servicer.offsets == [0, CHUNK_BYTES]


async def test_a_download_that_falls_silent_goes_on_where_it_stopped() -> None:
    silent = [[chunks(CONTENT)[0], None], [None]]
    servicer = Sends(*silent, chunks(CONTENT, CHUNK_BYTES))
    async with coordinator(transfer=servicer) as channel:
        transfers = Transfers(channel, quiet_s=0.3)
        assert await transfers.download(DIGEST, largest=2 * CHUNK_BYTES, deadline_s=20.0) == CONTENT
    assert servicer.offsets == [0, CHUNK_BYTES, CHUNK_BYTES]
    async with coordinator(transfer=Sends(*[[None]] * 20)) as channel:
        with pytest.raises(FaultError) as late:
            await Transfers(channel, quiet_s=0.1).download(DIGEST, largest=10, deadline_s=1.0)
    assert (late.value.reason, late.value.got) == ("DEADLINE", "nothing for 0.4 s")


@pytest.mark.parametrize(
    "sent",
    [
        [(0, 10**12, b"x")],
        [(0, 3 * CHUNK_BYTES, b"x" * CHUNK_BYTES)],
        [(0, 4, b"more than four")],
        [(1, 4, b"abc")],
        [(0, 6, b"abc"), (0, 6, b"abc")],
        [(0, 3, b"abc")],
        [],
    ],
)
async def test_a_download_of_another_size_order_or_content_is_a_violation(sent) -> None:
    with pytest.raises(PeerViolation) as violation:
        await download(Sends(sent))
    assert violation.value.reason == "BAD_DOWNLOAD"


async def test_a_transfer_that_never_succeeds_ends_with_its_deadline() -> None:
    async with coordinator(transfer=Sends(*[[grpc.StatusCode.UNAVAILABLE]] * 1000)) as channel:
        with pytest.raises(FaultError) as late:
            await Transfers(channel).download(DIGEST, largest=10, deadline_s=0.5)
    assert late.value.reason == "DEADLINE"


class Takes(transfer_pb2_grpc.TransferServicer):
    """Takes uploads in, and breaks the first one off after a chunk, or falls silent there."""

    def __init__(self, *, breaks: bool = False, silent: bool = False, refuses: LeptonError | None = None) -> None:
        self.held, self.breaks, self.silent, self.refuses, self.sent = b"", breaks, silent, refuses, 0

    async def Status(self, request, context):  # noqa: N802 - its name on the wire
        complete = hashlib.sha256(self.held).hexdigest() == request.header.digest
        return transfer_pb2.UploadStatus(received=len(self.held), complete=complete)

    async def Put(self, request_iterator, context):  # noqa: N802 - its name on the wire
        if self.refuses is not None:
            code, details, metadata = to_status(self.refuses)
            await context.abort(code, details, metadata)
        async for chunk in request_iterator:
            assert chunk.offset == len(self.held)
            assert len(chunk.data) <= CHUNK_BYTES
            self.held += chunk.data
            self.sent += 1
            yield transfer_pb2.UploadStatus(received=len(self.held))
            if self.breaks:
                self.breaks = False
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            if self.silent:
                self.silent = False
                await asyncio.Event().wait()
        yield transfer_pb2.UploadStatus(received=len(self.held), complete=True)


async def upload(servicer: Takes, times: int = 1) -> None:
    async with coordinator(transfer=servicer) as channel:
        for _ in range(times):
            await Transfers(channel).upload(JOB, ROUND, CONTENT, DIGEST, deadline_s=20.0)


async def test_an_interrupted_upload_resends_nothing_that_arrived() -> None:
    servicer = Takes(breaks=True)
    await upload(servicer, times=2)
    assert servicer.held == CONTENT
    assert servicer.sent == 2


async def test_an_upload_that_falls_silent_resends_nothing_that_arrived() -> None:
    servicer = Takes(silent=True)
    async with coordinator(transfer=servicer) as channel:
        await Transfers(channel, quiet_s=0.3).upload(JOB, ROUND, CONTENT, DIGEST, deadline_s=20.0)
    assert servicer.held == CONTENT
    assert servicer.sent == 2


async def test_an_upload_that_is_refused_is_not_tried_again() -> None:
    with pytest.raises(NotFoundError, match="no such round"):
        await upload(Takes(refuses=NotFoundError("no such round")))


# The session ------------------------------------------------------------------------------------------------------


class Speaks(control_pb2_grpc.ControlServicer):
    """Answers each stream by the next of these scripts."""

    def __init__(self, *scripts) -> None:
        self.scripts, self.heard = list(scripts), asyncio.Queue()

    async def Session(self, request_iterator, context):  # noqa: N802 - its name on the wire
        async def hear() -> None:
            for report in convert.reports_from_proto(await anext(request_iterator)):
                self.heard.put_nowait(report)

        await hear()
        async for answer in self.scripts.pop(0)(hear, context):
            yield convert.commands_to_proto((answer,), first=1)


def welcome(version: int = PROTOCOL_VERSION) -> Welcome:
    return Welcome(version, "1", 30.0)


async def fails(error: LeptonError, hear, context):
    code, details, metadata = to_status(error)
    await context.abort(code, details, metadata)
    yield welcome()


@contextlib.asynccontextmanager
async def session(servicer: Speaks):
    async with coordinator(control=servicer) as channel:
        kept = ControlSession(channel, MEMBER, open_log(io.StringIO()))
        task = asyncio.create_task(kept.run())
        try:
            yield kept, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_another_protocol_version_ends_the_session_at_once() -> None:
    async def newer(hear, context):
        yield welcome(PROTOCOL_VERSION + 1)

    async with session(Speaks(newer)) as (_, task):
        with pytest.raises(ConflictError) as version:
            await asyncio.wait_for(task, 10)
    assert version.value.reason == "PROTOCOL_VERSION"


async def test_a_revoked_owner_is_told_and_does_not_come_back() -> None:
    revoked = IdentityError("the certificate is revoked", reason="REVOKED")
    async with session(Speaks(lambda hear, context: fails(revoked, hear, context))) as (_, task):
        with pytest.raises(IdentityError, match="revoked"):
            await asyncio.wait_for(task, 10)


async def test_a_lost_stream_is_opened_again_and_reports_wait_for_it() -> None:
    closed = JobClosed(JOB, "aborted", "")

    async def cut(hear, context):
        yield welcome()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")

    async def whole(hear, context):
        yield welcome()
        yield closed
        await hear()
        await asyncio.Event().wait()

    servicer = Speaks(cut, whole)
    async with session(servicer) as (kept, _):
        assert await asyncio.wait_for(kept.commands.get(), 10) == (closed,)
        answer = MatchAnswer(JOB, None)
        kept.report(answer)
        async with asyncio.timeout(10):
            heard = [await servicer.heard.get() for _ in range(3)]
    assert [type(report) for report in heard] == [Hello, Hello, MatchAnswer]
    assert heard[2] == answer


async def test_a_command_that_cannot_be_read_is_left_out_and_the_next_is_taken() -> None:
    closed = JobClosed(JOB, "aborted", "")

    class Garbles(control_pb2_grpc.ControlServicer):
        async def Session(self, request_iterator, context):  # noqa: N802 - its name on the wire
            await anext(request_iterator)
            yield convert.commands_to_proto((welcome(),))
            bad = control_pb2.ServerCommand(job_closed=control_pb2.JobClosed(job="../../etc"))
            good = convert.command_to_proto(closed)
            yield control_pb2.CommandBatch(commands=[bad, control_pb2.ServerCommand(), good])
            yield control_pb2.CommandBatch(commands=[good] * (convert.MOST_IN_A_BATCH + 1))
            await asyncio.Event().wait()

    async with session(Garbles()) as (kept, _):
        assert await asyncio.wait_for(kept.commands.get(), 10) == (closed,)
