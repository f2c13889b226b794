"""A gRPC server on a port of its own, with mutual TLS; ends within its grace."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from lepton_core.errors import FaultError
from lepton_protos.channel import SERVER_OPTIONS
from lepton_server.settings import join_address, split_address

#: How long running calls may take to end when the server stops.
GRACE_S = 3.0


def open_server(listen: str, credentials: grpc.ServerCredentials) -> tuple[grpc.aio.Server, int]:
    """A server that has its port, and the port; it serves when `serving` is entered.

    Raises:
        FaultError: the port is in use, or the address is not this machine's.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    host, wanted = split_address(listen)
    try:
        port = server.add_secure_port(join_address(host, wanted), credentials)
    except RuntimeError as error:
        raise FaultError(
            "the address cannot be listened on",
            where=listen,
            expected="a free port of this machine",
            # gRPC goes on to speak of its own environment variables.
            got=str(error).partition(";")[0][:200] or "refused",
            hint="is another coordinator running? choose another port with `listen`",
            reason="PORT_IN_USE",
        ) from None
    return server, port


@contextlib.asynccontextmanager
async def serving(server: grpc.aio.Server, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> AsyncIterator[None]:
    """Serve while the block runs; then take no more calls, and give running ones their grace."""
    server.add_generic_rpc_handlers(tuple(handlers))
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE_S)


@contextlib.contextmanager
def stopped_by_signals(stop: asyncio.Event | None) -> Iterator[asyncio.Event]:
    """The event to wait for: the caller's, or one that SIGTERM and SIGINT set."""
    if stop is not None:
        yield stop
        return
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    caught = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
            loop.add_signal_handler(number, event.set)
            caught.append(number)
    try:
        yield event
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
