"""Every RPC goes through here: who is calling, may they, is the message one, and errors as statuses.

Handlers are made from the service's descriptor, so that no method can be served without an entry in the table of
roles, and no bytes reach a servicer unparsed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from lepton_core.errors import FaultError, IdentityError, InputError, LeptonError, from_dict
from lepton_core.ids import OwnerName
from lepton_core.ports import Clock
from lepton_protos.chunks import split_chunk
from lepton_protos.status import to_status
from lepton_protos.v1 import transfer_pb2
from lepton_server.identity.principals import Principal, Principals
from lepton_server.identity.roles import ALLOWED, Role, require_complete, require_role

#: A message, or one that is serialized already.
Reply = Message | bytes

_log = structlog.get_logger("lepton.api")
#: gRPC carries 8 KiB of metadata, the details in it too; an error is cut to fit, field by field.
_LONGEST_ERROR = 5_000
_LONGEST_FIELD = 1_000


@dataclass(frozen=True)
class Call:
    """Who called which method."""

    principal: Principal
    #: Full name, such as `/lepton.v1.Jobs/Show`.
    method: str


class Servicer(Protocol):
    """Implements one service, a method an RPC: `show_round(request, call)` for `ShowRound`."""

    @property
    def service(self) -> ServiceDescriptor:
        """The service in its .proto file."""
        ...


class Guard:
    """Makes the handlers of services; open streams of a revoked party end at once."""

    def __init__(
        self, principals: Principals, clock: Clock, *, allowed: Mapping[str, frozenset[Role]] = ALLOWED
    ) -> None:
        self._principals = principals
        self._clock = clock
        self._allowed = allowed
        self._streams: dict[OwnerName, set[_Stream]] = {}

    def handler(self, servicer: Servicer) -> grpc.GenericRpcHandler[Any, Any]:
        """The handler for the servicer's service; method `ShowRound` is the servicer's `show_round`.

        Raises:
            ConflictError: a method without an entry in the table of roles.
        """
        service = servicer.service
        names = {method.name: f"/{service.full_name}/{method.name}" for method in service.methods}
        require_complete(names.values(), allowed=self._allowed)
        handlers = {
            method.name: self._method(method, names[method.name], getattr(servicer, _snake_case(method.name)))
            for method in service.methods
        }
        made: grpc.GenericRpcHandler[Any, Any] = grpc.method_handlers_generic_handler(service.full_name, handlers)
        return made

    def cut(self, name: OwnerName) -> None:
        """End the open streams of a party that was revoked."""
        for stream in self._streams.get(name, ()):
            stream.cut()

    # ---- one method ------------------------------------------------------------------------------------------------

    def _method(self, method: MethodDescriptor, name: str, implementation: Callable[..., Any]) -> Any:
        kind = GetMessageClass(method.input_type)
        if method.client_streaming and method.server_streaming:

            async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Reply]:
                async with _Answered(name, context):
                    call = self._admit(name, context)
                    async for reply in self._while_enrolled(
                        implementation(self._parsed(kind, requests, call), call), call
                    ):
                        yield reply

            return grpc.stream_stream_rpc_method_handler(both, None, _serialize)
        if method.server_streaming:

            async def out(request: bytes, context: Any) -> AsyncIterator[Reply]:
                async with _Answered(name, context):
                    call = self._admit(name, context)
                    async for reply in self._while_enrolled(implementation(_parse(kind, request), call), call):
                        yield reply

            return grpc.unary_stream_rpc_method_handler(out, None, _serialize)
        if method.client_streaming:

            async def into(requests: AsyncIterator[bytes], context: Any) -> Message | None:
                async with _Answered(name, context):
                    call = self._admit(name, context)
                    return await _reply(implementation(self._parsed(kind, requests, call), call))
                return None

            return grpc.stream_unary_rpc_method_handler(into, None, _serialize)

        async def single(request: bytes, context: Any) -> Message | None:
            async with _Answered(name, context):
                call = self._admit(name, context)
                return await _reply(implementation(_parse(kind, request), call))
            return None

        return grpc.unary_unary_rpc_method_handler(single, None, _serialize)

    def _admit(self, method: str, context: Any) -> Call:
        """Who is calling, if the role may.

        Raises:
            IdentityError: no certificate, one that is no longer good, or a role that may not.
        """
        certificates: tuple[bytes, ...] = tuple(context.auth_context().get("x509_pem_cert") or ())
        if len(certificates) != 1:
            raise IdentityError("a call without a certificate", where=method, expected="mutual TLS")
        principal = self._principals.identify(certificates[0], now=self._clock.now())
        require_role(method, principal.role, allowed=self._allowed)
        return Call(principal, method)

    async def _parsed(self, kind: type[Message], requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[Any]:
        """The stream's messages, each taken only while the caller's certificate is good; a chunk's bytes beside it."""
        parse: Callable[[type[Message], bytes], Any] = _split if kind is transfer_pb2.UploadChunk else _parse
        messages = aiter(requests)
        try:
            async for request in messages:
                self._principals.require_current(call.principal, now=self._clock.now())
                yield parse(kind, request)
        finally:
            # gRPC's own reader refers to itself: one that is left in the middle would keep the call open, as `_refuse`.
            if hasattr(messages, "aclose"):
                await messages.aclose()

    async def _while_enrolled(self, replies: AsyncIterator[Reply], call: Call) -> AsyncIterator[Reply]:
        """The replies, until the caller is revoked."""
        stream = _Stream(call.principal.name)
        streams = self._streams.setdefault(call.principal.name, set())
        streams.add(stream)
        try:
            while (reply := await stream.next_of(replies)) is not None:
                yield reply
        finally:
            streams.discard(stream)
            if not streams:
                self._streams.pop(call.principal.name, None)
            if hasattr(replies, "aclose"):
                await replies.aclose()


