"""Large transfers over connections of their own: cut, killed, unreachable, silent, and answered with other bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lepton_client.transfer_link import Transfers
from lepton_core.errors import FaultError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, JobId, RoundNumber, digest_of
from lepton_protos import bulk
from lepton_protos.bulk import DURABLE, REFUSED, SIZE, TICKET_BYTES, WRITTEN, BulkConnection, BulkDialer
from lepton_protos.channel import CHUNK_BYTES, load_endpoint, open_aio_channel
from lepton_protos.v1 import transfer_pb2, transfer_pb2_grpc
from lepton_server.store.artifacts import FolderArtifacts
from tests.integration.client.cable import Cable, cuts, require_upload_outlives_its_server, serving, transfers_of

BYTES = 12 * CHUNK_BYTES + 12_345
DEADLINE_S = 40.0
ROUND = RoundNumber(1)
#: Bytes in flight when a fast cable is cut, in sockets and at the cable.
LOST_AT_MOST = 6 * CHUNK_BYTES
SLOW_BYTES_S = 10 * CHUNK_BYTES
OVERHEAD = 128 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("bulk")
    with serving(place):
        yield place


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Has every bulk connection go to this port in place of the coordinator's; gives the list of those it was to be."""
    dial = BulkDialer.dial

    def through(port: int) -> list[int]:
        asked: list[int] = []

        def elsewhere(self: BulkDialer, wanted: int) -> BulkConnection:
            asked.append(wanted)
            return dial(self, port)

        monkeypatch.setattr(BulkDialer, "dial", elsewhere)
        return asked

    return through


async def bulk_port(folder: Path) -> int:
    """Where the serving process takes bulk connections."""
    async with open_aio_channel(load_endpoint(folder / "client")) as channel:
        header = transfer_pb2.UploadHeader(digest="f" * 64, size=1, job="port", round=1)
        request = transfer_pb2.UploadStatusRequest(header=header)
        return (await transfer_pb2_grpc.TransferStub(channel).UploadTicket(request, timeout=DEADLINE_S)).port


def kept(folder: Path, digest: Digest) -> bytes:
    return FolderArtifacts(folder / "artifacts").get(digest)


@pytest.mark.parametrize("number", cuts(3))
async def test_an_upload_cut_at_any_byte_sends_only_what_was_in_flight_again(
    folder: Path, dialled: Callable[[int], list[int]], number: int
) -> None:
    payload = random.Random(number).randbytes(BYTES)
    # Past the first chunk: a connection that brought nothing is not tried again.
    cut_at = random.Random(100 + number).randrange(CHUNK_BYTES + OVERHEAD, 8 * CHUNK_BYTES)
    target = f"127.0.0.1:{await bulk_port(folder)}"
    async with Cable(target, cut_at, upward=True, bytes_per_s=SLOW_BYTES_S) as cable:
        asked = dialled(int(cable.address.rpartition(":")[2]))
        async with transfers_of(folder, bulk=True) as transfers:
            job = JobId(f"cut-{number}")
            await transfers.upload(job, ROUND, payload, digest_of(payload), deadline_s=DEADLINE_S)
    assert cable.cuts == 1
    assert len(asked) == 2
    assert kept(folder, digest_of(payload)) == payload
    # A chunk takes longer than the round trip on this line: at most one is on its way.
    assert cable.up <= BYTES + CHUNK_BYTES + OVERHEAD


@pytest.mark.parametrize("number", cuts(2))
async def test_a_download_cut_at_any_byte_goes_on_where_it_was(
    folder: Path, tmp_path: Path, dialled: Callable[[int], list[int]], number: int
) -> None:
    payload = random.Random(10 + number).randbytes(BYTES)
    digest = FolderArtifacts(folder / "artifacts").put(payload)
    cut_at = random.Random(200 + number).randrange(CHUNK_BYTES + OVERHEAD, 8 * CHUNK_BYTES)
    target = f"127.0.0.1:{await bulk_port(folder)}"
    for to_file in (False, True):
        async with Cable(target, cut_at, upward=False) as cable:
            asked = dialled(int(cable.address.rpartition(":")[2]))
            async with transfers_of(folder, bulk=True) as transfers:
                if to_file:
                    await transfers.download_to(tmp_path / "model", digest, largest=BYTES, deadline_s=DEADLINE_S)
                    found = (tmp_path / "model").read_bytes()
                else:
                    found = await transfers.download(digest, largest=BYTES, deadline_s=DEADLINE_S)
        assert cable.cuts == 1
        assert len(asked) == 2
        assert found == payload
        assert cable.down <= BYTES + LOST_AT_MOST
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


