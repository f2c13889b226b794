"""What a servicer raises becomes a status; what nobody decided about is never served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from lepton_core.errors import ConflictError, InputError, LeptonError
from lepton_core.ids import OwnerName
from lepton_core.ports import SystemClock
from lepton_protos.status import METADATA_KEY
from lepton_protos.v1 import identity_pb2 as pb
from lepton_protos.v1 import job_pb2
from lepton_server.api.guard import Guard
from lepton_server.identity.ca import KeyPair, Subject, make_ca
from lepton_server.identity.principals import Principals
from lepton_server.identity.roles import Role
from lepton_server.store.memory import MemoryStore
from lepton_server.store.port import EnrolledParty

METHOD = "/lepton.v1.Health/Report"


class Context:
    """What gRPC hands a handler, as far as the guard looks."""

    def __init__(self, *certificates: bytes) -> None:
        self._certificates = certificates
        self._told: dict[str, Any] = {}

    def auth_context(self) -> dict[str, Any]:
        return {"x509_pem_cert": list(self._certificates)} if self._certificates else {}

    @property
    def status(self) -> tuple[grpc.StatusCode, str, dict[str, str]] | None:
        if not self._told:
            return None
        return self._told["code"], self._told["details"], dict(self._told["metadata"])

    def set_code(self, code: grpc.StatusCode) -> None:
        self._told["code"] = code

    def set_details(self, details: str) -> None:
        self._told["details"] = details

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._told["metadata"] = metadata


class Servicer:
    """Raises what the test wants."""

    service = pb.DESCRIPTOR.services_by_name["Health"]

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def report(self, request: pb.HealthRequest, call: object) -> pb.HealthView:
        if self._error is not None:
            raise self._error
        return pb.HealthView(ready=True)


def certificate() -> bytes:
    now = SystemClock().now()
    keys = KeyPair.generate()
    return make_ca(now=now).issue(keys.public, Subject("service", "x"), now=now, valid_s=60.0).certificate


async def call(servicer: Servicer, context: Context, request: bytes = b"") -> Any:
    guard = Guard(Principals(MemoryStore()), SystemClock())

    class Details:
        method = METHOD
        invocation_metadata = ()

    handler = guard.handler(servicer).service(Details())  # type: ignore[arg-type]
    assert handler is not None
    return await handler.unary_unary(request, context)  # type: ignore[misc]


async def test_an_answer_passes() -> None:
    assert (await call(Servicer(), Context(certificate()))).ready


async def test_an_unexpected_error_goes_out_as_an_incident_number_alone() -> None:
    context = Context(certificate())
    await call(Servicer(ZeroDivisionError("secret of the implementation")), context)
    assert context.status is not None
    code, details, metadata = context.status
    assert code is grpc.StatusCode.INTERNAL
    assert "incident" in metadata[METADATA_KEY]
    assert "secret" not in details + metadata[METADATA_KEY]
    assert "Zero" not in details + metadata[METADATA_KEY]


async def test_a_long_error_is_cut_to_what_metadata_carry() -> None:
    context = Context(certificate())
    long = "ü" * 100_000
    await call(Servicer(InputError(long, where=long, expected=long, got=long, hint=long)), context)
    assert context.status is not None
    assert len(context.status[1]) < 1_000
    assert len(context.status[2][METADATA_KEY]) <= 5_000
    assert context.status[2][METADATA_KEY].isascii()


@pytest.mark.parametrize("certificates", [(), (b"rubbish",), (b"one", b"two")])
async def test_a_call_without_one_readable_certificate_is_refused(certificates: tuple[bytes, ...]) -> None:
    context = Context(*certificates)
    await call(Servicer(), context)
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.PERMISSION_DENIED


class Watching:
    """Streams a job's events for as long as the test lets it."""

    service = job_pb2.DESCRIPTOR.services_by_name["Jobs"]

    def __init__(self) -> None:
        self.upcoming: asyncio.Queue[int | None] = asyncio.Queue()
        self.ended = False

    def __getattr__(self, name: str) -> object:
        return self.stream

    async def stream(self, request: object, call: object) -> AsyncIterator[job_pb2.JobEvent]:
        try:
            while (number := await self.upcoming.get()) is not None:
                yield job_pb2.JobEvent(sequence=number)
        finally:
            self.ended = True


