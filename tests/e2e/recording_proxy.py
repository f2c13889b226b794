"""A proxy between one daemon and the coordinator: real mutual TLS on both sides, and every byte in between kept.

It shows the daemon a certificate of the coordinator's own CA, whose key lies in the test's folder, and shows the
coordinator the daemon's own credentials. What it passes on are raw message bytes, the payload of the HTTP/2 DATA
frames; the headers that a daemon sets are kept as well, and not passed on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from lepton_protos.channel import SERVER_OPTIONS, Endpoint, open_channel, server_credentials
from lepton_server.identity.ca import KeyPair, Subject
from lepton_server.identity.roles import Role
from lepton_server.settings import load_settings
from lepton_server.setup import COORDINATOR, load_authority

#: gRPC tells a call without a deadline as one with hundreds of years left.
_NO_DEADLINE_S = 1e6

#: Changes a request's bytes on their way to the coordinator; gets the method and the bytes.
Alter = Callable[[str, bytes], bytes]


@dataclass
class Call:
    """One RPC of the daemon."""

    #: Such as `/lepton.v1.Control/Session`.
    method: str
    #: The request's headers, but for those that HTTP/2 and gRPC define themselves.
    headers: tuple[tuple[str, str | bytes], ...]
    #: What the daemon put into `grpc-timeout`, in seconds; None without one.
    timeout_s: float | None
    #: Messages in the order in which they passed: True for the daemon's own.
    messages: list[tuple[bool, bytes]] = field(default_factory=list)

    @property
    def sent(self) -> list[bytes]:
        """What the daemon sent."""
        return [message for from_daemon, message in self.messages if from_daemon]

    @property
    def received(self) -> list[bytes]:
        """What the coordinator answered."""
        return [message for from_daemon, message in self.messages if not from_daemon]


class RecordingProxy(grpc.GenericRpcHandler):
    """Listens on a free port of this machine; `calls` is the record. `dial` says whom it speaks for."""

    def __init__(self, coordinator: Path) -> None:
        """`coordinator` is the coordinator's folder, with its CA."""
        authority, keys, now = load_authority(coordinator, load_settings(coordinator)), KeyPair.generate(), time.time()
        subject = Subject(Role.SERVICE, COORDINATOR)
        shown = authority.issue(keys.public, subject, now=now, valid_s=3600.0, hosts=["127.0.0.1"])
        self.calls: list[Call] = []
        self.alter: Alter = lambda _, message: message
        self._passed = threading.Condition()
        self._channel: grpc.Channel | None = None
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=[self], options=SERVER_OPTIONS)
        credentials = server_credentials(
            certificate=shown.certificate, key=keys.to_pem(), ca_certificate=authority.certificate
        )
        self.address = f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', credentials)}"
        self._server.start()

    def dial(self, endpoint: Endpoint) -> None:
        """Pass calls on with these credentials from now on."""
        if self._channel is not None:
            self._channel.close()
        self._channel = open_channel(endpoint)

    def close(self) -> None:
        """End every call."""
        self._server.stop(0).wait()
        if self._channel is not None:
            self._channel.close()

    def wait_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something has passed that makes it so."""
        with self._passed:
            return self._passed.wait_for(done, timeout_s)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """On the wire every call is a stream of messages each way."""
        headers = tuple((key, value) for key, value in details.invocation_metadata)

        def forward(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            left_s = context.time_remaining()
            call = Call(details.method, headers, left_s if left_s is not None and left_s < _NO_DEADLINE_S else None)
            self.calls.append(call)
            return self._forward(call, requests, context)

        return grpc.stream_stream_rpc_method_handler(forward)

    def _forward(self, call: Call, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        def recorded() -> Iterator[bytes]:
            for message in requests:
                self._keep(call, message, from_daemon=True)
                yield self.alter(call.method, message)

        answers = self._channel.stream_stream(call.method)(recorded(), timeout=call.timeout_s)
        context.add_callback(answers.cancel)
        try:
            for message in answers:
                self._keep(call, message, from_daemon=False)
                yield message
        except grpc.RpcError as failure:
            context.set_trailing_metadata(failure.trailing_metadata() or ())
            context.set_code(failure.code())
            context.set_details(failure.details() or "")

    def _keep(self, call: Call, message: bytes, *, from_daemon: bool) -> None:
        with self._passed:
            call.messages.append((from_daemon, message))
            self._passed.notify_all()