async def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    await require_upload_outlives_its_server(tmp_path, chunks=64, bulk=True)


async def both_ways(folder: Path, transfers: Transfers, seed: int) -> None:
    """An upload and its download, each large enough for a connection of its own."""
    payload = random.Random(seed).randbytes(6 * CHUNK_BYTES)
    await transfers.upload(JobId(f"ways-{seed}"), ROUND, payload, digest_of(payload), deadline_s=DEADLINE_S)
    assert kept(folder, digest_of(payload)) == payload
    assert await transfers.download(digest_of(payload), largest=len(payload), deadline_s=DEADLINE_S) == payload


async def test_where_the_port_cannot_be_reached_everything_goes_through_grpc_and_it_is_asked_once(
    folder: Path, dialled: Callable[[int], list[int]]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        asked = dialled(nobody.getsockname()[1])
        async with transfers_of(folder, bulk=True) as transfers:
            await both_ways(folder, transfers, 501)
    assert len(asked) == 1


async def test_where_another_answers_at_the_port_everything_goes_through_grpc(
    folder: Path, tmp_path: Path, dialled: Callable[[int], list[int]]
) -> None:
    with serving(tmp_path):  # the same kind, with an authority of its own
        asked = dialled(await bulk_port(tmp_path))
        async with transfers_of(folder, bulk=True) as transfers:
            await both_ways(folder, transfers, 502)
        assert len(asked) == 1
        assert not list((tmp_path / "artifacts" / "partial").iterdir())


class Answering:
    """A bulk port with the coordinator's own certificate that does what a test says; keeps what it was sent."""

    def __init__(self, folder: Path, *answers: Callable[[BulkConnection, Answering], None]) -> None:
        mine = folder / "server"
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(mine / "cert.pem", mine / "key.pem")
        self._tls.load_verify_locations(mine / "ca.pem")
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._answers = answers
        self.openings: list[bytes] = []
        self.received = bytearray()
        #: Set when whoever was answered is through with it.
        self.over = threading.Event()

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_S)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self._listener.getsockname()[1]

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join(DEADLINE_S)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        for answer in self._answers:
            plain, _ = self._listener.accept()
            with contextlib.suppress(OSError), self._tls.wrap_socket(plain, server_side=True) as secured:
                connection = BulkConnection(secured)
                self.openings.append(connection.opening())
                answer(connection, self)


def takes_everything(connection: BulkConnection, port: Answering) -> None:
    """Acknowledges as a coordinator does, and keeps what came."""
    while len(port.received) < BYTES:
        piece = bytearray(min(CHUNK_BYTES, BYTES - len(port.received)))
        connection.read_into(memoryview(piece))
        port.received += piece
        connection.tell(WRITTEN, len(port.received))
    connection.tell(DURABLE, BYTES)


async def test_nothing_but_the_ticket_and_the_payload_goes_over_the_connection(
    folder: Path, dialled: Callable[[int], list[int]]
) -> None:
    payload = random.Random(601).randbytes(BYTES)
    answering = Answering(folder, takes_everything)
    with answering as port:
        dialled(port)
        async with transfers_of(folder, bulk=True) as transfers:
            await transfers.upload(JobId("bytes"), ROUND, payload, digest_of(payload), deadline_s=DEADLINE_S)
    (ticket,) = answering.openings
    assert len(ticket) == TICKET_BYTES
    assert answering.received == payload


def falls_silent(connection: BulkConnection, port: Answering) -> None:
    port.over.wait(DEADLINE_S)


def sends(*frames: tuple[bytes, int, bytes]) -> Callable[[BulkConnection, Answering], None]:
    def answer(connection: BulkConnection, port: Answering) -> None:
        for frame in frames:
            connection.tell(*frame)
        port.over.wait(DEADLINE_S)

    return answer


async def test_a_connection_that_is_silent_from_the_start_is_given_up_for_grpc(
    folder: Path, dialled: Callable[[int], list[int]]
) -> None:
    with Answering(folder, falls_silent) as port:
        asked = dialled(port)
        payload = random.Random(602).randbytes(6 * CHUNK_BYTES)
        async with transfers_of(folder, bulk=True, quiet_s=0.5) as transfers:
            await transfers.upload(JobId("silent"), ROUND, payload, digest_of(payload), deadline_s=DEADLINE_S)
        assert kept(folder, digest_of(payload)) == payload
        assert len(asked) == 1


