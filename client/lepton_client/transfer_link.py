"""Bulk bytes to and from the coordinator: 1 MiB chunks, addressed by SHA-256, going on where they stopped."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from lepton_core.errors import FaultError, LeptonError, PeerViolation
from lepton_core.ids import Digest, JobId, ModelVersion, RoundNumber, require_digest
from lepton_core.session import Lineage
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.chunks import encode_chunk, split_chunk
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import (
    control_pb2,
    control_pb2_grpc,
    kg_pb2,
    kg_pb2_grpc,
    transfer_pb2,
    transfer_pb2_grpc,
)

#: Longest a call without bulk may take, and longest between two chunks.
CALL_DEADLINE_S = 30.0
#: Retries wait up to this long; a transfer's own deadline ends them.
_MOST_PAUSE_S = 5.0
#: Hashing so few bytes takes less than handing them to a thread.
_SMALL_BYTES = 2**15

T = TypeVar("T")


class Transfers:
    """Uploads and downloads over one channel; every one has a deadline, within which it is retried."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        transfer: Any = transfer_pb2_grpc.TransferStub  # generated without annotations
        knowledge: Any = kg_pb2_grpc.KnowledgeStub
        control: Any = control_pb2_grpc.ControlStub
        self._control: Any = control(channel)
        self._transfer: Any = transfer(channel)
        self._knowledge: Any = knowledge(channel)
        # Chunks are put together and taken apart here, with one copy of their bytes.
        self._upload: Any = channel.stream_unary(
            "/lepton.v1.Transfer/Upload", None, response_deserializer=transfer_pb2.UploadReceipt.FromString
        )
        self._download: Any = channel.unary_stream(
            "/lepton.v1.Transfer/Download", transfer_pb2.DownloadRequest.SerializeToString, None
        )
        self._jitter = random.SystemRandom()

    async def upload(
        self, job: JobId, number: RoundNumber, payload: bytes, digest: Digest, *, deadline_s: float
    ) -> None:
        """Upload a masked payload; bytes that are there already are not sent again.

        Raises:
            LeptonError: what the coordinator refuses.
            FaultError: not done within the deadline.
        """
        header = transfer_pb2.UploadHeader(digest=digest, size=len(payload), job=job, round=number)

        async def once() -> None:
            request = transfer_pb2.UploadStatusRequest(header=header)
            status = await self._transfer.Status(request, timeout=CALL_DEADLINE_S)
            if not status.complete:
                await self._upload(_chunks(header, payload, status.received), timeout=deadline_s)

        await self._retry(once, f"upload of round {number}", deadline_s)

    async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
        """The bytes of this digest, at most `largest` of them; their size is checked before memory is taken.

        Raises:
            PeerViolation: larger than allowed, out of order, or other bytes than asked for.
            LeptonError: what the coordinator refuses.
            FaultError: not done within the deadline.
        """
        received = _Received(digest, largest)

        async def once() -> None:
            request = transfer_pb2.DownloadRequest(digest=digest, offset=received.length)
            stream = self._download(request, timeout=deadline_s)
            try:
                async for raw in stream:
                    received.take(*_split(raw, digest))
            except PeerViolation:
                stream.cancel()
                raise

        await self._retry(once, f"download of {digest[:16]}", deadline_s)
        return await received.whole()

    async def lineage(self, job: JobId, after: ModelVersion) -> Lineage:
        """What made the model versions of a job after this one, oldest first.

        Raises:
            LeptonError: what the coordinator refuses.
            InputError: digests that are none.
        """
        request = control_pb2.LinksRequest(job=job, after_version=after)

        async def once() -> Lineage:
            reply = await self._control.Links(request, timeout=CALL_DEADLINE_S)
            links = tuple(require_digest(digest, "link") for digest in reply.digests)
            return Lineage(links, require_digest(reply.snapshot, "snapshot") if reply.snapshot else None)

        return await self._retry(once, "list of links", CALL_DEADLINE_S)

    async def ontology(self, digest: Digest, *, deadline_s: float) -> bytes:
        """The canonical bytes of an ontology version; whoever parses them checks the hash.

        Raises:
            LeptonError: what the coordinator refuses, such as an ontology nobody published.
            FaultError: not done within the deadline.
        """

        async def once() -> bytes:
            reply = await self._knowledge.Get(kg_pb2.GetOntologyRequest(digest=digest), timeout=CALL_DEADLINE_S)
            return bytes(reply.canonical)

        return await self._retry(once, f"ontology {digest[:16]}", deadline_s)

    async def _retry(self, once: Callable[[], Awaitable[T]], what: str, deadline_s: float) -> T:
        last: LeptonError | None = None
        try:
            async with asyncio.timeout(deadline_s):
                pause_s = 0.1
                while True:
                    try:
                        return await once()
                    except grpc.RpcError as failure:
                        last = error_from_rpc(failure)
                        if not last.retryable:
                            raise last from None
                    await asyncio.sleep(self._jitter.uniform(0, pause_s))
                    pause_s = min(_MOST_PAUSE_S, 2 * pause_s)
        except TimeoutError:
            raise FaultError(
                f"the {what} took too long",
                where="coordinator",
                expected=f"within {deadline_s:g} s",
                got=last.message if last is not None else "no answer",
                reason="DEADLINE",
            ) from None


