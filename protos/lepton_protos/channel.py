"""mTLS channels: one folder with address, CA, certificate and key, and the gRPC options both sides use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from lepton_core.errors import InputError

#: Largest single message; bulk data go in chunks of `CHUNK_BYTES`.
MESSAGE_BYTES = 4 * 2**20
#: Streaming 1 MiB chunks is 2.4 to 4 times as fast as 4 MiB unary messages.
CHUNK_BYTES = 2**20
#: Below the idle limits of common firewalls and load balancers (60 s and more).
KEEPALIVE_MS = 30_000
#: How long a peer may leave a keepalive ping unanswered.
KEEPALIVE_TIMEOUT_MS = 10_000
#: How long one attempt to connect may take, TLS handshake included; gRPC's own choice is 20 s.
CONNECT_TIMEOUT_MS = 10_000

_COMMON = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
)
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON,
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Despite its name, also how long connecting and the TLS handshake may take; a short one fails over slow networks.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON,
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
    # One connection takes no more calls at once than a client of ours ever makes.
    ("grpc.max_concurrent_streams", 64),
    # A second coordinator on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
)

_FILES = ("address", "ca.pem", "cert.pem", "key.pem")


@dataclass(frozen=True)
class Endpoint:
    """Where a coordinator is and the credentials to talk to it; PEM bytes."""

    address: str
    ca_certificate: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return f"Endpoint(address={self.address!r}, key=<redacted>)"


def load_endpoint(folder: Path) -> Endpoint:
    """The endpoint whose files lie in `folder`: address, ca.pem, cert.pem, key.pem.

    Raises:
        InputError: a file is missing.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(
                "no credentials here",
                where=str(folder),
                expected=f"the files {', '.join(_FILES)}",
                got=f"{name} is missing",
                hint="enrol first with the invitation file from the coordinator's operator",
            )
    address, ca_certificate, certificate, key = ((folder / name).read_bytes() for name in _FILES)
    return Endpoint(address.decode().strip(), ca_certificate, certificate, key)


def save_endpoint(folder: Path, endpoint: Endpoint) -> None:
    """Write the endpoint's files; the key is readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    contents = (endpoint.address.encode() + b"\n", endpoint.ca_certificate, endpoint.certificate, endpoint.key)
    for name, content in zip(_FILES, contents, strict=True):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """A blocking channel with mutual TLS.

    It reconnects only while somebody waits on it, and calls that fail at once never do: after a transport failure, open
    another.
    """
    return grpc.secure_channel(endpoint.address, _credentials(endpoint), options=CHANNEL_OPTIONS)


def open_aio_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    """An asyncio channel with mutual TLS."""
    return grpc.aio.secure_channel(endpoint.address, _credentials(endpoint), options=CHANNEL_OPTIONS)


def server_credentials(*, certificate: bytes, key: bytes, ca_certificate: bytes) -> grpc.ServerCredentials:
    """Server side of mutual TLS: no client without a certificate of this CA gets as far as an RPC."""
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca_certificate, require_client_auth=True)


def _credentials(endpoint: Endpoint) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=endpoint.ca_certificate, private_key=endpoint.key, certificate_chain=endpoint.certificate
    )
