"""`Transfer`: bytes in and out in chunks, resumable, each checked before it is kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from lepton_core.errors import ConflictError, IdentityError, InputError, PeerViolation
from lepton_core.ids import Digest, JobId, MemberId, RoundNumber, digest_of, require_digest, require_name
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.chunks import encode_chunk
from lepton_protos.v1 import transfer_pb2 as pb
from lepton_server.api.guard import Call
from lepton_server.coordinator import Coordinator
from lepton_server.identity.roles import Role
from lepton_server.pump import Pump
from lepton_server.store.artifacts import Spool

#: Largest artifact of a researcher, such as a public evaluation set.
LARGEST_ARTIFACT = 256 * 2**20
#: A chunk without its bytes, and these.
Chunk = tuple[pb.UploadChunk, memoryview]
#: Bytes after which an upload is synced in the background, so that its end has not all of it to wait for.
_SYNC_BYTES = 16 * 2**20
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

    def __init__(self, coordinator: Coordinator, pump: Pump, artifacts: Spool) -> None:
        self._coordinator = coordinator
        self._pump = pump
        self._artifacts = artifacts
        #: The stream that now writes a slot; an older one that still hangs in the network loses it.
        self._writers: dict[Digest, object] = {}
        #: One masked input a member and round, so that nobody can fill the disk; the newest rounds only.
        self._inputs: OrderedDict[tuple[MemberId, JobId], _Input] = OrderedDict()

    async def upload(self, chunks: AsyncIterator[Chunk], call: Call) -> pb.UploadReceipt:
        """The receipt, when the bytes are durable and their hash is the one announced."""
        first = await anext(chunks, None)
        if first is None or not first[0].HasField("header"):
            raise InputError("an upload begins with a header", where="UploadChunk.header", reason="NO_HEADER")
        upload = await self._admit(first[0].header, call)
        await self._require_first(upload)
        if not await asyncio.to_thread(self._artifacts.has, upload.digest):
            writer = self._writers[upload.slot] = object()
            try:
                await self._receive(upload, first, chunks, writer)
            finally:
                if self._writers.get(upload.slot) is writer:
                    del self._writers[upload.slot]
        return pb.UploadReceipt(digest=upload.digest, size=upload.size)

    async def status(self, request: pb.UploadStatusRequest, call: Call) -> pb.UploadStatus:
        """How far an upload has come, so that it can go on there."""
        upload = await self._admit(request.header, call)
        if await asyncio.to_thread(self._artifacts.has, upload.digest):
            return pb.UploadStatus(received=upload.size, complete=True)
        return pb.UploadStatus(received=await asyncio.to_thread(self._artifacts.received, upload.slot), complete=False)

    async def download(self, request: pb.DownloadRequest, call: Call) -> AsyncIterator[bytes]:
        """The bytes from the offset on, at least one chunk, serialized; the next is read while one is on its way."""
        digest = require_digest(request.digest, "digest")
        principal = call.principal
        await self._pump.call(self._coordinator.may_download, principal.role, principal.name, principal.member, digest)
        size = await asyncio.to_thread(self._artifacts.size, digest)
        if request.offset > size:
            raise InputError(
                "an offset behind the end", where="offset", expected=f"at most {size}", got=str(request.offset)
            )
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
        if not await asyncio.to_thread(self._artifacts.has, upload.digest) and self._inputs.get((member, job)) is mine:
            self._inputs[member, job] = replace(mine, brought=True)
        if known is not None and known.brought and known.digest != upload.digest:
            await asyncio.to_thread(self._artifacts.delete, known.digest)

    async def _receive(self, upload: _Upload, first: Chunk, chunks: AsyncIterator[Chunk], writer: object) -> None:
        """Hand each chunk to a thread that writes and hashes it while the next one comes in."""
        spooling = _Spooling(self._artifacts, upload.slot, first[0].offset)
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


class _Spooling:
    """Writes an upload's chunks in order, one at a time in a thread, and syncs them now and then beside it."""

    def __init__(self, artifacts: Spool, slot: Digest, start: int) -> None:
        self._artifacts = artifacts
        self._slot = slot
        #: Where the next chunk begins.
        self.end = start
        self._synced = start
        self._writing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None

    async def take(self, data: memoryview) -> None:
        """Have the next chunk written; waits while the one before is, so that flow control holds the sender back.

        Raises:
            FaultError: the one before could not be written.
        """
        if self._writing is not None:
            await self._writing
        self._writing = asyncio.create_task(asyncio.to_thread(self._artifacts.write_at, self._slot, self.end, data))
        self.end += len(data)
        if self.end - self._synced >= _SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._synced = self.end
            self._syncing = asyncio.create_task(asyncio.to_thread(self._artifacts.sync, self._slot))

    async def ended(self) -> None:
        """Wait until nothing is under way, however it ends."""
        under_way = [task for task in (self._writing, self._syncing) if task is not None]
        if under_way:
            await asyncio.wait(under_way)

    def require_written(self) -> None:
        """Return if the last chunk was written and all syncs succeeded.

        Raises:
            FaultError: not.
        """
        for task in (self._writing, self._syncing):
            if task is not None:
                task.result()


def _wrong_length(upload: _Upload, got: str) -> InputError:
    return InputError(
        "an upload of another length than announced",
        where=upload.digest,
        expected=f"{upload.size} bytes",
        got=got,
        reason="LENGTH",
    )