def _violation(message: str, expected: str, digest: Digest) -> PeerViolation:
    return PeerViolation(
        message, where="coordinator", expected=expected, got=f"artifact {digest}", reason="BAD_DOWNLOAD"
    )


class _Received:
    """A download as it grows, never beyond the size that it has stated and that is allowed; hashed while more comes."""

    def __init__(self, digest: Digest, largest: int) -> None:
        self._digest = digest
        self._largest = largest
        self._size: int | None = None
        self._parts: list[memoryview] = []
        self.length = 0
        self._hasher = hashlib.sha256()
        #: Parts that are hashed, or being.
        self._hashed = 0
        self._hashing: asyncio.Task[None] | None = None

    def take(self, chunk: transfer_pb2.DownloadChunk, data: memoryview) -> None:
        """The next chunk.

        Raises:
            PeerViolation: larger than allowed, or out of order.
        """
        if self._size is None:
            self._size = chunk.size
        if self._size > self._largest or chunk.size != self._size or self.length + len(data) > self._size:
            raise _violation("a download larger than allowed", f"at most {self._largest} bytes", self._digest)
        if chunk.offset != self.length:
            raise _violation("a download out of order", f"offset {self.length}", self._digest)
        self._parts.append(data)
        self.length += len(data)
        if self.length < self._size and (self._hashing is None or self._hashing.done()):
            self._hashing = asyncio.create_task(asyncio.to_thread(self._hash, self._parts[self._hashed :]))

    async def whole(self) -> bytes:
        """The bytes, if they are those asked for.

        Raises:
            PeerViolation: other bytes, or fewer.
        """
        if self._hashing is not None:
            await self._hashing
        if self.length <= _SMALL_BYTES:
            content = self._join()
        else:
            content = await asyncio.to_thread(self._join)
        if self._hasher.hexdigest() != self._digest or self.length != self._size:
            raise _violation("other bytes than asked for", f"SHA-256 {self._digest}", self._digest)
        return content

    def _hash(self, parts: list[memoryview]) -> None:
        for part in parts:
            self._hasher.update(part)
        self._hashed += len(parts)

    def _join(self) -> bytes:
        self._hash(self._parts[self._hashed :])
        return b"".join(self._parts)


def _split(raw: bytes, digest: Digest) -> tuple[transfer_pb2.DownloadChunk, memoryview]:
    try:
        return split_chunk(transfer_pb2.DownloadChunk, raw)
    except DecodeError:
        raise _violation("a chunk that cannot be read", "protobuf", digest) from None


async def _chunks(header: transfer_pb2.UploadHeader, payload: bytes, start: int) -> AsyncIterator[bytes]:
    """The rest of the payload from `start`, serialized; the first chunk carries the header, even if nothing is left."""
    view = memoryview(payload)
    for offset in range(start, max(len(payload), start + 1), CHUNK_BYTES):
        head = transfer_pb2.UploadChunk(header=header if offset == start else None, offset=offset)
        yield encode_chunk(head, view[offset : offset + CHUNK_BYTES])
