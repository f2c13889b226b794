"""Errors across gRPC: what was raised arrives, and what a hostile peer sends instead does no harm."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from lepton_core.errors import FaultError, LeptonError, PolicyRefusal
from lepton_protos.status import METADATA_KEY, error_from_rpc, to_status


def failure(metadata: str | bytes, details: str = "down") -> grpc.RpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata((METADATA_KEY, metadata)), details, None
    )


def test_an_error_arrives_as_it_was_raised() -> None:
    raised = PolicyRefusal("no", where="policy.jobs.models", expected="one", got="two", hint="ask", reason="MODEL")
    code, details, metadata = to_status(raised)
    arrived = error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details))
    assert type(arrived) is PolicyRefusal
    assert arrived.as_dict() == raised.as_dict()


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        '{"code": 1}',
        '{"message": {"a": 1}}',
        pytest.param("[" * 100_000, id="deep"),
        b"\xff\xfe\xfa",
    ],
)
def test_metadata_that_is_no_error_is_left_aside(metadata: str | bytes) -> None:
    error = error_from_rpc(failure(metadata))
    assert isinstance(error, FaultError)
    assert error.got == "down"


def test_no_peer_can_steer_the_terminal_of_the_one_it_refuses() -> None:
    carried = error_from_rpc(failure('{"code": "fault", "message": "a\\u001b[2Jb\\u0007", "hint": "two\\nlines"}'))
    assert (carried.message, carried.hint) == ("a[2Jb", "two\nlines")
    assert "\x1b" not in str(error_from_rpc(failure("", "\x1b[31mred")))
    assert isinstance(carried, LeptonError)
