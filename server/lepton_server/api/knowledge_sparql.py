"""`/sparql`: the query operation of the SPARQL 1.1 Protocol over the published versions.

`/sparql` asks the newest version in use, `/sparql/VERSION` the one of that hash, or the newest in use of that label;
FROM and `default-graph-uri` name one as urn:lepton:ontology:HASH. Updates, SERVICE and graphs from elsewhere are
refused. Source: SPARQL 1.1 Protocol, W3C Recommendation 2013, section 2.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import structlog
from aiohttp import web

from lepton_core.errors import (
    FaultError,
    IdentityError,
    InputError,
    LeptonError,
    NotFoundError,
    RefusedError,
)
from lepton_core.ids import Digest
from lepton_kg.catalogue import VersionRecord, unknown_version
from lepton_kg.index import graph_iri
from lepton_kg.sparql.query import MAX_QUERY, CheckedQuery, check_query, named_graph, require_local
from lepton_kg.sparql.results import GRAPH_TYPES, ROW_TYPES
from lepton_kg.sparql.workers import QueryWorkers
from lepton_server.api.knowledge_callers import Callers
from lepton_server.api.knowledge_embedded_link import EmbeddedKnowledge

#: Largest body of a request: a query of `MAX_QUERY` letters in percent-encoded UTF-8, and its parameters.
MAX_BODY = 12 * MAX_QUERY
#: How long a request's body may take to come.
_READ_S = 10.0
_FORM, _QUERY, _UPDATE = (
    "application/x-www-form-urlencoded",
    "application/sparql-query",
    "application/sparql-update",
)
#: Reason or class of an error -> HTTP status; the first that fits.
_STATUS: Mapping[str, int] = MappingProxyType(
    {
        "RATE": 429,
        "CONCURRENCY": 429,
        "TIME_LIMIT": 503,
        "BUSY": 503,
        "TOO_LARGE": 413,
        "RESULT_TOO_LARGE": 403,
        "NOT_ACCEPTABLE": 406,
        "MEDIA_TYPE": 415,
        "METHOD": 405,
    }
)
_log = structlog.get_logger("lepton.sparql")


@dataclass(frozen=True)
class _Asked:
    """What a request asks, before its query is looked at."""

    query: str
    #: As the protocol's parameters say; they take the place of the query's own FROM.
    graphs: tuple[str, ...]


class SparqlEndpoint:
    """Answers queries; `identify` tells the caller of a request, or refuses it with IdentityError."""

    def __init__(
        self,
        knowledge: EmbeddedKnowledge,
        workers: QueryWorkers,
        callers: Callers,
        identify: Callable[[web.Request], str],
    ) -> None:
        self._knowledge = knowledge
        self._workers = workers
        self._callers = callers
        self._identify = identify

    def application(self) -> web.Application:
        """The endpoint as an application of its own."""
        application = web.Application(client_max_size=MAX_BODY)
        for path in ("/sparql", "/sparql/{version}"):
            application.router.add_route("*", path, self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            caller = self._identify(request)
            with self._callers.asking(caller, now=asyncio.get_running_loop().time()):
                return await self._run(request)
        except LeptonError as error:
            return _refusal(error)
        except (web.HTTPException, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - the boundary of a request; logged with an id
            incident = uuid.uuid4().hex[:12]
            _log.exception("query failed", incident=incident)
            return _refusal(LeptonError("the service failed", where="/sparql", got=f"incident {incident}"))

    async def _run(self, request: web.Request) -> web.Response:
        # 1. The request is one of the protocol's three.
        try:
            async with asyncio.timeout(_READ_S):
                asked = await _read(request)
        except TimeoutError:
            raise InputError("the request does not come", expected=f"all of it within {_READ_S:g} s") from None
        # 2. The query reads, and reads here.
        query = check_query(asked.query)
        media_type = _negotiate(request.headers.getall("Accept", []), query)
        # 3. One version, whose statements lie ready.
        named = request.match_info.get("version", "")
        digest = await asyncio.to_thread(self._choose, named, asked.graphs or query.graphs)
        place = await asyncio.to_thread(self._knowledge.ready_index, digest)
        # 4. In a process that can be killed.
        try:
            body = await self._workers.run(place, query.text, media_type)
        except FaultError as error:
            if error.reason != "NO_INDEX":
                raise
            _log.warning("the index of an ontology is built anew", **error.as_dict())
            await asyncio.to_thread(self._knowledge.index.remove, digest)
            place = await asyncio.to_thread(self._knowledge.ready_index, digest)
            body = await self._workers.run(place, query.text, media_type)
        return web.Response(body=body, headers={"Content-Type": f"{media_type}; charset=utf-8", "Vary": "Accept"})

    def _choose(self, named: str, graphs: Sequence[str]) -> Digest:
        """The version that the path or the graphs name.

        Raises:
            NotFoundError: no such version.
            RefusedError: graphs from elsewhere, or of several versions.
        """
        wanted = require_local(graphs)
        records = self._knowledge.records()
        by_path = _find(named, records) if named else None
        if wanted is not None and wanted not in {record.digest for record in records}:
            raise unknown_version(wanted)
        if wanted is not None and by_path is not None and wanted != by_path:
            raise RefusedError(
                "the path names one version and the query another",
                expected=graph_iri(by_path),
                got=graph_iri(wanted),
                reason="SEVERAL_VERSIONS",
            )
        return wanted or by_path or _newest(records)


def _find(named: str, records: Sequence[VersionRecord]) -> Digest:
    if any(record.digest == named for record in records):
        return Digest(named)
    return _newest([record for record in records if record.label == named], named)


def _newest(records: Sequence[VersionRecord], named: str = "any") -> Digest:
    in_use = [record for record in records if not record.deprecated]
    if not in_use:
        raise NotFoundError(
            "no ontology version in use",
            where=named[:80],
            expected="a published hash or label",
            hint="`lepton ontology list` shows the published ones; the hash leads to deprecated ones too",
        )
    return Digest(in_use[-1].digest)


async def _read(request: web.Request) -> _Asked:
    """Section 2.1: query via GET, via URL-encoded POST, or via POST directly."""
    fields: list[tuple[str, str]] = list(request.query.items())
    if request.method == "POST":
        kind = request.content_type
        if kind == _UPDATE:
            raise _update()
        if kind not in {_FORM, _QUERY}:
            raise InputError(
                "a body of a type that is not read",
                where="Content-Type",
                expected=f"{_QUERY} or {_FORM}",
                got=kind[:100],
                reason="MEDIA_TYPE",
            )
        try:
            text = (await request.read()).decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("a body that is not UTF-8", where="body", expected="UTF-8", reason="MALFORMED") from None
        except web.HTTPRequestEntityTooLarge:
            raise InputError(
                "a body this long is refused", expected=f"at most {MAX_BODY} bytes", got="more", reason="TOO_LARGE"
            ) from None
        fields += [("query", text)] if kind == _QUERY else _form_fields(text)
    elif request.method not in {"GET", "HEAD"}:
        raise InputError(
            "a method that is not answered",
            where=request.method[:20],
            expected="GET or POST",
            got=request.method[:20],
            reason="METHOD",
        )
    if any(name == "update" for name, _ in fields):
        raise _update()
    queries = [value for name, value in fields if name == "query"]
    if len(queries) != 1:
        raise InputError(
            "a request needs one query",
            where="query",
            expected="one parameter `query`, or a body of " + _QUERY,
            got=str(len(queries)),
            reason="MALFORMED",
        )
    if any(name == "named-graph-uri" for name, _ in fields):
        raise named_graph("named-graph-uri")
    return _Asked(queries[0], tuple(value for name, value in fields if name == "default-graph-uri" and value))


def _form_fields(text: str) -> list[tuple[str, str]]:
    from urllib.parse import parse_qsl

    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=100, errors="strict")
    except ValueError as error:
        raise InputError(
            "a form that cannot be read", where="body", expected=_FORM, got=str(error)[:200], reason="MALFORMED"
        ) from None


def _negotiate(accepted: Sequence[str], query: CheckedQuery) -> str:
    """The media type that the caller likes best, RFC 9110 section 12.5.1.

    Raises:
        InputError: none of those that the query's form can have (`reason` NOT_ACCEPTABLE).
    """
    types = GRAPH_TYPES if query.form.gives_graph else ROW_TYPES
    wishes = [wish.strip() for line in accepted for wish in line.split(",") if wish.strip()] or ["*/*"]
    best: tuple[float, int, int] = (0.0, 0, 0)
    found = ""
    for order, (media_type, names) in enumerate(types.items()):
        quality, exactness = 0.0, -1
        for wish in wishes[:100]:
            wanted, *parameters = (part.strip().lower() for part in wish.split(";"))
            fits = 2 if wanted in names else 1 if wanted == f"{media_type.partition('/')[0]}/*" else 0
            if (fits or wanted == "*/*") and fits > exactness:
                quality, exactness = _quality(parameters), fits
        if (quality, exactness, -order) > best:
            best, found = (quality, exactness, -order), media_type
    if not found:
        raise InputError(
            "no format that the caller accepts",
            where="Accept",
            expected=", ".join(types),
            got=", ".join(wishes)[:300],
            reason="NOT_ACCEPTABLE",
        )
    return found


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if re.fullmatch(r"q=(0(\.\d{0,3})?|1(\.0{0,3})?)", parameter):
            return float(parameter[2:])
    return 1.0


def _update() -> RefusedError:
    return RefusedError(
        "updates are refused; versions never change",
        where="update",
        expected="a query",
        hint="publish a new version with `lepton ontology publish`",
        reason="UPDATE",
    )


def _refusal(error: LeptonError) -> web.Response:
    """The error as JSON, in the status that fits it."""
    status = _STATUS.get(error.reason)
    if status is None:
        status = next(
            (
                number
                for kind, number in (
                    (InputError, 400),
                    (RefusedError, 403),
                    (IdentityError, 403),
                    (NotFoundError, 404),
                    (FaultError, 503),
                )
                if isinstance(error, kind)
            ),
            500,
        )
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if status in {429, 503}:
        headers["Retry-After"] = "1"
    if status == 405:
        headers["Allow"] = "GET, POST"
    if status != 429:  # a flood of requests is no reason for a flood of lines
        _log.info("query refused", status=status, **error.as_dict())
    return web.Response(status=status, body=error.to_json().encode() + b"\n", headers=headers)
