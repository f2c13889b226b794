"""Bulk bytes to and from the coordinator for people: up from memory or a file, down to memory or a file."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition
from typing import Any, Self

import grpc

from lepton_core.errors import FaultError, LeptonError
from lepton_core.ids import Digest
from lepton_core.send_window import SendWindow
from lepton_protos.bulk import (
    BulkCall,
    BulkConnection,
    BulkDialer,
    BulkRefusedError,
    error_of,
    receive_over,
    send_over,
)
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.chunks import encode_chunk
from lepton_protos.incoming import IncomingBytes, IncomingFile, Progress, read_chunk
from lepton_protos.outgoing import open_outgoing, require_complete
from lepton_protos.spooling import BackgroundSync, Piece
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import transfer_pb2, transfer_pb2_grpc

#: Longest a question about an upload may take.
_CALL_TIMEOUT_S = 30.0
#: Longest a transfer may take: this, and a second for each so many bytes.
_LEAST_TIMEOUT_S, _SLOWEST_BYTES_S = 600.0, 2**20
#: Connections in a row that break within this time; then a transfer is given up, and what has come is kept.
_MOST_BREAKS, _BREAK_S = 5, 30.0
#: Longest time in which nothing moves: a connection can die without a word to its reader.
_QUIET_S = 60.0


class ArtifactTransfers:
    """Uploads and downloads, each going on where it broke; `connect` opens a new channel after a transport failure."""

    def __init__(self, connect: Callable[[], grpc.Channel], progress: Progress, bulk: BulkDialer) -> None:
        """`bulk` opens connections of their own for large transfers, where the coordinator offers any."""
        self._connect = connect
        self._progress = progress
        self._bulk = bulk

    def upload(self, data: bytes, digest: Digest) -> None:
        """Store these bytes under their digest; what is there already is not sent again."""
        view = memoryview(data)
        self._upload(digest, len(data), lambda offset: view[offset : offset + CHUNK_BYTES])

    def upload_from(self, path: Path) -> Digest:
        """Store a file's content, which is never whole in memory; gives its digest.

        Raises:
            InputError: the file cannot be opened.
            FaultError: it cannot be read, or becomes shorter meanwhile.
        """
        with open_outgoing(path) as outgoing:
            digest = outgoing.digest()
            self._upload(digest, outgoing.size, outgoing.read)
        return digest

    def download(self, digest: Digest, *, largest: int) -> bytes:
        """The bytes of this digest, at most `largest` of them.

        Raises:
            PeerViolation: larger, out of order, or other bytes than asked for.
        """
        incoming = IncomingBytes(digest, largest)
        self._receive(incoming, lambda: None, largest)
        return incoming.whole()

    def download_to(self, path: Path, digest: Digest, *, largest: int) -> None:
        """Write the bytes to a file, in place of any other, going on with what an earlier command had received.

        Raises:
            ConflictError: another process downloads to here.
            PeerViolation: as `download`.
            FaultError: the disk refuses.
        """
        with contextlib.closing(IncomingFile.open(path, digest, largest=largest)) as incoming:
            self._receive(incoming, incoming.sync, largest)
            incoming.finish()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _upload(self, digest: Digest, size: int, read: Callable[[int], Piece]) -> None:
        header = transfer_pb2.UploadHeader(digest=digest, size=size)
        request = transfer_pb2.UploadStatusRequest(header=header)

        def once(channel: grpc.Channel) -> None:
            stub: Any = _stub(channel)
            status = stub.Status(request, timeout=_CALL_TIMEOUT_S)  # a connection stands now
            started_s = time.monotonic()
            if self._bulk.is_worth(size - status.received):
                ticket = self._ticket(stub.UploadTicket, request)
                if ticket.status.complete:
                    return
                if ticket.port:
                    window = SendWindow(ticket.status.received, time.monotonic() - started_s)
                    self._carry(
                        ticket,
                        lambda connection, told: send_over(connection, read, window, size, told),
                        size,
                    )
                    return
                started_s = time.monotonic()
            status = stub.Status(request, timeout=_CALL_TIMEOUT_S)
            if not status.complete:
                window = SendWindow(status.received, time.monotonic() - started_s)
                _Sending(header, read, window, self._progress).over(channel, timeout_s=_timeout_s(size))

        self._again(once)

    def _ticket(self, method: Any, request: Any) -> transfer_pb2.BulkTicket:
        """A ticket; without a port where the coordinator has none, which is not asked again soon."""
        try:
            ticket: transfer_pb2.BulkTicket = method(request, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as failure:
            if failure.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            ticket = transfer_pb2.BulkTicket()
        if not ticket.port and not ticket.status.complete:
            self._bulk.shut()
        return ticket

    def _carry(
        self,
        ticket: transfer_pb2.BulkTicket,
        work: Callable[[BulkConnection, Progress], None],
        size: int,
    ) -> None:
        """Do the work over a connection of its own; after one that brought nothing, gRPC has to do."""
        moved = False

        def told(done: int, of: int) -> None:
            nonlocal moved
            moved = True
            self._progress(done, of)

        call = BulkCall(self._bulk, port=ticket.port, ticket=ticket.ticket, quiet_s=_QUIET_S)
        deadline = threading.Timer(_timeout_s(size), call.abort)
        deadline.daemon = True
        deadline.start()
        try:
            call.run(lambda connection: work(connection, told))
        finally:
            deadline.cancel()
            if not moved:
                self._bulk.shut()

    def _receive(self, incoming: IncomingBytes | IncomingFile, sync: Callable[[], None], largest: int) -> None:
        def over_bulk(channel: grpc.Channel) -> bool:
            """True if the rest has come over a connection of its own."""
            if not self._bulk.is_worth(incoming.left):
                return False
            request = transfer_pb2.DownloadRequest(digest=incoming.digest, offset=incoming.length)
            ticket = self._ticket(_stub(channel).DownloadTicket, request)
            if ticket.port:
                self._carry(
                    ticket,
                    lambda connection, told: receive_over(connection, incoming, sync, told),
                    ticket.size,
                )
            return bool(ticket.port)

        def through_grpc(channel: grpc.Channel, *, whole: bool) -> bool:
            """True if it has come to the end; where not `whole`, it stops once the rest is worth its own connection."""
            request = transfer_pb2.DownloadRequest(digest=incoming.digest, offset=incoming.length)
            method: Any = channel.unary_stream(
                "/lepton.v1.Transfer/Download", transfer_pb2.DownloadRequest.SerializeToString, None
            )
            stream = method(request, timeout=_timeout_s(largest))
            with BackgroundSync(sync, incoming.length) as syncing, _Silence(stream.cancel) as silence:
                for raw in stream:
                    silence.heard()
                    chunk, data = read_chunk(raw, incoming.digest)
                    incoming.require_next(chunk, len(data), at=incoming.length)
                    incoming.write(incoming.length, data)
                    syncing.came(incoming.length)
                    self._progress(incoming.length, chunk.size)
                    if not whole and self._bulk.is_worth(incoming.left):
                        return False
            return True

        def once(channel: grpc.Channel) -> None:
            whole = False
            while not over_bulk(channel):
                if through_grpc(channel, whole=whole):
                    return
                whole = True  # should the rest not go over its own connection after all

        self._again(once)

    def _again(self, once: Callable[[grpc.Channel], None]) -> None:
        """Try until it is done, as long as the connection holds for a while each time."""
        channel = self._connect()
        breaks, began_s = 0, time.monotonic()
        while True:
            try:
                once(channel)
            except (grpc.RpcError, OSError, BulkRefusedError) as failure:
                error = error_from_rpc(failure) if isinstance(failure, grpc.RpcError) else error_of(failure)
                breaks = breaks + 1 if time.monotonic() - began_s < _BREAK_S else 1
                if not error.retryable or breaks >= _MOST_BREAKS:
                    raise error from None
                time.sleep(0.2 * 2**breaks)
                channel, began_s = self._connect(), time.monotonic()
            else:
                return


class _Sending:
    """One try of an upload: gRPC's thread takes chunks while the window is open; this one hears acknowledgements."""

    def __init__(
        self,
        header: transfer_pb2.UploadHeader,
        read: Callable[[int], Piece],
        window: SendWindow,
        progress: Progress,
    ) -> None:
        self._header = header
        self._read = read
        self._window = window
        self._progress = progress
        self._moved = Condition()
        self._over = False
        self._unreadable: LeptonError | None = None

    def over(self, channel: grpc.Channel, *, timeout_s: float) -> None:
        """Send over this channel; return when the bytes are durable at the coordinator."""
        method: Any = channel.stream_stream(
            "/lepton.v1.Transfer/Put", None, response_deserializer=transfer_pb2.UploadStatus.FromString
        )
        complete = False
        call = method(self._chunks(), timeout=timeout_s)
        try:
            with _Silence(call.cancel) as silence:
                for status in call:
                    silence.heard()
                    with self._moved:
                        self._window.acknowledge(status.received, time.monotonic())
                        self._moved.notify()
                    self._progress(status.received, self._header.size)
                    complete = status.complete
        except grpc.RpcError:
            if self._unreadable is not None:
                raise self._unreadable from None
            raise
        finally:
            with self._moved:
                self._over = True
                self._moved.notify()
        require_complete(complete=complete, acknowledged=self._window.acknowledged, size=self._header.size)

    def _chunks(self) -> Iterator[bytes]:
        start, size = self._window.acknowledged, self._header.size
        for offset in range(start, max(size, start + 1), CHUNK_BYTES):
            try:
                data = self._read(offset)
            except FaultError as error:
                self._unreadable = error
                raise
            with self._moved:
                self._moved.wait_for(lambda: self._window.is_open or self._over)
                if self._over:
                    return
                self._window.sent(offset + len(data), time.monotonic())
            head = transfer_pb2.UploadChunk(header=self._header if offset == start else None, offset=offset)
            yield encode_chunk(head, data)


class _Silence:
    """Gives a call up where nothing was heard of it for too long, and at the end of the block."""

    def __init__(self, give_up: Callable[[], object]) -> None:
        self._give_up = give_up
        self._heard = threading.Event()
        self._is_over = False
        self._watching = threading.Thread(target=self._watch, name="silence", daemon=True)

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._heard.set()
        self._give_up()

    def heard(self) -> None:
        """Something came."""
        self._heard.set()

    def _watch(self) -> None:
        while self._heard.wait(_QUIET_S):
            if self._is_over:
                return
            self._heard.clear()
        self._give_up()


def _timeout_s(size: int) -> float:
    return _LEAST_TIMEOUT_S + size / _SLOWEST_BYTES_S


def _stub(channel: grpc.Channel) -> Any:
    made: Any = transfer_pb2_grpc.TransferStub  # generated without annotations
    return made(channel)
