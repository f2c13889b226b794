"""The port for bulk bytes: TLS connections of one large transfer each, which a ticket admits; a thread serves each.

Who may transfer what is decided where the ticket is given out, behind the guard. Here a connection shows the ticket and
the certificate that it was given to, before a minute is over. What cannot connect goes through gRPC.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import ssl
import threading
import uuid
from dataclasses import dataclass
from typing import Self

import structlog

from lepton_core.errors import ConflictError, FaultError, IdentityError, LeptonError
from lepton_core.ids import Digest
from lepton_core.ports import Clock
from lepton_protos.bulk import DURABLE, REFUSED, SIZE, TICKET_BYTES, WRITTEN, BulkConnection
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.spooling import BackgroundSync
from lepton_server.api.guard import shortened
from lepton_server.identity.principals import Principal, Principals
from lepton_server.settings import join_address, split_address
from lepton_server.store.artifacts import Spool

#: How long a ticket is good for, and how long a connection may take to show one, TLS handshake included.
_TICKET_S, _OPENING_S = 60.0, 10.0
#: Longest time in which nothing moves over a connection: gRPC's pings notice a dead one within 40 s.
_QUIET_S = 60.0
#: Connections at once, and tickets and connections of one party; beyond them gRPC has to do.
_MOST_CONNECTIONS, _MOST_OF_ONE = 64, 16
#: How long connections may take to end when the coordinator stops.
_GRACE_S = 3.0
#: How often connections that show no ticket, and tickets that nobody has shown, are looked for.
_LOOK_S = 1.0
#: How long to wait after a connection that could not be taken.
_PAUSE_S = 0.1
_log = structlog.get_logger("lepton.bulk")


@dataclass(frozen=True)
class BulkUpload:
    """An upload that was admitted."""

    digest: Digest
    size: int
    #: Where this sender's bytes of this content collect, and how many there are.
    slot: Digest
    received: int


@dataclass(frozen=True)
class BulkDownload:
    """A download that was admitted, and where it begins."""

    digest: Digest
    size: int
    offset: int


@dataclass(frozen=True)
class _Ticket:
    principal: Principal
    transfer: BulkUpload | BulkDownload
    until: float


class _Open:
    """A connection that stands, and since when."""

    def __init__(self, plain: socket.socket, since: float) -> None:
        self.plain = plain
        self.since = since
        #: Whose it is, once it has shown a ticket.
        self.principal: Principal | None = None
        self.thread: threading.Thread | None = None

    def abort(self) -> None:
        """Have its thread fail at once."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.plain, socket.SHUT_RDWR)


