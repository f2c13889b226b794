"""The port for bulk bytes: who gets a ticket, what a ticket admits, and what is refused, by a real coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_admin.link import CoordinatorLink
from lepton_core.errors import ConflictError, FaultError, IdentityError, InputError, LeptonError, NotFoundError
from lepton_core.ids import Digest, digest_of
from lepton_protos.bulk import DURABLE, TICKET_BYTES, WRITTEN, BulkConnection, BulkDialer, BulkRefusedError
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.v1 import identity_pb2, identity_pb2_grpc
from lepton_protos.v1 import transfer_pb2 as pb
from lepton_server.api import bulk_port
from lepton_server.store.artifacts import FolderArtifacts
from tests.integration.server.bulk import connected, ticket_down, ticket_up
from tests.integration.server.running import (
    DEADLINE_S,
    Party,
    calling,
    enrol,
    operator,
    refused,
    running,
)

DATA = bytes(range(256)) * 24_577  # six chunks and a bit
DIGEST = digest_of(DATA)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a coordinator that runs, with a port for bulk bytes."""
    async with running(tmp_path / "home", bulk="127.0.0.1:0"):
        yield tmp_path / "home"


@contextlib.contextmanager
def refused_over(kind: type[LeptonError], *, reason: str = "") -> Iterator[None]:
    with pytest.raises(BulkRefusedError) as told:
        yield
    assert type(told.value.error) is kind, told.value.error
    assert told.value.error.reason == reason
    assert "Traceback" not in str(told.value.error)


def send_whole(connection: BulkConnection, data: bytes = DATA) -> list[tuple[bytes, int]]:
    """Send it; gives the answers up to the last."""
    connection.send(data)
    answers = [connection.hear(WRITTEN, DURABLE)]
    while answers[-1][0] != DURABLE:
        answers.append(connection.hear(WRITTEN, DURABLE))
    return answers


def kept(home: Path, digest: Digest = DIGEST) -> bool:
    artifacts = FolderArtifacts(home / "artifacts")
    return artifacts.has(digest) and digest_of(artifacts.get(digest)) == digest


