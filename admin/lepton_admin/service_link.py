"""A line to a service beside the coordinator, with the service's own certificate: whether it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from lepton_core.errors import FaultError, InputError
from lepton_protos.channel import Endpoint, open_channel
from lepton_protos.status import error_from_rpc

#: A health check that takes longer counts as failed, as in docker-compose.yml.
TIMEOUT_S = 5.0


def require_serving(folder: Path, address: str, timeout_s: float = TIMEOUT_S) -> None:
    """Nothing, if the service whose credentials lie in `folder` says at `address` that it serves.

    Raises:
        InputError: there are no credentials in the folder.
        FaultError: it cannot be reached in time, or does not serve.
        IdentityError: it does not accept the certificate.
    """
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with open_channel(Endpoint(address, *_credentials(folder))) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as failure:
            error = error_from_rpc(failure)
            if isinstance(error, FaultError):  # whose words are about the coordinator
                raise _fault("the service cannot be reached", address, timeout_s, got=error.got) from None
            raise error from None
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise _fault("the service does not serve", address, timeout_s, got=str(reply.status))


def _fault(message: str, address: str, timeout_s: float, *, got: str) -> FaultError:
    return FaultError(
        message,
        where=address,
        expected=f"SERVING within {timeout_s:g} s",
        got=got,
        hint="is `lepton kg serve` running, at this address? read its log",
    )


def _credentials(folder: Path) -> tuple[bytes, bytes, bytes]:
    try:
        return (folder / "ca.pem").read_bytes(), (folder / "cert.pem").read_bytes(), (folder / "key.pem").read_bytes()
    except OSError as error:
        raise InputError(
            "no credentials of a service here",
            where=str(folder),
            expected="the files ca.pem, cert.pem and key.pem that `lepton kg init` wrote",
            got=f"{Path(error.filename).name}: {error.strerror}",
        ) from None