class _Answered:
    """Turns what is raised inside into the call's status and its end; nothing of a stack trace goes outward."""

    def __init__(self, method: str, context: Any) -> None:
        self._method = method
        self._context = context

    async def __aenter__(self) -> None:
        """Nothing to do."""

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """True if the error has become the call's status."""
        if isinstance(error, LeptonError):
            tell = _log.warning if isinstance(error, (FaultError, IdentityError)) else _log.info
            tell("call refused", method=self._method, **error.as_dict())
            _refuse(self._context, error)
        elif isinstance(error, Exception):  # the boundary of a request; logged with an id
            incident = uuid.uuid4().hex[:12]
            _log.error("call failed", method=self._method, incident=incident, exc_info=error)
            _refuse(
                self._context, LeptonError("the coordinator failed", where=self._method, got=f"incident {incident}")
            )
        else:  # none, or the call was cancelled
            return False
        return True


class _Stream:
    """One open stream of replies, which can be cut while it waits for the next one."""

    def __init__(self, name: OwnerName) -> None:
        self._name = name
        self._cut = asyncio.Event()
        #: The call's own task while it waits for a reply; None while a reply is on its way out.
        self._waiting: asyncio.Task[Any] | None = None

    def cut(self) -> None:
        """End the stream: at once if it waits, or else as soon as its reply is out."""
        if not self._cut.is_set():
            self._cut.set()
            if self._waiting is not None:
                self._waiting.cancel()

    async def next_of(self, replies: AsyncIterator[Reply]) -> Reply | None:
        """The next reply, waited for in the call's own task, as a task a reply would cost more than the reply; or None.

        Raises:
            IdentityError: the stream was cut.
        """
        task = asyncio.current_task()
        if task is None:  # an asynchronous generator runs in its caller's task
            raise AssertionError
        reply: Reply | None = None
        if not self._cut.is_set():
            self._waiting = task
            try:
                reply = await anext(replies, None)
            except asyncio.CancelledError:
                # Somebody else may have cancelled the call as well: the caller that hung up, or the server's end.
                if not self._cut.is_set() or task.uncancel() > 0:
                    raise
            finally:
                self._waiting = None
        if self._cut.is_set():
            raise IdentityError("the certificate has been revoked", where=self._name, reason="REVOKED")
        return reply


async def _reply(answer: Awaitable[Message]) -> Message:
    return await answer


def _refuse(context: Any, error: LeptonError) -> None:
    """End the call with this status.

    Not by `context.abort`: gRPC keeps the exception that it raises at the call, whose frames it refers to, so that the
    call stays open at the connection, which may have only so many, until Python searches for cycles.
    """
    code, details, metadata = to_status(shortened(error))
    context.set_code(code)
    context.set_details(details)
    context.set_trailing_metadata(metadata)


def shortened(error: LeptonError) -> LeptonError:
    """The error, cut until its JSON, in which a letter can take six bytes, fits the metadata."""
    length = _LONGEST_FIELD
    short = error
    while length == _LONGEST_FIELD or len(short.to_json()) > _LONGEST_ERROR:
        short = from_dict({key: value[:length] for key, value in error.as_dict().items()})
        length //= 2
    return short


def _parse(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InputError(
            "a message that cannot be read", where=kind.__name__, expected="protobuf", got=f"{len(data)} bytes"
        ) from None


def _split(kind: type[Message], data: bytes) -> tuple[Message, memoryview]:
    try:
        return split_chunk(kind, data)
    except DecodeError:
        raise InputError("a chunk that cannot be read", where=kind.__name__, got=f"{len(data)} bytes") from None


def _serialize(reply: Message | bytes) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