class BulkPort:
    """Gives out tickets, and serves the connections that show them. Safe from several threads."""

    def __init__(
        self, listen: str, tls: ssl.SSLContext, artifacts: Spool, principals: Principals, clock: Clock
    ) -> None:
        """Take the port; connections are served from `start` on.

        Raises:
            FaultError: the port is in use, or the address is not this machine's.
        """
        self._tls = tls
        self._tls.num_tickets = 0  # each connection shows its certificate
        self._artifacts = artifacts
        self._principals = principals
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[bytes, _Ticket] = {}
        self._open: set[_Open] = set()
        self._ending = threading.Event()
        #: The stream or connection that now writes a slot; an older one that still hangs in the network loses it.
        self.writers: dict[Digest, object] = {}
        host, port = split_address(listen)
        try:
            self._listener = socket.create_server(
                (host, port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=_MOST_CONNECTIONS,
                dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),  # as gRPC has it
            )
        except OSError as error:
            raise FaultError(
                "the address for bulk bytes cannot be listened on",
                where=join_address(host, port),
                expected="a free port of this machine",
                got=error.strerror or type(error).__name__,
                hint="choose another port with `bulk`, or leave it out: everything goes through `listen` then",
                reason="PORT_IN_USE",
            ) from None
        self._listener.settimeout(_LOOK_S)
        self._accepting = threading.Thread(target=self._accept, name="bulk-accept", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Serve connections."""
        self._accepting.start()

    def stop(self) -> None:
        """Take no more connections and end those that stand; what has come of uploads is kept."""
        self._ending.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits for connections
        with self._lock:
            standing = tuple(self._open)
        for connection in standing:
            connection.abort()
        for thread in (self._accepting, *(connection.thread for connection in standing)):
            if thread is not None and thread.is_alive():
                thread.join(_GRACE_S)
        self._listener.close()

    def ticket(self, principal: Principal, transfer: BulkUpload | BulkDownload) -> bytes:
        """A ticket for one connection by this party; of too many that it never used, the oldest is void."""
        ticket = secrets.token_bytes(TICKET_BYTES)
        with self._lock:
            mine = [known for known, given in self._tickets.items() if given.principal.name == principal.name]
            for unused in mine[: max(0, len(mine) + 1 - _MOST_OF_ONE)]:
                del self._tickets[unused]
            self._tickets[ticket] = _Ticket(principal, transfer, self._clock.now() + _TICKET_S)
        return ticket

    # ---- the accepting thread --------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:  # nobody came
                pass
            except OSError:  # whoever came has gone again, or this process has too many files open
                self._ending.wait(_PAUSE_S)
            else:
                self._admit(plain)
            self._look()

    def _admit(self, plain: socket.socket) -> None:
        connection = _Open(plain, self._clock.now())
        with self._lock:
            full = len(self._open) >= _MOST_CONNECTIONS or self._ending.is_set()
            if not full:
                self._open.add(connection)
        if full:
            plain.close()
            return
        connection.thread = threading.Thread(target=self._serve, args=(connection,), name="bulk", daemon=True)
        try:
            connection.thread.start()
        except RuntimeError:  # the system gives no more threads
            plain.close()
            with self._lock:
                self._open.discard(connection)

    def _look(self) -> None:
        """End the connections that took too long to show a ticket; forget the tickets that nobody has shown."""
        now = self._clock.now()
        with self._lock:
            late = [one for one in self._open if one.principal is None and now - one.since > _OPENING_S]
            for ticket in [ticket for ticket, given in self._tickets.items() if now > given.until]:
                del self._tickets[ticket]
        for connection in late:
            connection.abort()

    # ---- the thread of one connection ------------------------------------------------------------------------------

    def _serve(self, opened: _Open) -> None:
        try:
            opened.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.plain.settimeout(_OPENING_S)
            secured = self._tls.wrap_socket(opened.plain, server_side=True, do_handshake_on_connect=False)
            opened.plain = secured  # which can be aborted from now on
            secured.do_handshake()
            connection = BulkConnection(secured)
            with _Told(connection) as told:
                ticket = self._redeem(connection.opening(), connection.certificate, opened)
                connection.allow_silence(_QUIET_S)
                if isinstance(ticket.transfer, BulkUpload):
                    self._take_in(ticket.transfer, ticket.principal, connection)
                else:
                    connection.tell(SIZE, ticket.transfer.size)
                    told.is_raw = True
                    self._hand_out(ticket.transfer, ticket.principal, connection)
        except OSError:  # ssl.SSLError is one: the other end is gone, or nobody we know
            pass
        finally:
            opened.plain.close()
            with self._lock:
                self._open.discard(opened)

    def _redeem(self, token: bytes, certificate: bytes, opened: _Open) -> _Ticket:
        """What the ticket admits; it is void now.

        Raises:
            IdentityError: the ticket of another certificate.
            FaultError: no such ticket, as after a restart; or the party has too many connections.
        """
        with self._lock:
            ticket = self._tickets.pop(token, None)
            if ticket is None or self._clock.now() > ticket.until:
                raise FaultError("a ticket that is not good", where="bulk", hint="ask for a new one", reason="TICKET")
            if hashlib.sha256(certificate).hexdigest() != ticket.principal.fingerprint:
                raise IdentityError("a ticket of another certificate", where=ticket.principal.name)
            others = [one for one in self._open if one.principal and one.principal.name == ticket.principal.name]
            if len(others) >= _MOST_OF_ONE:
                raise FaultError("too many transfers at once", where=ticket.principal.name, reason="BUSY")
            opened.principal = ticket.principal
        return ticket

    def _take_in(self, upload: BulkUpload, principal: Principal, connection: BulkConnection) -> None:
        """Write and hash an upload as it comes, tell how far it is, and make it an artifact."""
        offset, writer = upload.received, object()
        self.writers[upload.slot] = writer
        try:
            with BackgroundSync(lambda: self._artifacts.sync(upload.slot, upload.size), offset) as syncing:
                self._artifacts.write_at(upload.slot, offset, b"")  # refuses a gap, should it be shorter now
                room = memoryview(bytearray(min(CHUNK_BYTES, upload.size - offset)))
                while offset < upload.size:
                    piece = room[: upload.size - offset]
                    connection.read_into(piece)
                    self._principals.require_current(principal, now=self._clock.now())
                    if self.writers.get(upload.slot) is not writer:
                        raise ConflictError(
                            "another stream goes on with this upload", where=upload.digest, reason="NEWER_UPLOAD"
                        )
                    self._artifacts.write_at(upload.slot, offset, piece)
                    offset += len(piece)
                    syncing.came(offset)
                    connection.tell(WRITTEN, offset)
            self._artifacts.finish(upload.slot, upload.digest, upload.size)
            connection.tell(DURABLE, upload.size)
        finally:
            if self.writers.get(upload.slot) is writer:
                del self.writers[upload.slot]
                self._artifacts.rest(upload.slot)

    def _hand_out(self, download: BulkDownload, principal: Principal, connection: BulkConnection) -> None:
        """Send an artifact's bytes, and nothing else."""
        offset = download.offset
        while offset < download.size:
            data = self._artifacts.read_at(download.digest, offset, CHUNK_BYTES)
            if not data:
                raise FaultError("an artifact has become shorter on disk", where=download.digest)
            self._principals.require_current(principal, now=self._clock.now())
            connection.send(data)
            offset += len(data)


class _Told:
    """Tells the other end, and the log, why a transfer is refused; nothing of a stack trace goes outward."""

    def __init__(self, connection: BulkConnection) -> None:
        self._connection = connection
        #: True while a frame would be taken for bytes of a download: then the connection ends, and the next call tells.
        self.is_raw = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """True if the error was told."""
        if isinstance(error, LeptonError):
            tell = _log.warning if isinstance(error, (FaultError, IdentityError)) else _log.info
            tell("transfer refused", **error.as_dict())
            self._refuse(error)
        elif isinstance(error, Exception) and not isinstance(error, OSError):  # the boundary; logged with an id
            incident = uuid.uuid4().hex[:12]
            _log.error("transfer failed", incident=incident, exc_info=error)
            self._refuse(LeptonError("the coordinator failed", where="bulk", got=f"incident {incident}"))
        else:  # none, or the connection broke
            return False
        return True

    def _refuse(self, error: LeptonError) -> None:
        if not self.is_raw:
            told = shortened(error).to_json().encode()
            self._connection.tell(REFUSED, len(told), told)
