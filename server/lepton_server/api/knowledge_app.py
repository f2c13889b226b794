"""The knowledge service as a process of its own, behind the coordinator: `lepton kg serve`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import structlog

from lepton_core.errors import SettingsError
from lepton_core.ports import SystemClock
from lepton_protos.channel import server_credentials
from lepton_server.api.guard import Guard
from lepton_server.api.health_servicer import StandardHealthService
from lepton_server.api.knowledge_embedded_link import EmbeddedKnowledge
from lepton_server.api.knowledge_http import (
    Clear,
    by_address,
    by_certificate,
    require_allowed,
    serving_sparql,
)
from lepton_server.api.knowledge_servicer import KnowledgeService
from lepton_server.api.tls import tls_context
from lepton_server.identity.principals import Principals
from lepton_server.identity.roles import Role
from lepton_server.listening import open_server, serving, stopped_by_signals
from lepton_server.settings import join_address, split_address
from lepton_server.setup import read_file
from lepton_server.store.memory import MemoryStore
from lepton_server.store.migrate import migrate
from lepton_server.store.sql import SqlStore

_log = structlog.get_logger("lepton.knowledge")
_KNOWLEDGE = KnowledgeService.service
#: The coordinator alone calls; it has asked about people's roles before.
_ALLOWED: Mapping[str, frozenset[Role]] = MappingProxyType(
    dict.fromkeys(
        (
            *(f"/{_KNOWLEDGE.full_name}/{method.name}" for method in _KNOWLEDGE.methods),
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
        ),
        frozenset({Role.SERVICE}),
    )
)


@dataclass(frozen=True)
class SparqlListening:
    """Where `/sparql` is answered."""

    #: host:port; port 0 takes a free one.
    listen: str
    clear: Clear = Clear.NOWHERE


@dataclass(frozen=True)
class KnowledgeAddresses:
    """Where the service is reached, once it is ready."""

    #: host:port of gRPC.
    address: str
    #: Of `/sparql`; empty where it is not served.
    sparql_url: str = ""


async def serve_knowledge(
    folder: Path,
    *,
    listen: str,
    store: Path | None = None,
    sparql: SparqlListening | None = None,
    ready: Callable[[KnowledgeAddresses], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve ontology versions until `stop` is set, or SIGTERM or SIGINT comes.

    `folder` holds the credentials that `issue_service` wrote and the database of versions, `knowledge.db`; their
    statements lie in `store`, by default within it.

    Raises:
        InputError: credentials are missing, an address is none, or the database is of a newer release.
        FaultError: a port is in use, or store or database cannot be made.
    """
    try:
        host, _ = split_address(listen)
    except ValueError as error:
        raise SettingsError("not an address", problems=(f"listen: {error}",), where="command line") from None
    if sparql is not None:
        require_allowed(sparql.listen, sparql.clear)
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as closing:
        stopped = closing.enter_context(stopped_by_signals(stop))
        # 1. Credentials before anything is made.
        ca_certificate = read_file(folder / "ca.pem")
        credentials = server_credentials(
            certificate=read_file(folder / "cert.pem"), key=read_file(folder / "key.pem"), ca_certificate=ca_certificate
        )
        # 2. The versions. Only this process uses the database, so it brings the tables to this release itself.
        database = f"sqlite:///{(folder / 'knowledge.db').resolve()}"
        await asyncio.to_thread(migrate, database)
        records = SqlStore(database)
        closing.callback(records.close)
        source = EmbeddedKnowledge(store or folder / "ontologies", records, clock)
        # 3. Nobody is enrolled here: certificates of the role `service` are all that is let in.
        principals = Principals(MemoryStore())
        guard = Guard(principals, clock, allowed=_ALLOWED)
        server, port = open_server(listen, credentials)
        handlers = [
            guard.handler(KnowledgeService(source)),
            guard.handler(StandardHealthService(lambda: True)),
        ]
        await closing.enter_async_context(serving(server, handlers))
        # 4. Queries.
        url = ""
        if sparql is not None:
            in_clear = sparql.clear is not Clear.NOWHERE
            url = await closing.enter_async_context(
                serving_sparql(
                    source,
                    sparql.listen,
                    identify=by_address(sparql.clear) if in_clear else by_certificate(principals, clock),
                    tls=None
                    if in_clear
                    else tls_context(folder / "cert.pem", folder / "key.pem", ca_certificate=ca_certificate),
                )
            )
        address = join_address(host, port)
        _log.info("ready", address=address, sparql=url)
        if ready is not None:
            ready(KnowledgeAddresses(address, url))
        await stopped.wait()
