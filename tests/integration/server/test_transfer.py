"""Uploads and downloads over real mutual TLS: whole, wrong, interrupted, and somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from lepton_core.errors import IdentityError, InputError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, digest_of
from lepton_core.session import MatchAnswer, MatchRequest, RoundInvite
from lepton_protos.bulk import DURABLE, SIZE, WRITTEN
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import job_pb2, job_pb2_grpc, transfer_pb2_grpc
from lepton_protos.v1 import transfer_pb2 as pb
from lepton_server.store.artifacts import FolderArtifacts
from tests.integration.server.bulk import connected, ticket_down, ticket_up
from tests.integration.server.running import (
    DEADLINE_S,
    IdentityKey,
    Party,
    SystemRandomness,
    calling,
    enrol,
    operator,
    publish_members,
    publish_ontology,
    refused,
    running,
    session_of,
    small_job,
    submit,
)

DATA = bytes(range(256)) * 8_193  # two chunks and a bit


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a coordinator that runs."""
    async with running(tmp_path / "home", bulk="127.0.0.1:0"):
        yield tmp_path / "home"


def header_of(data: bytes, **changes: object) -> pb.UploadHeader:
    return pb.UploadHeader(**{"digest": digest_of(data), "size": len(data), **changes})


def chunks_of(data: bytes, header: pb.UploadHeader | None = None, start: int = 0) -> Iterator[pb.UploadChunk]:
    """The chunks of an upload that begins at `start`."""
    header = header or header_of(data)
    for offset in range(start, max(len(data), start + 1), CHUNK_BYTES):
        first = header if offset == start else None
        yield pb.UploadChunk(header=first, offset=offset, data=data[offset : offset + CHUNK_BYTES])


async def upload(party: Party, chunks: Iterator[pb.UploadChunk]) -> pb.UploadReceipt:
    async with calling(party) as channel:
        stub, sent = transfer_pb2_grpc.TransferStub(channel), list(chunks)
        try:
            return await stub.Upload(iter(sent), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as failure:
            if not error_from_rpc(failure).retryable:
                raise
        return await stub.Upload(iter(sent), timeout=DEADLINE_S)  # the status was lost while sending


async def status(party: Party, header: pb.UploadHeader) -> pb.UploadStatus:
    async with calling(party) as channel:
        stub = transfer_pb2_grpc.TransferStub(channel)
        return await stub.Status(pb.UploadStatusRequest(header=header), timeout=DEADLINE_S)


async def download(party: Party, digest: str, offset: int = 0) -> bytes:
    received = bytearray()
    async with calling(party) as channel:
        stub = transfer_pb2_grpc.TransferStub(channel)
        async for chunk in stub.Download(pb.DownloadRequest(digest=digest, offset=offset), timeout=DEADLINE_S):
            assert chunk.offset == offset + len(received)
            assert len(chunk.data) <= CHUNK_BYTES
            received += chunk.data
            assert chunk.size >= offset + len(received)
    return bytes(received)


def over_bulk(party: Party, ticket: pb.BulkTicket, offset: int) -> bytes:
    """What a bulk connection gives from this offset on."""
    with connected(party, ticket) as connection:
        assert connection.hear(SIZE) == (SIZE, ticket.size)
        rest = bytearray(ticket.size - offset)
        connection.read_into(memoryview(rest))
        return bytes(rest)


def up_by_bulk(party: Party, ticket: pb.BulkTicket, data: bytes) -> None:
    """Upload over a bulk connection, to its end."""
    with connected(party, ticket) as connection:
        connection.send(data)
        while connection.hear(WRITTEN, DURABLE)[0] != DURABLE:
            pass


def kept(home: Path, digest: Digest) -> bool:
    return FolderArtifacts(home / "artifacts").has(digest)


@pytest.mark.parametrize(
    "data", [DATA, b"", b"x", DATA[:CHUNK_BYTES]], ids=["some chunks", "none", "a byte", "a chunk"]
)
async def test_an_uploaded_artifact_is_kept_under_its_digest(home: Path, data: bytes) -> None:
    ada = await enrol(home, "ada", "researcher")
    receipt = await upload(ada, chunks_of(data))
    assert (receipt.digest, receipt.size) == (digest_of(data), len(data))
    assert kept(home, digest_of(data))
    assert await status(ada, header_of(data)) == pb.UploadStatus(received=len(data), complete=True)


async def test_bytes_that_are_there_are_answered_without_being_sent(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    await upload(ada, chunks_of(DATA))
    assert (await upload(ada, iter([pb.UploadChunk(header=header_of(DATA))]))).size == len(DATA)


async def test_an_interrupted_upload_goes_on_where_it_was(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    first, second, third = chunks_of(DATA)
    async with calling(ada) as channel:
        call = transfer_pb2_grpc.TransferStub(channel).Upload()
        await call.write(first)
        await call.write(second)
        while (await status(ada, header_of(DATA))).received < 2 * CHUNK_BYTES:
            pass
        call.cancel()
    assert await status(ada, header_of(DATA)) == pb.UploadStatus(received=2 * CHUNK_BYTES, complete=False)
    await upload(ada, chunks_of(DATA, start=2 * CHUNK_BYTES))
    assert kept(home, digest_of(DATA))
    assert len(third.data) < CHUNK_BYTES


async def test_an_upload_can_be_resumed_after_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home) as address:
        ada = await enrol(home, "ada", "researcher")
        async with calling(ada) as channel:
            call = transfer_pb2_grpc.TransferStub(channel).Upload()
            await call.write(next(chunks_of(DATA)))
            while (await status(ada, header_of(DATA))).received < CHUNK_BYTES:
                pass
            call.cancel()
    async with running(home, listen=address):
        assert (await status(ada, header_of(DATA))).received == CHUNK_BYTES
        await upload(ada, chunks_of(DATA, start=CHUNK_BYTES))
    assert kept(home, digest_of(DATA))


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        (lambda: chunks_of(DATA, header_of(DATA, size=len(DATA) + 1)), "LENGTH"),
        (lambda: chunks_of(DATA, header_of(DATA, size=len(DATA) - 1)), "LENGTH"),
        (lambda: chunks_of(DATA, header_of(DATA, digest="0" * 64)), "DIGEST"),
        (lambda: chunks_of(DATA, start=1), "GAP"),
        (lambda: [c for i, c in enumerate(chunks_of(DATA)) if i != 1], "GAP"),
        (lambda: [*chunks_of(DATA)][:1] * 2, "HEADER"),
        (lambda: [pb.UploadChunk(data=b"x")], "NO_HEADER"),
        (list, "NO_HEADER"),
        (lambda: [pb.UploadChunk(header=header_of(DATA), data=DATA[: CHUNK_BYTES + 1])], "CHUNK"),
        (lambda: [pb.UploadChunk(header=header_of(DATA, size=10**12))], "TOO_LARGE"),
        (lambda: [pb.UploadChunk(header=header_of(DATA, digest="../../etc/passwd"))], ""),
    ],
)
async def test_an_upload_that_is_not_what_it_says_is_refused(home: Path, chunks, reason: str) -> None:
    ada = await enrol(home, "ada", "researcher")
    with refused(InputError, reason=reason):
        await upload(ada, chunks())
    assert not kept(home, digest_of(DATA))
    await upload(ada, chunks_of(DATA))
    assert kept(home, digest_of(DATA))


