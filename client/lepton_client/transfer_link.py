"""Bulk bytes to and from the coordinator: 1 MiB chunks, addressed by SHA-256, going on where they stopped."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from lepton_client.bulk_link import BulkRoute
from lepton_client.patience import QUIET_S, Patience, SilenceError
from lepton_client.upload_link import Sending
from lepton_core.errors import FaultError, LeptonError, PeerViolation
from lepton_core.ids import Digest, JobId, ModelVersion, RoundNumber, require_digest
from lepton_core.send_window import SendWindow
from lepton_core.session import Lineage
from lepton_protos.bulk import BulkDialer, BulkRefusedError, error_of, receive_over, send_over
from lepton_protos.channel import CHUNK_BYTES, Endpoint
from lepton_protos.incoming import IncomingBytes, IncomingFile, Progress, read_chunk, tell_nobody
from lepton_protos.outgoing import open_outgoing
from lepton_protos.spooling import Piece, Spooling
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import (
    control_pb2,
    control_pb2_grpc,
    kg_pb2,
    kg_pb2_grpc,
    transfer_pb2,
    transfer_pb2_grpc,
)

#: Longest a call without bulk may take.
CALL_DEADLINE_S = 30.0
#: Largest ontology version that is taken into memory; none that is larger can be published.
MAX_ONTOLOGY_BYTES = 64 * 2**20
#: Retries wait up to this long; a transfer's own deadline ends them.
_MOST_PAUSE_S = 5.0

T = TypeVar("T")


def _silent(what: str) -> Progress:
    """Tell nobody."""
    del what
    return tell_nobody


class Transfers:
    """Uploads and downloads over one channel; every one has a deadline, within which it is retried."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        progress: Callable[[str], Progress] = _silent,
        *,
        bulk: Endpoint | None = None,
        quiet_s: float = QUIET_S,
    ) -> None:
        """`progress` of a transfer's name gives what is told of its progress, on the event loop.

        With `bulk`, the channel's endpoint, large transfers go over connections of their own where the coordinator
        offers any and they can be made. A transfer of which nothing is heard for `quiet_s` is tried again, and may then
        be silent for twice as long.
        """
        self._progress = progress
        self._quiet_s = quiet_s
        self._dialer = BulkDialer(bulk) if bulk is not None else None
        transfer: Any = transfer_pb2_grpc.TransferStub  # generated without annotations
        knowledge: Any = kg_pb2_grpc.KnowledgeServiceStub
        control: Any = control_pb2_grpc.ControlStub
        self._control: Any = control(channel)
        self._transfer: Any = transfer(channel)
        self._knowledge: Any = knowledge(channel)
        # Chunks are put together and taken apart here, with one copy of their bytes.
        self._put: Any = channel.stream_stream(
            "/lepton.v1.Transfer/Put", None, response_deserializer=transfer_pb2.UploadStatus.FromString
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
        view = memoryview(payload)
        header = transfer_pb2.UploadHeader(digest=digest, size=len(payload), job=job, round=number)

        def read(offset: int) -> memoryview:
            return view[offset : offset + CHUNK_BYTES]

        await self._upload(header, read, f"upload of round {number}", deadline_s, waits=False)

    async def upload_from(
        self, path: Path, digest: Digest, *, job: JobId, number: RoundNumber, deadline_s: float
    ) -> None:
        """`upload` of a file's content, of which never more than the chunks on their way are in memory.

        Raises:
            FaultError: the file cannot be read or has become shorter, or as `upload`.
        """
        with open_outgoing(path) as outgoing:
            header = transfer_pb2.UploadHeader(digest=digest, size=outgoing.size, job=job, round=number)
            await self._upload(header, outgoing.read, f"upload of {path.name}", deadline_s, waits=True)

    async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
        """The bytes of this digest, at most `largest` of them; their size is checked before memory is taken.

        Raises:
            PeerViolation: larger than allowed, out of order, or other bytes than asked for.
            LeptonError: what the coordinator refuses.
            FaultError: not done within the deadline.
        """
        incoming = IncomingBytes(digest, largest)
        await self._receive(incoming, None, deadline_s)
        return incoming.whole()

    async def download_to(self, path: Path, digest: Digest, *, largest: int, deadline_s: float) -> None:
        """Download to a file, whose content is never in memory; it appears whole and durable, in place of any other.

        What an earlier call or process had received, killed or not, is not sent again.

        Raises:
            ConflictError: another process downloads to here.
            PeerViolation, LeptonError, FaultError: as `download`, and what the disk refuses.
        """
        incoming = await asyncio.to_thread(IncomingFile.open, path, digest, largest=largest)
        try:
            await self._receive(incoming, incoming.sync, deadline_s)
            await asyncio.to_thread(incoming.finish)
        finally:
            incoming.close()

    async def _upload(
        self,
        header: transfer_pb2.UploadHeader,
        read: Callable[[int], Piece],
        what: str,
        deadline_s: float,
        *,
        waits: bool,
    ) -> None:
        """`read` gives the chunk at an offset; with `waits`, it may wait for a disk."""
        progress, patience = self._progress(what), Patience(self._quiet_s)
        route = BulkRoute(self._dialer, patience, progress)

        async def read_soon(offset: int) -> Piece:
            return await asyncio.to_thread(read, offset) if waits else read(offset)

        async def once() -> None:
            status, round_trip_s = await self._timed_status(header)
            if status.complete or await self._upload_over(route, header, read, status, round_trip_s):
                return
            if header.size - status.received > CHUNK_BYTES:  # the first question may have had to connect
                status, again_s = await self._timed_status(header)
                round_trip_s = min(round_trip_s, again_s)
            window = SendWindow(status.received, round_trip_s)
            async with patience.waiting() as heard:

                def acknowledged(done: int, size: int) -> None:
                    heard()
                    progress(done, size)

                await Sending(self._put(timeout=deadline_s), header, read_soon, window, acknowledged).run()

        await self._retry(once, what, deadline_s)

    async def _upload_over(
        self,
        route: BulkRoute,
        header: transfer_pb2.UploadHeader,
        read: Callable[[int], Piece],
        status: transfer_pb2.UploadStatus,
        round_trip_s: float,
    ) -> bool:
        """True if the upload is done, over a connection of its own; False if it has to go through gRPC."""
        if not route.is_worth(header.size - status.received):
            return False
        began_s = time.monotonic()
        ticket = await self._ticket(self._transfer.UploadTicket, transfer_pb2.UploadStatusRequest(header=header))
        if ticket.status.complete:
            return True
        if not ticket.port:
            route.shut()
            return False
        window = SendWindow(ticket.status.received, min(round_trip_s, time.monotonic() - began_s))
        await route.carry(
            ticket,
            lambda connection, told: send_over(connection, read, window, header.size, told),
        )
        return True

    async def _ticket(self, method: Any, request: Any) -> transfer_pb2.BulkTicket:
        """A ticket; one without a port from a coordinator that knows none."""
        try:
            ticket: transfer_pb2.BulkTicket = await method(request, timeout=CALL_DEADLINE_S)
        except grpc.RpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
                return transfer_pb2.BulkTicket()
            raise
        return ticket

    async def _timed_status(self, header: transfer_pb2.UploadHeader) -> tuple[transfer_pb2.UploadStatus, float]:
        began_s = time.monotonic()
        status = await self._transfer.Status(transfer_pb2.UploadStatusRequest(header=header), timeout=CALL_DEADLINE_S)
        return status, time.monotonic() - began_s

    async def _receive(
        self, incoming: IncomingBytes | IncomingFile, sync: Callable[[], None] | None, deadline_s: float
    ) -> None:
        what = f"download of {incoming.digest[:16]}"
        progress, patience = self._progress(what), Patience(self._quiet_s)
        route = BulkRoute(self._dialer, patience, progress)

        async def through_grpc(*, whole: bool) -> bool:
            """True if it has come to the end; where not `whole`, it stops once the rest is worth its own connection."""
            spooling, told = Spooling(incoming.write, sync, incoming.length), False
            request = transfer_pb2.DownloadRequest(digest=incoming.digest, offset=incoming.length)
            stream = self._download(request, timeout=deadline_s)
            try:
                async with patience.waiting() as heard:
                    async for raw in stream:
                        chunk, data = read_chunk(raw, incoming.digest)
                        incoming.require_next(chunk, len(data), at=spooling.end)
                        await spooling.take(data)
                        progress(spooling.end, chunk.size)
                        heard()
                        told = not whole and route.is_worth(chunk.size - spooling.end)
                        if told:
                            stream.cancel()
                            break
            except (LeptonError, SilenceError):
                stream.cancel()
                raise
            finally:
                await spooling.ended()  # what has come is kept, so that the next try goes on behind it
            spooling.require_written()
            return not told

        async def once() -> None:
            whole = False
            while not await self._receive_over(route, incoming, sync):
                if await through_grpc(whole=whole):
                    return
                whole = True  # should the rest not go over its own connection after all

        await self._retry(once, what, deadline_s)

    async def _receive_over(
        self, route: BulkRoute, incoming: IncomingBytes | IncomingFile, sync: Callable[[], None] | None
    ) -> bool:
        """True if the download is done, over a connection of its own; False if it has to go through gRPC."""
        if not route.is_worth(incoming.left):
            return False
        request = transfer_pb2.DownloadRequest(digest=incoming.digest, offset=incoming.length)
        ticket = await self._ticket(self._transfer.DownloadTicket, request)
        if not ticket.port:
            route.shut()
            return False
        await route.carry(
            ticket,
            lambda connection, told: receive_over(connection, incoming, sync, told),
        )
        return True

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
            canonical = bytearray()
            async for reply in self._knowledge.Get(kg_pb2.GetOntologyRequest(digest=digest), timeout=deadline_s):
                canonical += reply.canonical
                if len(canonical) > MAX_ONTOLOGY_BYTES:
                    raise PeerViolation(
                        "an ontology larger than any that is published",
                        where="coordinator",
                        expected=f"at most {MAX_ONTOLOGY_BYTES} bytes",
                        got="more",
                    )
            return bytes(canonical)

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
                    except (OSError, BulkRefusedError) as failure:
                        last = error_of(failure)
                        if not last.retryable:
                            raise last from None
                    except SilenceError as silence:
                        last = FaultError(str(silence), where="coordinator")
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