class Watch:
    """One caller's open stream, read by a task of its own as gRPC does."""

    def __init__(self) -> None:
        store = MemoryStore()
        now = SystemClock().now()
        certificate = make_ca(now=now).issue(
            KeyPair.generate().public, Subject("researcher", "rosa"), now=now, valid_s=60.0
        )
        with store.transaction() as tx:
            tx.put_party(
                EnrolledParty(
                    name=OwnerName("rosa"),
                    role="researcher",
                    member=None,
                    identity=b"",
                    enrolled=now - 10.0,
                    certificate="a" * 64,
                    certificate_expires=now + 60.0,
                )
            )
        self.servicer = Watching()
        self.guard = Guard(Principals(store), SystemClock())
        self.context = Context(certificate.certificate)
        self.seen: list[int] = []
        #: Held back to keep the stream's reader busy with a reply.
        self.reading = asyncio.Event()
        self.reading.set()

    def start(self) -> asyncio.Task[None]:
        class Details:
            method = "/lepton.v1.Jobs/Watch"
            invocation_metadata = ()

        handler = self.guard.handler(self.servicer).service(Details())  # type: ignore[arg-type]
        assert handler is not None
        stream = handler.unary_stream

        async def read() -> None:
            async for reply in stream(job_pb2.WatchRequest().SerializeToString(), self.context):  # type: ignore[misc]
                self.seen.append(reply.sequence)
                await self.reading.wait()

        return asyncio.create_task(read())

    async def see(self, *numbers: int) -> None:
        """Stream these, and let the reader take them."""
        for number in numbers:
            self.servicer.upcoming.put_nowait(number)
        await turns()

    def reason(self) -> str:
        assert self.context.status is not None
        return str(json.loads(self.context.status[2][METADATA_KEY])["reason"])


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stream_ends_with_its_replies() -> None:
    watch = Watch()
    reader = watch.start()
    await watch.see(1, 2)
    watch.servicer.upcoming.put_nowait(None)
    await reader
    assert watch.seen == [1, 2]
    assert watch.context.status is None


async def test_a_stream_that_waits_is_cut_at_once_when_its_caller_is_revoked() -> None:
    watch = Watch()
    reader = watch.start()
    await watch.see(1)
    watch.guard.cut(OwnerName("nobody"))
    await watch.see(2)
    watch.guard.cut(OwnerName("rosa"))
    watch.guard.cut(OwnerName("rosa"))
    await reader
    assert watch.seen == [1, 2]
    assert watch.reason() == "REVOKED"
    assert watch.servicer.ended
    assert not reader.cancelling()


async def test_a_stream_whose_reply_is_on_its_way_is_cut_behind_it() -> None:
    watch = Watch()
    reader = watch.start()
    watch.reading.clear()
    await watch.see(1, 2)
    watch.guard.cut(OwnerName("rosa"))
    watch.reading.set()
    await reader
    assert watch.seen == [1]
    assert watch.reason() == "REVOKED"
    assert watch.servicer.ended


async def test_a_reply_that_comes_with_the_revocation_stays_behind() -> None:
    watch = Watch()
    reader = watch.start()
    await turns()
    watch.servicer.upcoming.put_nowait(1)
    watch.guard.cut(OwnerName("rosa"))
    await reader
    assert watch.seen == []
    assert watch.reason() == "REVOKED"


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_caller_that_hangs_up_is_no_revocation(revoked: bool) -> None:
    watch = Watch()
    reader = watch.start()
    await turns()
    reader.cancel()
    if revoked:
        watch.guard.cut(OwnerName("rosa"))
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert watch.context.status is None
    assert watch.servicer.ended


def test_a_service_with_an_undecided_method_is_not_served() -> None:
    guard = Guard(Principals(MemoryStore()), SystemClock(), allowed={"/other/Method": frozenset({Role.OWNER})})
    with pytest.raises(ConflictError, match="Health/Report"):
        guard.handler(Servicer())
    assert issubclass(ConflictError, LeptonError)


def test_a_renewal_told_of_late_does_not_undo_a_revocation() -> None:
    def party(**changes: Any) -> EnrolledParty:
        fields = {"role": "researcher", "member": None, "identity": b"", "enrolled": 5.0, "certificate": "a" * 64}
        return EnrolledParty(name=OwnerName("ada"), certificate_expires=1e10, **(fields | changes))

    principals = Principals(MemoryStore())
    principals.note(party())
    principals.note(party(revoked=True))
    principals.note(party(certificate="b" * 64))
    assert [known.revoked for known in principals.parties()] == [True]
    principals.note(party(enrolled=6.0))
    assert [known.revoked for known in principals.parties()] == [False]