async def test_nobody_can_spoil_anothers_upload(home: Path) -> None:
    ada, bob = await enrol(home, "ada", "researcher"), await enrol(home, "bob", "researcher")
    async with calling(bob) as channel:
        call = transfer_pb2_grpc.TransferStub(channel).Upload()
        await call.write(pb.UploadChunk(header=header_of(DATA), data=b"rubbish"))
        while not (await status(bob, header_of(DATA))).received:
            pass
        assert (await status(ada, header_of(DATA))).received == 0
        await upload(ada, chunks_of(DATA))
        call.cancel()
    assert kept(home, digest_of(DATA))


async def test_a_researcher_uploads_to_no_round_and_an_owner_to_nothing_else(home: Path) -> None:
    ada, aurora = await enrol(home, "ada", "researcher"), await enrol(home, "aurora")
    with refused(IdentityError, reason="ROLE"):
        await upload(ada, chunks_of(DATA, header_of(DATA, job="some-job", round=1)))
    with refused(IdentityError, reason="ROLE"):
        await upload(aurora, chunks_of(DATA))
    with refused(PeerViolation, reason="ROUND_OVER"):
        await upload(aurora, chunks_of(DATA, header_of(DATA, job="some-job", round=1)))


async def test_a_stranger_downloads_nothing(home: Path) -> None:
    ada, bob, aurora = [await enrol(home, *who) for who in (("ada", "researcher"), ("bob", "researcher"), ("aurora",))]
    await upload(ada, chunks_of(DATA))
    for stranger in (bob, aurora):
        with refused(NotFoundError):
            await download(stranger, digest_of(DATA))
    with refused(InputError):
        await download(bob, "../../etc/passwd")


