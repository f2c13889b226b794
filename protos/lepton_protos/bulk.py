"""One large transfer over a TLS connection of its own, without gRPC in between; both ends block, in threads.

The client opens with a ticket, which `UploadTicket` or `DownloadTicket` gave it and which says where it begins. Of an
upload the bytes from there to the end follow, and the coordinator answers with frames: how far it has written, and at
last that all is durable. Of a download the coordinator answers with the size, and then the bytes. Either way it may say
instead why it refuses. A frame is a letter and a number; behind a refusal come so many bytes of an error as JSON.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lepton_core.errors import FaultError, LeptonError, PeerViolation
from lepton_core.send_window import SendWindow
from lepton_protos.channel import CHUNK_BYTES, Endpoint
from lepton_protos.incoming import IncomingBytes, IncomingFile, Progress
from lepton_protos.spooling import BackgroundSync, Piece
from lepton_protos.status import error_from_json

TICKET_BYTES = 32
#: With fewer bytes to go, a connection of its own costs more than it saves.
LEAST_BULK_BYTES = 4 * CHUNK_BYTES
#: How far an upload is written; that it is durable; how large a download is; why nothing comes.
WRITTEN, DURABLE, SIZE, REFUSED = b"w", b"d", b"s", b"r"

_FRAME = struct.Struct(">cQ")
#: Most bytes of a refusal.
_LONGEST_ERROR = 8_192
#: How long connecting may take, and the TLS handshake; a firewall that swallows what it does not like costs this.
_CONNECT_S = 3.0
#: Pieces of a download that are taken in, wait, or are written.
_PIECES_AT_HAND = 3
#: So long no bulk connection is tried after one that could not be opened.
_SHUT_S = 600.0


class BulkRefusedError(Exception):
    """The coordinator refuses a bulk transfer, and says why."""

    def __init__(self, error: LeptonError) -> None:
        super().__init__(str(error))
        self.error = error


def error_of(failure: OSError | BulkRefusedError) -> LeptonError:
    """Why a bulk transfer failed, as a typed error; a broken connection can be tried again."""
    if isinstance(failure, BulkRefusedError):
        return failure.error
    got = failure.strerror or type(failure).__name__
    return FaultError("the bulk connection broke", where="coordinator", got=got[:200])


class BulkConnection:
    """One open connection; one thread at a time uses it, and any thread may `abort` it.

    Everything raises OSError where the connection broke, and TimeoutError, which is one, where nothing moved for long.
    """

    def __init__(self, secured: ssl.SSLSocket) -> None:
        self._secured = secured
        #: What has come of the next frame.
        self._frame = bytearray()

    @property
    def certificate(self) -> bytes:
        """The other end's certificate, DER."""
        return self._secured.getpeercert(binary_form=True) or b""

    def allow_silence(self, quiet_s: float) -> None:
        """From now on, the longest time in which nothing moves."""
        self._secured.settimeout(quiet_s)

    def open_with(self, ticket: bytes) -> None:
        """The client's first word."""
        self._secured.sendall(ticket)

    def opening(self) -> bytes:
        """The client's first word, a ticket."""
        return self._read_exactly(TICKET_BYTES)

    def tell(self, kind: bytes, number: int, rest: bytes = b"") -> None:
        """Send a frame."""
        self._secured.sendall(_FRAME.pack(kind, number) + rest)

    def hear(self, *expected: bytes) -> tuple[bytes, int]:
        """The next frame, one of these kinds.

        Raises:
            BulkRefusedError: the other end refuses, and says why.
            PeerViolation: it sends what nobody expects.
        """
        while len(self._frame) < _FRAME.size:
            self._frame += self._some(_FRAME.size - len(self._frame))
        kind, number = _FRAME.unpack(self._frame)
        self._frame.clear()
        if kind == REFUSED and number <= _LONGEST_ERROR:
            raise BulkRefusedError(error_from_json(self._read_exactly(number)))
        if kind not in expected:
            raise PeerViolation(
                "a bulk connection with other bytes than expected",
                where="coordinator",
                expected=" or ".join(str(kind) for kind in expected),
                got=str(kind),
                reason="BAD_FRAME",
            )
        return kind, number

    @property
    def has_heard(self) -> bool:
        """True if a frame has come that nobody has read."""
        quiet_s = self._secured.gettimeout()
        self._secured.settimeout(0.0)
        try:
            while len(self._frame) < _FRAME.size:  # what TLS tells its other end is nothing to read
                self._frame += self._some(_FRAME.size - len(self._frame))
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        finally:
            self._secured.settimeout(quiet_s)
        return True

    def send(self, data: Piece) -> None:
        """All of these bytes."""
        self._secured.sendall(data)

    def read_into(self, view: memoryview) -> None:
        """The next bytes, until `view` is full."""
        while view:
            got = self._secured.recv_into(view)
            if not got:
                raise _closed()
            view = view[got:]

    def abort(self) -> None:
        """Have whoever uses the connection fail at once."""
        with contextlib.suppress(OSError):
            # Not the method of the same name for TLS: it turns what is sent in that moment into plain text.
            socket.socket.shutdown(self._secured, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(OSError):
            self._secured.close()

    def _some(self, most: int) -> bytes:
        data = self._secured.recv(most)
        if not data:
            raise _closed()
        return data

    def _read_exactly(self, length: int) -> bytes:
        data = bytearray(length)
        self.read_into(memoryview(data))
        return bytes(data)


class BulkDialer:
    """Opens bulk connections to one coordinator; where one cannot be opened, none is tried for a while."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._host = endpoint.address.rpartition(":")[0].strip("[]")
        self._context: ssl.SSLContext | None = None
        self._shut_until_s = 0.0

    def is_worth(self, size: int) -> bool:
        """True if so many bytes should go over a connection of their own."""
        return size >= LEAST_BULK_BYTES and time.monotonic() >= self._shut_until_s

    def shut(self) -> None:
        """Try no bulk connection for a while: everything goes through gRPC."""
        self._shut_until_s = time.monotonic() + _SHUT_S

    def dial(self, port: int) -> BulkConnection:
        """A connection to this port of the coordinator.

        Raises:
            OSError: it cannot be reached there, or is another; nothing is tried for a while then.
        """
        try:
            if self._context is None:
                self._context = _client_context(self._endpoint)
            plain = socket.create_connection((self._host, port), timeout=_CONNECT_S)
            try:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return BulkConnection(self._context.wrap_socket(plain, server_hostname=self._host))
            except BaseException:
                plain.close()
                raise
        except OSError:  # ssl.SSLError is one
            self.shut()
            raise


class BulkCall:
    """One bulk transfer, from dialling to its end; `run` blocks, and any thread may `abort` it."""

    def __init__(self, dialer: BulkDialer, *, port: int, ticket: bytes, quiet_s: float) -> None:
        self._dialer = dialer
        self._port = port
        self._ticket = ticket
        self._quiet_s = quiet_s
        self._connection: BulkConnection | None = None
        self._aborted = False

    def run(self, work: Callable[[BulkConnection], None]) -> None:
        """Connect, and do this work over the connection.

        Raises:
            OSError: no connection, or it broke; TimeoutError, which is one: nothing moved for `quiet_s`.
            BulkRefusedError, LeptonError: what the coordinator refuses, or the work raises.
        """
        connection = self._connection = self._dialer.dial(self._port)
        try:
            if self._aborted:
                raise ConnectionAbortedError("the transfer was given up")
            connection.allow_silence(self._quiet_s)
            connection.open_with(self._ticket)
            work(connection)
        finally:
            connection.close()

    def abort(self) -> None:
        """Have `run` fail soon."""
        self._aborted = True
        if self._connection is not None:
            self._connection.abort()


def send_over(
    connection: BulkConnection, read: Callable[[int], Piece], window: SendWindow, size: int, progress: Progress
) -> None:
    """Send an upload's bytes from where the window begins; `read` gives the chunk at an offset.

    Raises:
        OSError: the connection broke.
        BulkRefusedError: what the coordinator refuses.
        LeptonError: what cannot be read.
    """

    def hear() -> bool:
        kind, received = connection.hear(WRITTEN, DURABLE)
        window.acknowledge(min(received, size), time.monotonic())
        progress(window.acknowledged, size)
        return kind == DURABLE

    durable, offset = False, window.acknowledged
    try:
        while offset < size:
            data = read(offset)
            while connection.has_heard or not window.is_open:
                durable = hear()
            window.sent(offset + len(data), time.monotonic())
            connection.send(data)
            offset += len(data)
    except OSError:
        while connection.has_heard:  # a refusal may have come before the connection broke
            hear()
        raise
    while not durable:
        durable = hear()


def receive_over(
    connection: BulkConnection,
    incoming: IncomingBytes | IncomingFile,
    sync: Callable[[], None] | None,
    progress: Progress,
) -> None:
    """Take in the rest of a download.

    Raises:
        OSError: the connection broke; what has come is kept.
        BulkRefusedError: what the coordinator refuses.
        PeerViolation: a download larger than allowed, or of another size than before.
    """
    _, size = connection.hear(SIZE)
    incoming.require_size(size)
    end = incoming.length
    rooms = [bytearray(min(CHUNK_BYTES, size - end)) for _ in range(_PIECES_AT_HAND)]
    writes: deque[Future[None]] = deque()

    def keep(at: int, piece: memoryview) -> None:
        if at != incoming.length:
            return  # the piece before could not be written, which is told below
        incoming.write(at, piece)
        syncing.came(incoming.length)
        progress(incoming.length, size)

    with BackgroundSync(sync, end) as syncing:
        # One thread hashes and writes a piece while this one takes in the next; leaving the block waits for it.
        with ThreadPoolExecutor(1, thread_name_prefix="write") as writing:
            while end < size:
                if len(writes) == len(rooms):
                    writes.popleft().result()
                rooms.append(rooms.pop(0))
                piece = memoryview(rooms[-1])[: size - end]
                connection.read_into(piece)
                writes.append(writing.submit(keep, end, piece))
                end += len(piece)
        for write in writes:
            write.result()


def _client_context(endpoint: Endpoint) -> ssl.SSLContext:
    """The client's side of mutual TLS: the pinned authority alone, and the coordinator's name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=endpoint.ca_certificate.decode("ascii"))
    with _in_a_file(endpoint.certificate + b"\n" + endpoint.key) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _in_a_file(content: bytes) -> Iterator[str]:
    """A path that holds this content, for libraries that read files only: in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("lepton", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:  # mode 0700
        path = Path(folder) / "credentials"
        path.write_bytes(content)
        yield str(path)


def _closed() -> ConnectionResetError:
    return ConnectionResetError("the other end has closed the connection")
