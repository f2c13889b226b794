"""`Transfer`: bytes in and out in chunks, resumable, each checked before it is kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

from lepton_core.errors import ConflictError, IdentityError, InputError, PeerViolation
from lepton_core.ids import Digest, JobId, MemberId, RoundNumber, digest_of, require_digest, require_name
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.chunks import encode_chunk
from lepton_protos.spooling import Spooling
from lepton_protos.v1 import transfer_pb2 as pb
from lepton_server.api.bulk_port import BulkDownload, BulkPort, BulkUpload
from lepton_server.api.guard import Call
from lepton_server.coordinator import Coordinator
from lepton_server.identity.roles import Role
from lepton_server.pump import Pump
from lepton_server.store.artifacts import Spool

#: Largest artifact of a researcher: a model's first weights. It lies on disk; what a job takes of it into memory is
#: bounded by the job.
LARGEST_ARTIFACT = 16 * 2**30
#: A chunk without its bytes, and these.
Chunk = tuple[pb.UploadChunk, memoryview]
#: Chunks of a download that are read at once, while those before are on their way.
_READ_AHEAD = 4
#: Members of running jobs whose inputs are remembered.
_MOST_INPUTS = 100_000


@dataclass(frozen=True)
class _Upload:
    """A header that was checked."""

    digest: Digest
    size: int
    #: Where this sender's bytes of this content collect.
    slot: Digest
    #: Whose masked input of which job's round it is; None for a researcher's artifact.
    place: tuple[MemberId, JobId, RoundNumber] | None


@dataclass(frozen=True)
class _Input:
    """The one masked input of a member in the newest round of a job."""

    round: RoundNumber
    digest: Digest
    #: True if these bytes came by this upload, and were not there before.
    brought: bool


class TransferService:
    """Uploads by owners (masked inputs of their rounds) and researchers, and downloads of what is one's own."""

    service = pb.DESCRIPTOR.services_by_name["Transfer"]

    def __init__(self, coordinator: Coordinator, pump: Pump, artifacts: Spool, bulk: BulkPort | None = None) -> None:
        """`bulk` is the port for transfers over connections of their own, where there is one."""
        self._coordinator = coordinator
        self._pump = pump
        self._artifacts = artifacts
        self._bulk = bulk
        #: The stream that now writes a slot; an older one that still hangs in the network loses it.
        self._writers: dict[Digest, object] = bulk.writers if bulk is not None else {}
        #: One masked input a member and round, so that nobody can fill the disk; the newest rounds only.
        self._inputs: OrderedDict[tuple[MemberId, JobId], _Input] = OrderedDict()

    async def upload(self, chunks: AsyncIterator[Chunk], call: Call) -> pb.UploadReceipt:
        """The receipt, when the bytes are durable and their hash is the one announced."""
        ends = [upload async for upload, received in self._put(chunks, call) if received is None]
        return pb.UploadReceipt(digest=ends[0].digest, size=ends[0].size)

    async def put(self, chunks: AsyncIterator[Chunk], call: Call) -> AsyncIterator[pb.UploadStatus]:
        """How far the upload is written, whenever it has come further; `complete` when `upload` would answer."""
        async for upload, received in self._put(chunks, call):
            yield pb.UploadStatus(received=upload.size if received is None else received, complete=received is None)

    async def _put(self, chunks: AsyncIterator[Chunk], call: Call) -> AsyncIterator[tuple[_Upload, int | None]]:
        """The upload and the bytes of it that are written, again and again; None instead when it is an artifact."""
        first = await anext(chunks, None)
        if first is None or not first[0].HasField("header"):
            raise InputError("an upload begins with a header", where="UploadChunk.header", reason="NO_HEADER")
        upload = await self._admit(first[0].header, call)
        await self._require_first(upload)
        if not await asyncio.to_thread(self._artifacts.claim, upload.digest):
            writer = self._writers[upload.slot] = object()
            spooling = Spooling(
                partial(self._artifacts.write_at, upload.slot),
                partial(self._artifacts.sync, upload.slot, upload.size),
                first[0].offset,
            )
            receiving = asyncio.create_task(self._receive(upload, first, chunks, writer, spooling))
            receiving.add_done_callback(lambda _: spooling.wake())
            try:
                async for received in spooling.progress(receiving):
                    yield upload, received
                await receiving
            finally:
                await _ended(receiving)
                self._artifacts.rest(upload.slot)
                if self._writers.get(upload.slot) is writer:
                    del self._writers[upload.slot]
        yield upload, None

    async def status(self, request: pb.UploadStatusRequest, call: Call) -> pb.UploadStatus:
        """How far an upload has come, so that it can go on there."""
        upload = await self._admit(request.header, call)
        if await asyncio.to_thread(self._artifacts.claim, upload.digest):
            return pb.UploadStatus(received=upload.size, complete=True)
        return pb.UploadStatus(received=await asyncio.to_thread(self._artifacts.received, upload.slot), complete=False)

    async def upload_ticket(self, request: pb.UploadStatusRequest, call: Call) -> pb.BulkTicket:
        """A ticket for an upload over a connection of its own, admitted as `put` admits it; none if it is there."""
        if self._bulk is None:
            return pb.BulkTicket()
        upload = await self._admit(request.header, call)
        await self._require_first(upload)
        if await asyncio.to_thread(self._artifacts.claim, upload.digest):
            return pb.BulkTicket(status=pb.UploadStatus(received=upload.size, complete=True))
        received = await asyncio.to_thread(self._artifacts.received, upload.slot)
        ticket = self._bulk.ticket(call.principal, BulkUpload(upload.digest, upload.size, upload.slot, received))
        status = pb.UploadStatus(received=received, complete=False)
        return pb.BulkTicket(port=self._bulk.port, ticket=ticket, status=status)

    async def download_ticket(self, request: pb.DownloadRequest, call: Call) -> pb.BulkTicket:
        """A ticket for a download over a connection of its own, admitted as `download` admits it."""
        if self._bulk is None:
            return pb.BulkTicket()
        digest, size = await self._admit_download(request, call)
        ticket = self._bulk.ticket(call.principal, BulkDownload(digest, size, request.offset))
        return pb.BulkTicket(port=self._bulk.port, ticket=ticket, size=size)

    async def download(self, request: pb.DownloadRequest, call: Call) -> AsyncIterator[bytes]:
        """The bytes from the offset on, at least one chunk, serialized; the next is read while one is on its way."""
        digest, size = await self._admit_download(request, call)
        offset = request.offset
        reading = asyncio.create_task(asyncio.to_thread(self._chunks, digest, offset, size))
        try:
            while True:
                chunks, offset = await reading
                last = offset >= size
                if not last:
                    reading = asyncio.create_task(asyncio.to_thread(self._chunks, digest, offset, size))
                for chunk in chunks:
                    yield chunk
                if last:
                    return
        finally:
            reading.cancel()

    def _chunks(self, digest: Digest, offset: int, size: int) -> tuple[list[bytes], int]:
        """The next chunks, at least one, as they are sent; and where the ones behind them begin."""
        data = memoryview(self._artifacts.read_at(digest, offset, _READ_AHEAD * CHUNK_BYTES))
        chunks = []
        for start in range(0, max(len(data), 1), CHUNK_BYTES):
            head = pb.DownloadChunk(offset=offset + start, size=size)
            chunks.append(encode_chunk(head, data[start : start + CHUNK_BYTES]))
        return chunks, offset + len(data) if data else size

    async def _admit_download(self, request: pb.DownloadRequest, call: Call) -> tuple[Digest, int]:
        """What is asked for and its size, if this party may have it.

        Raises:
            InputError: no digest, or an offset behind the end.
            NotFoundError, IdentityError: it is not there, or not theirs.
        """
        digest = require_digest(request.digest, "digest")
        principal = call.principal
        await self._pump.call(self._coordinator.may_download, principal.role, principal.name, principal.member, digest)
        size = await asyncio.to_thread(self._artifacts.size, digest)
        if request.offset > size:
            raise InputError(
                "an offset behind the end", where="offset", expected=f"at most {size}", got=str(request.offset)
            )
        return digest, size

    async def _admit(self, header: pb.UploadHeader, call: Call) -> _Upload:
        """The upload, if this party may make it now.

        Raises:
            InputError: a header that cannot be.
            PeerViolation: a masked input of another round, member or length.
            IdentityError: an owner uploads something else than a masked input, or a researcher one.
        """
        digest = require_digest(header.digest, "digest")
        principal = call.principal
        names_round = bool(header.job or header.round)
        place = None
        if principal.role == Role.OWNER:
            if not names_round or principal.member is None:
                raise IdentityError(
                    "owners upload masked inputs only", where=principal.name, expected="job and round", reason="ROLE"
                )
            job = JobId(require_name(header.job, "job id"))
            number = RoundNumber(header.round)
            await self._pump.call(self._coordinator.may_upload, principal.member, job, number, header.size)
            place = principal.member, job, number
        elif names_round:
            raise IdentityError("only an owner uploads to a round", where=principal.name, reason="ROLE")
        elif header.size > LARGEST_ARTIFACT:
            raise InputError(
                "an artifact this large is refused",
                where="size",
                expected=f"at most {LARGEST_ARTIFACT} bytes",
                got=f"{header.size} bytes",
                reason="TOO_LARGE",
            )
        return _Upload(digest, header.size, digest_of(f"{principal.name}/{digest}".encode()), place)

    async def _require_first(self, upload: _Upload) -> None:
        """Refuse a second, different masked input for one round; what came for an earlier round is not needed any more.

        Raises:
            PeerViolation: SECOND_INPUT. A daemon uploads the same bytes again, or has left the round.
        """
        if upload.place is None:
            return
        member, job, number = upload.place
        known = self._inputs.get((member, job))
        if known is not None and known.round == number:
            if known.digest != upload.digest:
                raise PeerViolation(
                    "a second masked input for one round",
                    where=f"member {member.hex()}, round {number}",
                    expected=known.digest,
                    got=upload.digest,
                    reason="SECOND_INPUT",
                )
            return
        # Claimed before anything is waited for, so that of two uploads at once only one is the first.
        mine = self._inputs[member, job] = _Input(number, upload.digest, brought=False)
        while len(self._inputs) > _MOST_INPUTS:
            self._inputs.popitem(last=False)
        if (
            not await asyncio.to_thread(self._artifacts.claim, upload.digest)
            and self._inputs.get((member, job)) is mine
        ):
            self._inputs[member, job] = replace(mine, brought=True)
        if known is not None and known.brought and known.digest != upload.digest:
            await asyncio.to_thread(self._artifacts.delete, known.digest)

    async def _receive(
        self, upload: _Upload, first: Chunk, chunks: AsyncIterator[Chunk], writer: object, spooling: Spooling
    ) -> None:
        """Hand the chunks to a thread that writes and hashes them while the next ones come in."""
        try:
            chunk: Chunk | None = first
            while chunk is not None:
                await spooling.take(self._require_next(upload, chunk, spooling.end, writer))
                chunk = await anext(chunks, None)
                if chunk is not None and chunk[0].HasField("header"):
                    raise InputError("a second header", where="UploadChunk.header", reason="HEADER")
        except _TooLong:
            await spooling.ended()
            await asyncio.to_thread(self._artifacts.discard, upload.slot)
            raise
        finally:
            await spooling.ended()  # what has come is kept, so that the upload can go on behind it
        spooling.require_written()
        if spooling.end < upload.size:
            # A connection that broke looks like an early end; what has come stays, so that the upload can go on.
            raise _wrong_length(upload, f"{spooling.end} bytes")
        await asyncio.to_thread(self._artifacts.finish, upload.slot, upload.digest, upload.size)

    def _require_next(self, upload: _Upload, chunk: Chunk, at: int, writer: object) -> memoryview:
        """The bytes of a chunk that follows the one before.

        Raises:
            InputError: too large, out of order, or beyond the announced size.
            ConflictError: a newer stream of the same sender writes this content now.
        """
        message, data = chunk
        if len(data) > CHUNK_BYTES:
            raise InputError(
                "a chunk this large is refused",
                where="UploadChunk.data",
                expected=f"at most {CHUNK_BYTES} bytes",
                got=f"{len(data)} bytes",
                reason="CHUNK",
            )
        if message.offset != at:
            raise InputError(
                "chunks that do not follow one another",
                where="UploadChunk.offset",
                expected=str(at),
                got=str(message.offset),
                reason="GAP",
            )
        if at + len(data) > upload.size:
            raise _TooLong.of(upload, at + len(data))
        if self._writers.get(upload.slot) is not writer:
            raise ConflictError("another stream goes on with this upload", where=upload.digest, reason="NEWER_UPLOAD")
        return data


class _TooLong(InputError):
    """More bytes than announced: what has come is worthless."""

    @classmethod
    def of(cls, upload: _Upload, end: int) -> _TooLong:
        told = _wrong_length(upload, f"at least {end} bytes")
        return cls(told.message, where=told.where, expected=told.expected, got=told.got, reason=told.reason)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel the task, if it still runs, and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # what it raised was told already, or the caller is gone


def _wrong_length(upload: _Upload, got: str) -> InputError:
    return InputError(
        "an upload of another length than announced",
        where=upload.digest,
        expected=f"{upload.size} bytes",
        got=got,
        reason="LENGTH",
    )
