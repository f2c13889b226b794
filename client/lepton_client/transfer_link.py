"""Bulk bytes to and from the coordinator: 1 MiB chunks, addressed by SHA-256, going on where they stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio

from lepton_core.errors import FaultError, LeptonError, PeerViolation
from lepton_core.ids import Digest, JobId, ModelVersion, RoundNumber, digest_of, require_digest
from lepton_protos.channel import CHUNK_BYTES
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
                await self._transfer.Upload(_chunks(header, payload, status.received), timeout=deadline_s)

        await self._retry(once, f"upload of round {number}", deadline_s)

    async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
        """The bytes of this digest, at most `largest` of them; their size is checked before memory is taken.

        Raises:
            PeerViolation: larger than allowed, out of order, or other bytes than asked for.
            LeptonError: what the coordinator refuses.
            FaultError: not done within the deadline.
        """
        received = bytearray()

        async def once() -> None:
            request = transfer_pb2.DownloadRequest(digest=digest, offset=len(received))
            stream = self._transfer.Download(request, timeout=deadline_s)
            async for chunk in stream:
                if chunk.size > largest or len(received) + len(chunk.data) > chunk.size:
                    stream.cancel()
                    raise _violation("a download larger than allowed", f"at most {largest} bytes", digest)
                if chunk.offset != len(received):
                    stream.cancel()
                    raise _violation("a download out of order", f"offset {len(received)}", digest)
                received.extend(chunk.data)

        await self._retry(once, f"download of {digest[:16]}", deadline_s)
        content = bytes(received)
        if digest_of(content) != digest:
            raise _violation("other bytes than asked for", f"SHA-256 {digest}", digest)
        return content

    async def links(self, job: JobId, after: ModelVersion) -> tuple[Digest, ...]:
        """What made the model versions of a job after this one, oldest first.

        Raises:
            LeptonError: what the coordinator refuses.
            InputError: digests that are none.
        """
        request = control_pb2.LinksRequest(job=job, after_version=after)

        async def once() -> tuple[Digest, ...]:
            reply = await self._control.Links(request, timeout=CALL_DEADLINE_S)
            return tuple(require_digest(digest, "link") for digest in reply.digests)

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


async def _chunks(
    header: transfer_pb2.UploadHeader, payload: bytes, start: int
) -> AsyncIterator[transfer_pb2.UploadChunk]:
    for chunk in _slices(header, payload, start):
        yield chunk


def _slices(header: transfer_pb2.UploadHeader, payload: bytes, start: int) -> Iterator[transfer_pb2.UploadChunk]:
    """The rest of the payload from `start`; the first chunk carries the header, even if nothing is left."""
    yield transfer_pb2.UploadChunk(header=header, offset=start, data=payload[start : start + CHUNK_BYTES])
    for offset in range(start + CHUNK_BYTES, len(payload), CHUNK_BYTES):
        yield transfer_pb2.UploadChunk(offset=offset, data=payload[offset : offset + CHUNK_BYTES])
