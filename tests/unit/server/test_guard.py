"""What a servicer raises becomes a status; what nobody decided about is never served."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from lepton_core.errors import ConflictError, InputError, LeptonError
from lepton_core.ids import OwnerName
from lepton_core.ports import SystemClock
from lepton_protos.status import METADATA_KEY
from lepton_protos.v1 import identity_pb2 as pb
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
        self.status: tuple[grpc.StatusCode, str, dict[str, str]] | None = None

    def auth_context(self) -> dict[str, Any]:
        return {"x509_pem_cert": list(self._certificates)} if self._certificates else {}

    async def abort(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self.status = (code, details, dict(metadata))
        raise grpc.aio.AbortError


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
    with pytest.raises(grpc.aio.AbortError):
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
    with pytest.raises(grpc.aio.AbortError):
        await call(Servicer(InputError(long, where=long, expected=long, got=long, hint=long)), context)
    assert context.status is not None
    assert len(context.status[1]) < 1_000
    assert len(context.status[2][METADATA_KEY]) <= 5_000
    assert context.status[2][METADATA_KEY].isascii()


@pytest.mark.parametrize("certificates", [(), (b"rubbish",), (b"one", b"two")])
async def test_a_call_without_one_readable_certificate_is_refused(certificates: tuple[bytes, ...]) -> None:
    context = Context(*certificates)
    with pytest.raises(grpc.aio.AbortError):
        await call(Servicer(), context)
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.PERMISSION_DENIED


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