@pytest.mark.parametrize(
    "frames",
    [
        [(SIZE, 10**12, b"")],
        [(SIZE, 10, b"0123456789")],
        [(SIZE, BYTES, bytes(BYTES))],
        [(WRITTEN, 1, b"")],
        [(b"?", 2**64 - 1, b"")],
        [(REFUSED, 2**40, b"")],
    ],
    ids=["too large", "too small", "other bytes", "another frame", "no frame", "an endless refusal"],
)
async def test_a_download_that_is_not_what_was_asked_for_is_a_violation(
    folder: Path, dialled: Callable[[int], list[int]], frames: list[tuple[bytes, int, bytes]]
) -> None:
    digest = FolderArtifacts(folder / "artifacts").put(random.Random(603).randbytes(BYTES))
    with Answering(folder, sends(*frames)) as port:
        dialled(port)
        async with transfers_of(folder, bulk=True) as transfers:
            with pytest.raises(PeerViolation):
                await transfers.download(digest, largest=BYTES, deadline_s=DEADLINE_S)


async def test_a_download_whose_artifact_goes_away_ends_without_a_byte_that_is_not_its_own(folder: Path) -> None:
    payload = random.Random(607).randbytes(64 * CHUNK_BYTES)
    artifacts = FolderArtifacts(folder / "artifacts")
    digest = artifacts.put(payload)
    endpoint = load_endpoint(folder / "client")
    async with open_aio_channel(endpoint) as channel:
        stub = transfer_pb2_grpc.TransferStub(channel)
        ticket = await stub.DownloadTicket(transfer_pb2.DownloadRequest(digest=digest), timeout=DEADLINE_S)

    def take() -> bytes:
        received = bytearray()
        with contextlib.closing(BulkDialer(endpoint).dial(ticket.port)) as connection:
            connection.allow_silence(DEADLINE_S)
            connection.open_with(ticket.ticket)
            assert connection.hear(SIZE) == (SIZE, len(payload))
            artifacts.delete(digest)
            with contextlib.suppress(ConnectionError):
                while len(received) < len(payload):
                    received += connection._some(CHUNK_BYTES)
        return bytes(received)

    received = await asyncio.to_thread(take)
    assert len(received) < len(payload)
    assert payload.startswith(received)


async def test_a_refusal_is_told_as_it_was_meant(folder: Path, dialled: Callable[[int], list[int]]) -> None:
    payload = random.Random(604).randbytes(BYTES)
    told = NotFoundError("no such\x1b[2J round", where="there", reason="GONE").to_json().encode()
    with Answering(folder, sends((REFUSED, len(told), told))) as port:
        dialled(port)
        async with transfers_of(folder, bulk=True) as transfers:
            with pytest.raises(NotFoundError, match="no such") as refused:
                await transfers.upload(JobId("no"), ROUND, payload, digest_of(payload), deadline_s=DEADLINE_S)
    assert (refused.value.where, refused.value.reason) == ("there", "GONE")
    assert "\x1b" not in str(refused.value)


async def test_a_deadline_ends_a_transfer_that_hangs(folder: Path, dialled: Callable[[int], list[int]]) -> None:
    with Answering(folder, falls_silent) as port:
        dialled(port)
        before = threading.active_count()
        async with transfers_of(folder, bulk=True) as transfers:
            payload = random.Random(605).randbytes(BYTES)
            with pytest.raises(FaultError, match="took too long"):
                await transfers.upload(JobId("hangs"), ROUND, payload, digest_of(payload), deadline_s=1.0)
        assert threading.active_count() <= before + 1  # the loop's own threads come as they are needed


async def test_small_transfers_ask_for_no_connection(folder: Path, dialled: Callable[[int], list[int]]) -> None:
    asked = dialled(1)
    payload = random.Random(606).randbytes(bulk.LEAST_BULK_BYTES - 1)
    async with transfers_of(folder, bulk=True) as transfers:
        await transfers.upload(JobId("small"), ROUND, payload, digest_of(payload), deadline_s=DEADLINE_S)
        assert await transfers.download(digest_of(payload), largest=len(payload), deadline_s=DEADLINE_S) == payload
    assert not asked
