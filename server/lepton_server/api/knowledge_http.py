"""The HTTP(S) server of `/sparql`: mutual TLS with the coordinator's roles, or in clear where that is spelled out."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

import structlog
from aiohttp import web

from lepton_core.errors import FaultError, IdentityError, SettingsError
from lepton_core.ports import Clock
from lepton_kg.sparql.workers import QueryLimits, QueryWorkers
from lepton_server.api.knowledge_callers import CallerLimits, Callers
from lepton_server.api.knowledge_embedded_link import EmbeddedKnowledge
from lepton_server.api.knowledge_sparql import SparqlEndpoint
from lepton_server.identity.principals import Principals
from lepton_server.identity.roles import Role, require_role
from lepton_server.settings import join_address, split_address

#: How long running queries may take to end when the server stops.
_GRACE_S = 3.0
_PATH = "/sparql"
_ROLES: Mapping[str, frozenset[Role]] = MappingProxyType(
    {_PATH: frozenset({Role.OWNER, Role.RESEARCHER, Role.OPERATOR, Role.AUDITOR, Role.SERVICE})}
)
_log = structlog.get_logger("lepton.sparql")

Identify = Callable[[web.Request], str]


class Clear(StrEnum):
    """Where queries and answers may travel without TLS; whoever reaches the port may ask."""

    NOWHERE = "nowhere"
    LOOPBACK = "loopback"
    ANYWHERE = "anywhere"


def require_allowed(listen: str, clear: Clear) -> None:
    """Nothing, if it may be listened there in clear.

    Raises:
        SettingsError: `listen` is no address, or reaches further than `clear` says.
    """
    try:
        host, _ = split_address(listen)
    except ValueError as error:
        raise SettingsError("not an address", problems=(f"sparql: {error}",), where="command line") from None
    if clear is Clear.LOOPBACK and not _is_loopback(host):
        raise SettingsError(
            "queries in clear are answered on loopback only",
            problems=(f"sparql: {listen} reaches other machines",),
            where="command line",
            hint="listen on 127.0.0.1, or leave --sparql-clear out to use TLS; "
            "`--sparql-clear anywhere` lets everybody read along",
        )


def by_certificate(principals: Principals, clock: Clock) -> Identify:
    """Callers by the certificate of their connection, which has to be good for the role."""

    def identify(request: web.Request) -> str:
        connection = request.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        if certificate is None:
            raise IdentityError("a call without a certificate", where=_PATH, expected="mutual TLS")
        principal = principals.identify(ssl.DER_cert_to_PEM_cert(certificate).encode(), now=clock.now())
        require_role(_PATH, principal.role, allowed=_ROLES)
        return f"{principal.role} {principal.name}"

    return identify


def by_address(clear: Clear) -> Identify:
    """Callers by their network address, for a server in clear."""

    def identify(request: web.Request) -> str:
        # A web page whose name was made to lead here would have its own name in Host (DNS rebinding).
        host = request.url.host or ""
        if clear is Clear.LOOPBACK and not _is_loopback(host):
            raise IdentityError(
                "a request for another host", where="Host", expected="localhost or an address of it", got=host[:100]
            )
        return request.remote or "unknown"

    return identify


@contextlib.asynccontextmanager
async def serving_sparql(
    knowledge: EmbeddedKnowledge,
    listen: str,
    *,
    identify: Identify,
    tls: ssl.SSLContext | None,
    limits: QueryLimits | None = None,
    caller_limits: CallerLimits | None = None,
) -> AsyncIterator[str]:
    """Answer queries while the block runs; gives the endpoint's URL.

    Raises:
        FaultError: the port is in use, or the address is not this machine's.
    """
    host, port = split_address(listen)
    workers = QueryWorkers(limits or QueryLimits())
    endpoint = SparqlEndpoint(knowledge, workers, Callers(caller_limits or CallerLimits()), identify)
    runner = web.AppRunner(
        endpoint.application(), access_log=None, handle_signals=False, shutdown_timeout=_GRACE_S, keepalive_timeout=30.0
    )
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls, reuse_port=False).start()
        except OSError as error:
            raise FaultError(
                "the address cannot be listened on",
                where=listen,
                expected="a free port of this machine",
                got=error.strerror or type(error).__name__,
                hint="choose another port for SPARQL",
                reason="PORT_IN_USE",
            ) from None
        taken: int = runner.addresses[0][1]
        url = f"{'http' if tls is None else 'https'}://{join_address(host, taken)}{_PATH}"
        if tls is None:
            _log.warning("queries and answers travel in clear, and whoever reaches the port may ask", url=url)
        yield url
    finally:
        await runner.cleanup()
        await workers.close()


def _is_loopback(host: str) -> bool:
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