async def test_a_round_takes_its_members_inputs_of_its_length_and_its_model_goes_to_them_alone(home: Path) -> None:
    owners = [await enrol(home, name) for name in ("aurora", "birken", "changhe", "delta")]
    ada, bob = await enrol(home, "ada", "researcher"), await enrol(home, "bob", "researcher")
    await publish_members(ada, owners[:3], IdentityKey.generate(SystemRandomness()))
    job = await submit(ada, small_job(await publish_ontology(ada)))
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session_of(owner)) for owner in owners[:3]]
        for session in sessions:
            request = await session.receive(MatchRequest)
            await session.send(MatchAnswer(request.job, None))
        invites = [await session.receive(RoundInvite) for session in sessions]
        words = invites[0].setup.terms.words
        payload = os.urandom(8 * words)
        here = {"job": job, "round": 1}

        await upload(owners[0], chunks_of(payload, header_of(payload, **here)))
        assert kept(home, digest_of(payload))
        await upload(owners[0], chunks_of(payload, header_of(payload, **here)))  # the same again costs nothing
        other = os.urandom(len(payload))
        ticket = await ticket_up(owners[1], digest_of(other), len(other), **here)
        await asyncio.to_thread(up_by_bulk, owners[1], ticket, other)
        assert kept(home, digest_of(other))
        flood = os.urandom(len(payload))
        with refused(PeerViolation, reason="SECOND_INPUT"):
            await ticket_up(owners[1], digest_of(flood), len(flood), **here)
        with refused(PeerViolation, reason="WRONG_LENGTH"):
            await ticket_up(owners[2], digest_of(flood), len(flood) + 8, **here)
        with refused(PeerViolation, reason="NOT_IN_ROUND"):
            await ticket_up(owners[3], digest_of(flood), len(flood), **here)
        with refused(PeerViolation, reason="SECOND_INPUT"):
            await upload(owners[0], chunks_of(flood, header_of(flood, **here)))
        assert not kept(home, digest_of(flood))
        for wrong in (payload[:-8], payload + bytes(8), payload[:-1]):
            with refused(PeerViolation, reason="WRONG_LENGTH", match=f"{len(payload)} bytes"):
                await upload(owners[0], chunks_of(wrong, header_of(wrong, **here)))
        with refused(PeerViolation, reason="WRONG_LENGTH"):
            await upload(owners[0], chunks_of(payload, header_of(payload, size=10**12, **here)))
        with refused(PeerViolation, reason="ROUND_OVER"):
            await upload(owners[0], chunks_of(payload, header_of(payload, job=job, round=2)))
        with refused(PeerViolation, reason="NOT_IN_ROUND"):
            await upload(owners[3], chunks_of(payload, header_of(payload, **here)))

        async with calling(ada) as channel:
            (model,) = (
                await job_pb2_grpc.JobsStub(channel).Models(job_pb2.ListModelsRequest(job=job), timeout=DEADLINE_S)
            ).models
        data = await download(owners[0], model.digest)
        assert digest_of(data) == model.digest
        assert await download(ada, model.digest, offset=5) == data[5:]
        assert await download(operator(home), model.digest) == data
        assert await asyncio.to_thread(over_bulk, ada, await ticket_down(ada, model.digest, offset=5), 5) == data[5:]
        with refused(NotFoundError):
            await ticket_down(bob, model.digest)
        with refused(InputError, match="behind the end"):
            await download(ada, model.digest, offset=len(data) + 1)
        for stranger in (owners[3], bob):
            with refused(NotFoundError):
                await download(stranger, model.digest)


async def test_two_streams_of_one_upload_do_not_mix(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    first, second, _ = chunks_of(DATA)
    async with calling(ada) as channel:
        older = transfer_pb2_grpc.TransferStub(channel).Upload()
        await older.write(first)
        while not (await status(ada, header_of(DATA))).received:
            pass
        newer = transfer_pb2_grpc.TransferStub(channel).Upload()
        await newer.write(pb.UploadChunk(header=header_of(DATA), data=DATA[:1_000]))
        while (await status(ada, header_of(DATA))).received != 1_000:
            pass
        await older.write(second)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await older
        assert "another stream" in str(failure.value.details())
        await newer.write(pb.UploadChunk(offset=1_000, data=DATA[1_000:CHUNK_BYTES]))
        for offset in (CHUNK_BYTES, 2 * CHUNK_BYTES):
            await newer.write(pb.UploadChunk(offset=offset, data=DATA[offset : offset + CHUNK_BYTES]))
        await newer.done_writing()
        assert (await newer).digest == digest_of(DATA)