async def test_an_upload_is_acknowledged_chunk_by_chunk_and_kept_whole(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    ticket = await ticket_up(ada, DIGEST, len(DATA))
    assert ticket.status == pb.UploadStatus(received=0, complete=False)

    def whole() -> list[tuple[bytes, int]]:
        with connected(ada, ticket) as connection:
            return send_whole(connection)

    answers = await asyncio.to_thread(whole)
    ends = [min(at + CHUNK_BYTES, len(DATA)) for at in range(0, len(DATA), CHUNK_BYTES)]
    assert answers == [*((WRITTEN, end) for end in ends), (DURABLE, len(DATA))]
    assert kept(home)
    again = await ticket_up(ada, DIGEST, len(DATA))
    assert (again.port, again.ticket) == (0, b"")
    assert again.status == pb.UploadStatus(received=len(DATA), complete=True)


async def test_what_came_before_a_connection_broke_is_kept_and_another_goes_on_behind_it(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    first = await ticket_up(ada, DIGEST, len(DATA))

    def begin() -> None:
        with connected(ada, first) as connection:
            connection.send(DATA[: 2 * CHUNK_BYTES + 5])
            assert [connection.hear(WRITTEN)[1] for _ in range(2)] == [CHUNK_BYTES, 2 * CHUNK_BYTES]

    await asyncio.to_thread(begin)
    second = await ticket_up(ada, DIGEST, len(DATA))
    assert second.status.received == 2 * CHUNK_BYTES

    def go_on() -> None:
        with connected(ada, second) as connection:
            send_whole(connection, DATA[2 * CHUNK_BYTES :])

    await asyncio.to_thread(go_on)
    assert kept(home)


async def test_other_bytes_than_announced_are_refused_and_forgotten(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    ticket = await ticket_up(ada, DIGEST, len(DATA))

    def other() -> None:
        with connected(ada, ticket) as connection, refused_over(InputError, reason="DIGEST"):
            send_whole(connection, DATA[::-1])

    await asyncio.to_thread(other)
    assert not kept(home)
    assert (await ticket_up(ada, DIGEST, len(DATA))).status.received == 0


async def test_an_upload_that_would_leave_a_gap_is_refused_before_a_byte(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    first = await ticket_up(ada, DIGEST, len(DATA))

    def begin() -> None:
        with connected(ada, first) as connection:
            connection.send(DATA[:CHUNK_BYTES])
            connection.hear(WRITTEN)

    await asyncio.to_thread(begin)
    second = await ticket_up(ada, DIGEST, len(DATA))
    assert second.status.received == CHUNK_BYTES
    (partial,) = (home / "artifacts" / "partial").iterdir()
    partial.unlink()  # swept, say

    def leave_a_gap() -> None:
        with connected(ada, second) as connection, refused_over(InputError, reason="GAP"):
            connection.hear(WRITTEN)

    await asyncio.to_thread(leave_a_gap)
    assert (await ticket_up(ada, DIGEST, len(DATA))).status.received == 0


async def test_a_ticket_is_good_once_and_for_the_certificate_that_it_was_given_to(home: Path) -> None:
    ada, bob = await enrol(home, "ada", "researcher"), await enrol(home, "bob", "researcher")
    ticket = await ticket_up(ada, DIGEST, len(DATA))

    def show(party: Party, shown: pb.BulkTicket, kind: type[LeptonError], reason: str = "") -> None:
        with connected(party, shown) as connection, refused_over(kind, reason=reason):
            connection.hear(WRITTEN)

    await asyncio.to_thread(show, bob, ticket, IdentityError)
    await asyncio.to_thread(show, ada, ticket, FaultError, "TICKET")  # void since somebody else has shown it
    await asyncio.to_thread(show, ada, pb.BulkTicket(port=ticket.port, ticket=bytes(32)), FaultError, "TICKET")
    assert not kept(home)


async def test_of_more_tickets_than_a_party_may_have_the_oldest_are_void(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    tickets = [await ticket_up(ada, DIGEST, len(DATA)) for _ in range(bulk_port._MOST_OF_ONE + 1)]

    def show() -> None:
        with connected(ada, tickets[0]) as connection, refused_over(FaultError, reason="TICKET"):
            connection.hear(WRITTEN)
        with connected(ada, tickets[1]) as connection:
            send_whole(connection)

    await asyncio.to_thread(show)


async def test_tickets_are_given_out_by_the_rules_of_uploads_and_downloads(home: Path) -> None:
    ada, aurora = await enrol(home, "ada", "researcher"), await enrol(home, "aurora")
    with refused(IdentityError, reason="ROLE"):
        await ticket_up(ada, DIGEST, len(DATA), job="some-job", round=1)
    with refused(IdentityError, reason="ROLE"):
        await ticket_up(aurora, DIGEST, len(DATA))
    with refused(IdentityError):
        await ticket_up(operator(home), DIGEST, len(DATA))
    with refused(InputError, reason="TOO_LARGE"):
        await ticket_up(ada, DIGEST, 10**12)
    with refused(InputError):
        await ticket_up(ada, "../../etc/passwd", 10)
    FolderArtifacts(home / "artifacts").put(DATA)
    for stranger in (ada, aurora):
        with refused(NotFoundError):
            await ticket_down(stranger, DIGEST)


async def test_a_newer_connection_takes_an_upload_over_from_one_that_hangs(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    tickets = [await ticket_up(ada, DIGEST, len(DATA)) for _ in range(2)]

    def take_over() -> None:
        with connected(ada, tickets[0]) as old:
            old.send(DATA[:CHUNK_BYTES])
            old.hear(WRITTEN)
            with connected(ada, tickets[1]) as new:
                new.send(DATA[:CHUNK_BYTES])
                new.hear(WRITTEN)
                old.send(DATA[CHUNK_BYTES : 2 * CHUNK_BYTES])
                with refused_over(ConflictError, reason="NEWER_UPLOAD"):
                    old.hear(WRITTEN)
                send_whole(new, DATA[CHUNK_BYTES:])

    await asyncio.to_thread(take_over)
    assert kept(home)


async def test_an_upload_of_a_party_that_is_revoked_ends_at_its_next_piece(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    ticket = await ticket_up(ada, DIGEST, len(DATA))

    def revoke() -> None:
        with connected(ada, ticket) as connection:
            connection.send(DATA[:CHUNK_BYTES])
            connection.hear(WRITTEN)
            with CoordinatorLink(operator(home).endpoint) as link:
                link.revoke("ada")
            connection.send(DATA[CHUNK_BYTES : 2 * CHUNK_BYTES])
            with refused_over(IdentityError, reason="REVOKED"):
                connection.hear(WRITTEN)

    await asyncio.to_thread(revoke)


async def test_who_has_no_certificate_or_shows_no_ticket_gets_nothing_and_stays_not_long(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_port, "_OPENING_S", 0.3)
    ada = await enrol(home, "ada", "researcher")
    port, pause = (await ticket_up(ada, DIGEST, len(DATA))).port, threading.Event()

    def knock() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(4096):
                    pass
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as silent:
            assert silent.recv(1) == b""  # the handshake took too long
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as dripping:
            dripping.sendall(b"\x16\x03\x01\x40\x00")  # the hello that is to come has 16 KiB
            deadline = time.monotonic() + DEADLINE_S
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < deadline:  # something moves all the time, and it never ends
                    dripping.sendall(bytes(1))
                    pause.wait(0.05)
            assert time.monotonic() < deadline
        anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anonymous.load_verify_locations(cadata=ada.endpoint.ca_certificate.decode())
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain:
            assert _answer_to(anonymous, plain) == b""
        with contextlib.closing(BulkDialer(ada.endpoint).dial(port)) as connection:
            connection.allow_silence(DEADLINE_S)
            with pytest.raises(ConnectionResetError):  # it showed no ticket
                connection.hear(WRITTEN)

    await asyncio.to_thread(knock)
    with socket.socket() as probe:  # the port still serves
        probe.connect(("127.0.0.1", port))


def _answer_to(context: ssl.SSLContext, plain: socket.socket) -> bytes:
    """What comes back where somebody with this context shows a ticket."""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(bytes(TICKET_BYTES))
        return secured.recv(1)
    return b""


async def test_too_many_connections_of_one_party_are_refused_and_those_that_stand_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_port, "_MOST_OF_ONE", 1)
    ada = await enrol(home, "ada", "researcher")
    first, other = await ticket_up(ada, DIGEST, len(DATA)), b"x" * len(DATA)

    def begin(stack: contextlib.ExitStack) -> BulkConnection:
        connection = stack.enter_context(connected(ada, first))
        connection.send(DATA[:CHUNK_BYTES])
        connection.hear(WRITTEN)
        return connection

    with contextlib.ExitStack() as stack:
        standing = await asyncio.to_thread(begin, stack)
        second = await ticket_up(ada, digest_of(other), len(other))

        def one_more() -> None:
            with connected(ada, second) as connection, refused_over(FaultError, reason="BUSY"):
                connection.hear(WRITTEN)
            send_whole(standing, DATA[CHUNK_BYTES:])

        await asyncio.to_thread(one_more)
    assert kept(home)


async def test_a_coordinator_without_the_port_gives_no_tickets_and_one_that_stops_ends_connections(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "home") as address:
        ada = await enrol(tmp_path / "home", "ada", "researcher")
        assert await ticket_up(ada, DIGEST, len(DATA)) == pb.BulkTicket()
        assert await ticket_down(ada, DIGEST) == pb.BulkTicket()
    with contextlib.ExitStack() as stack:
        async with running(tmp_path / "home", listen=address, bulk="127.0.0.1:0"):
            ticket = await ticket_up(ada, DIGEST, len(DATA))
            standing = await asyncio.to_thread(stack.enter_context, connected(ada, ticket))
            async with calling(operator(tmp_path / "home")) as channel:  # the coordinator has taken it in
                await identity_pb2_grpc.HealthStub(channel).Report(identity_pb2.HealthRequest(), timeout=DEADLINE_S)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(standing.hear, WRITTEN)


async def test_a_port_that_is_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FaultError, match="bulk") as told:
        async with running(tmp_path / "home", bulk=f"127.0.0.1:{taken.getsockname()[1]}"):
            pass
    assert told.value.reason == "PORT_IN_USE"


async def test_people_move_files_over_it_both_ways(home: Path, tmp_path: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    told: list[tuple[int, int]] = []
    (tmp_path / "weights").write_bytes(DATA)

    def move() -> None:
        with CoordinatorLink(replace(ada.endpoint)) as link:
            link.progress = lambda done, size: told.append((done, size))
            assert link.upload_from(tmp_path / "weights") == DIGEST
            assert link.upload_from(tmp_path / "weights") == DIGEST  # which is there

    await asyncio.to_thread(move)
    assert kept(home)
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
