"""Typed errors across gRPC: a status code for everybody, and the whole error as trailing metadata for Lepton."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import grpc

from lepton_core import errors

#: What gRPC's Python layer says if a call ends just while a message is handed over; the call's own status is lost then.
_BROKEN_WHILE_SENDING = "Internal error from Core"
#: Trailing metadata key that holds `LeptonError.to_json()`.
METADATA_KEY = "lepton-error"

_STATUS: tuple[tuple[type[errors.LeptonError], grpc.StatusCode], ...] = (
    (errors.InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.RefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ConflictError, grpc.StatusCode.ALREADY_EXISTS),
    (errors.IdentityError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.PeerViolation, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.AbortedError, grpc.StatusCode.ABORTED),
    (errors.FaultError, grpc.StatusCode.UNAVAILABLE),
)


def to_status(error: errors.LeptonError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """The status code, the details and the trailing metadata that carry this error."""
    code = next((code for kind, code in _STATUS if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    return code, error.message, ((METADATA_KEY, error.to_json()),)


def error_from_rpc(failure: grpc.RpcError) -> errors.LeptonError:
    """The typed error that a failed call carries; a bare transport failure becomes a `FaultError`."""
    metadata: Iterable[Any] = (failure.trailing_metadata() or ()) if hasattr(failure, "trailing_metadata") else ()
    for key, value in metadata:
        carried = _carried(value) if key == METADATA_KEY else None
        if carried is not None:
            return carried
    code = failure.code() if hasattr(failure, "code") else None
    details = printable((failure.details() if hasattr(failure, "details") else "") or "")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.FaultError(
            "the call took too long", got=details, hint="is the coordinator busy, or the network cut?"
        )
    if code == grpc.StatusCode.UNAVAILABLE and ("CERTIFICATE" in details.upper() or "SSL" in details.upper()):
        return errors.IdentityError(
            "the TLS handshake failed",
            expected="a coordinator whose certificate comes from the pinned CA, and a certificate it accepts",
            got=details[:200],
            hint="check that the invitation is from this coordinator; ask its operator for a new one",
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return errors.FaultError(
            "the coordinator cannot be reached", got=details[:200], hint="is it running, at this address?"
        )
    if code == grpc.StatusCode.INTERNAL and details == _BROKEN_WHILE_SENDING:
        return errors.FaultError("the call ended while it was sending", hint="the next attempt tells why")
    return errors.LeptonError("the call failed", got=f"{code}: {details[:200]}")


def error_from_json(value: bytes) -> errors.LeptonError:
    """The typed error that a peer sent; one that cannot be read is an error too."""
    return _carried(value) or errors.LeptonError("the coordinator refused, and does not say why")


def _carried(value: str | bytes) -> errors.LeptonError | None:
    """The error in the metadata, without characters that could steer a terminal; None if it is none."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        return None
    return errors.from_dict({key: printable(text) for key, text in fields.items()})


def printable(text: str) -> str:
    """The text without control characters, line breaks excepted."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
