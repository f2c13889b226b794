"""The knowledge service as a process of its own, behind the coordinator: `lepton kg serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import structlog

from lepton_core.errors import FaultError, SettingsError
from lepton_core.ports import SystemClock
from lepton_protos.channel import server_credentials
from lepton_server.api.guard import Guard
from lepton_server.api.health_servicer import StandardHealthService
from lepton_server.api.knowledge_link import EmbeddedKnowledge
from lepton_server.api.knowledge_servicer import KnowledgeService
from lepton_server.identity.principals import Principals
from lepton_server.identity.roles import Role
from lepton_server.listening import open_server, serving, stopped_by_signals
from lepton_server.settings import join_address, split_address
from lepton_server.setup import read_file
from lepton_server.store.memory import MemoryStore

_log = structlog.get_logger("lepton.knowledge")
_SERVICE = frozenset({Role.SERVICE})
#: The coordinator alone calls; it has asked about people's roles before.
_ALLOWED: Mapping[str, frozenset[Role]] = MappingProxyType(
    dict.fromkeys(
        (
            "/lepton.v1.Knowledge/Publish",
            "/lepton.v1.Knowledge/Get",
            "/lepton.v1.Knowledge/List",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
        ),
        _SERVICE,
    )
)


async def serve_knowledge(
    folder: Path,
    *,
    listen: str,
    store: Path | None = None,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve ontology versions until `stop` is set, or SIGTERM or SIGINT comes.

    `folder` holds the credentials that `issue_service` wrote; versions lie in `store`, by default within it.

    Raises:
        InputError: credentials are missing, or `listen` is no address.
        FaultError: the port is in use, or the store cannot be made.
    """
    try:
        host, _ = split_address(listen)
    except ValueError as error:
        raise SettingsError("not an address", problems=(f"listen: {error}",), where="command line") from None
    clock = SystemClock()
    place = store or folder / "ontologies"
    try:
        source = EmbeddedKnowledge(place, clock)
    except OSError as error:
        raise FaultError(
            "the folder of ontologies cannot be used", where=str(place), got=error.strerror or type(error).__name__
        ) from None
    with stopped_by_signals(stop) as stopped:
        server, port = open_server(
            listen,
            server_credentials(
                certificate=read_file(folder / "cert.pem"),
                key=read_file(folder / "key.pem"),
                ca_certificate=read_file(folder / "ca.pem"),
            ),
        )
        # Nobody is enrolled here: certificates of the role `service` are all that is let in.
        guard = Guard(Principals(MemoryStore()), clock, allowed=_ALLOWED)
        handlers = [
            guard.handler(KnowledgeService(source)),
            guard.handler(StandardHealthService(lambda: True)),
        ]
        async with serving(server, handlers):
            address = join_address(host, port)
            _log.info("ready", address=address)
            if ready is not None:
                ready(address)
            await stopped.wait()
