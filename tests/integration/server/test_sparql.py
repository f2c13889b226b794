"""`/sparql` as somebody else's client sees it: over HTTP and mutual TLS, with queries in real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lepton_core.errors import SettingsError
from lepton_core.ports import SystemClock
from lepton_kg.index import graph_iri
from lepton_kg.sparql.workers import QueryLimits
from lepton_protos.v1 import kg_pb2 as pb
from lepton_server.api.knowledge_app import KnowledgeAddresses, SparqlListening, serve_knowledge
from lepton_server.api.knowledge_callers import CallerLimits
from lepton_server.api.knowledge_embedded_link import EmbeddedKnowledge
from lepton_server.api.knowledge_http import Clear, by_address, serving_sparql
from lepton_server.setup import init_home, issue_service
from lepton_server.store.memory import MemoryStore
from tests.integration.server.running import ONTOLOGY, Party, enrol, operator, publish_ontology, running

SIZE = "https://example.org/t#size"
ROWS = "SELECT ?concept ?label { ?concept <http://www.w3.org/2004/02/skos/core#prefLabel> ?label } ORDER BY ?label"
ENDLESS = "SELECT (COUNT(*) AS ?n) { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i . ?j ?k ?l . ?m ?n ?o . ?p ?q ?r }"


@dataclass
class Answer:
    """What came back."""

    status: int
    kind: str
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


async def ask(url: str, *, context: ssl.SSLContext | None = None, data: bytes | None = None, **headers: str) -> Answer:
    """One request, not on the event loop."""
    request = urllib.request.Request(url, data=data, headers={k.replace("_", "-"): v for k, v in headers.items()})  # noqa: S310 - our own server

    def fetch() -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as reply:  # noqa: S310 - as above
                return Answer(reply.status, reply.headers["Content-Type"], reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers["Content-Type"], error.read())

    return await asyncio.to_thread(fetch)


def get(url: str, query: str, **more: str) -> str:
    """The URL of a query by GET."""
    return f"{url}?{urllib.parse.urlencode({'query': query, **more})}"


async def publish(knowledge: EmbeddedKnowledge, document: bytes, label: str) -> str:
    async def pieces() -> AsyncIterator[pb.PublishOntologyRequest]:
        yield pb.PublishOntologyRequest(document=document, format="turtle", label=label, actor="ada")

    return (await knowledge.publish(pieces())).digest


@contextlib.asynccontextmanager
async def endpoint(folder: Path, **limits: Any) -> AsyncIterator[tuple[str, EmbeddedKnowledge]]:
    """An endpoint in clear on loopback, over knowledge of its own."""
    knowledge = EmbeddedKnowledge(folder, MemoryStore(), SystemClock())
    identify = by_address(Clear.LOOPBACK)
    async with serving_sparql(knowledge, "127.0.0.1:0", identify=identify, tls=None, **limits) as url:
        yield url, knowledge


async def test_a_stock_client_asks_in_every_form_and_format(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own, while it is imported
        import SPARQLWrapper as client  # noqa: N813 - a module, named like its class
    async with endpoint(tmp_path) as (url, knowledge):
        await publish(knowledge, ONTOLOGY, "t")

        def asked(query: str, format: str, method: str = client.GET) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wrapper = client.SPARQLWrapper(url)
                wrapper.setQuery(query)
                wrapper.setReturnFormat(format)
                wrapper.setMethod(method)
                wrapper.setTimeout(20)
                return wrapper.query().convert()

        for method in (client.GET, client.POST):
            rows = (await asyncio.to_thread(asked, ROWS, client.JSON, method))["results"]["bindings"]
            assert {"type": "literal", "value": "size", "xml:lang": "en"} in [row["label"] for row in rows]
        assert SIZE in (await asyncio.to_thread(asked, ROWS, client.XML)).toxml()
        assert (await asyncio.to_thread(asked, ROWS, client.CSV)).startswith(b"concept,label\r\n")
        assert (await asyncio.to_thread(asked, ROWS, client.TSV)).startswith(b"?concept\t?label\n")
        assert (await asyncio.to_thread(asked, "ASK { <" + SIZE + "> ?p ?o }", client.JSON))["boolean"] is True
        describe = "DESCRIBE <" + SIZE + ">"
        assert b"prefLabel" in await asyncio.to_thread(asked, describe, client.TURTLE)
        construct = "CONSTRUCT WHERE { <" + SIZE + "> a ?kind }"
        graph = await asyncio.to_thread(asked, construct, client.N3)
        assert SIZE.encode() in graph


async def test_queries_that_the_protocol_or_the_service_does_not_allow_are_refused_with_a_clear_error(
    tmp_path: Path,
) -> None:
    async with endpoint(tmp_path, caller_limits=CallerLimits(1_000.0, 1_000, 100)) as (url, knowledge):
        assert (await ask(get(url, ROWS))).status == 404  # nothing is published
        digest = await publish(knowledge, ONTOLOGY, "t")
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        cases = (
            (await ask(url), 400, "MALFORMED"),
            (await ask(get(url, "SELECT * {")), 400, "MALFORMED"),
            (await ask(get(url, "SELECT * { SERVICE <http://127.0.0.1:1/> { ?s ?p ?o } }")), 403, "SERVICE"),
            (await ask(get(url, "SELECT * FROM <http://127.0.0.1:1/x> { ?s ?p ?o }")), 403, "REMOTE_GRAPH"),
            (await ask(get(url, ROWS, **{"default-graph-uri": "http://127.0.0.1:1/x"})), 403, "REMOTE_GRAPH"),
            (await ask(get(url, ROWS, **{"named-graph-uri": graph_iri(digest)})), 403, "NAMED_GRAPH"),
            (await ask(get(url, "INSERT DATA { <a:a> <b:b> 1 }")), 403, "UPDATE"),
            (await ask(url, data=b"update=CLEAR+ALL", **form), 403, "UPDATE"),
            (await ask(url, data=b"CLEAR ALL", Content_Type="application/sparql-update"), 403, "UPDATE"),
            (await ask(url, data=b"{}", Content_Type="application/json"), 415, "MEDIA_TYPE"),
            (await ask(url, data=b"query=%ff", **form), 400, "MALFORMED"),
            (await ask(get(url, ROWS), Accept="image/png"), 406, "NOT_ACCEPTABLE"),
            (await ask(get(url, "CONSTRUCT WHERE { ?s ?p ?o }"), Accept="application/rdf+xml"), 406, "NOT_ACCEPTABLE"),
            (await ask(url, data=b"query=" + b"x" * 2**20, **form), 413, "TOO_LARGE"),
            (await ask(get(url, ROWS, **{"default-graph-uri": graph_iri("0" * 64)})), 404, ""),
            (await ask(f"{url}/nowhere?query=ASK%7B%7D"), 404, ""),
        )
        for answer, status, reason in cases:
            assert (answer.status, answer.error.get("reason", "")) == (status, reason), answer.error
            assert answer.error["message"]
            assert answer.kind.startswith("application/json")
        rebound = await ask(get(url, ROWS), Host="evil.example.org")
        assert (rebound.status, rebound.error["where"]) == (403, "Host")


async def test_the_newest_version_in_use_answers_unless_another_is_named(tmp_path: Path) -> None:
    async with endpoint(tmp_path) as (url, knowledge):
        old = await publish(knowledge, ONTOLOGY, "t")
        new = await publish(knowledge, ONTOLOGY.replace(b'"size"@en', b'"largeness"@en'), "t")

        async def label(where: str, query: str = ROWS, **more: str) -> bool:
            return b"largeness" in (await ask(get(where, query, **more), Accept="text/csv, */*;q=0.1")).body

        assert await label(url)
        assert await label(f"{url}/t")
        assert not await label(f"{url}/{old}")
        assert not await label(url, ROWS.replace("{", f"FROM <{graph_iri(old)}> {{", 1))
        assert not await label(url, **{"default-graph-uri": graph_iri(old)})
        await knowledge.deprecate(pb.DeprecateOntologyRequest(digest=new, reason="wrong", actor="ada"))
        assert not await label(url)
        assert await label(f"{url}/{new}")
        knowledge.index.remove(new)  # type: ignore[arg-type] - a digest
        assert await label(f"{url}/{new}")  # built anew from the stored bytes
        newest = await publish(knowledge, ONTOLOGY.replace(b'"size"@en', b'"largeness"@de'), "t")
        (knowledge.index.path(newest) / "CURRENT").write_bytes(b"damaged")  # type: ignore[arg-type] - a digest
        assert await label(url)


async def test_a_query_without_end_is_killed_and_the_next_one_is_answered(tmp_path: Path) -> None:
    limits = QueryLimits(seconds=1.5, rows=3, workers=1)
    async with endpoint(tmp_path, limits=limits) as (url, knowledge):
        await publish(knowledge, ONTOLOGY, "t")
        answers = await asyncio.gather(ask(get(url, ENDLESS)), ask(get(url, ENDLESS)))
        assert sorted((answer.status, answer.error["reason"]) for answer in answers) in (
            [(503, "BUSY"), (503, "TIME_LIMIT")],
            [(503, "TIME_LIMIT"), (503, "TIME_LIMIT")],
        )
        for _ in range(10):  # a busy machine takes its time to start a process
            answer = await ask(get(url, "ASK { ?s ?p ?o }"))
            if answer.status == 200:
                break
        assert answer.status == 200
        answer = await ask(get(url, ROWS))
        assert (answer.status, answer.error["reason"]) == (403, "RESULT_TOO_LARGE")


async def test_a_flood_is_refused_by_rate_and_by_number_at_once(tmp_path: Path) -> None:
    async with endpoint(tmp_path, caller_limits=CallerLimits(requests_per_s=0.01, burst=3, at_once=2)) as (url, _):
        answers = await asyncio.gather(*(ask(get(url, ROWS)) for _ in range(8)))
        assert {answer.status for answer in answers} == {404, 429}
        told = [answer.error["reason"] for answer in answers if answer.status == 429]
        assert len(told) >= 5
        assert set(told) <= {"RATE", "CONCURRENCY"}


def context_of(party: Party, folder: Path) -> ssl.SSLContext:
    """TLS with the party's certificate."""
    for name, content in (("c.pem", party.endpoint.certificate), ("k.pem", party.endpoint.key)):
        (folder / name).write_bytes(content)
    context = ssl.create_default_context(cadata=party.endpoint.ca_certificate.decode())
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return context


async def test_the_coordinator_answers_whoever_is_enrolled_over_mutual_tls(tmp_path: Path) -> None:
    from lepton_admin.demo.processes import free_port

    port = free_port()
    async with running(tmp_path / "home", sparql=f"127.0.0.1:{port}"):
        url = f"https://127.0.0.1:{port}/sparql"
        ada = await enrol(tmp_path / "home", "ada", "researcher")
        await publish_ontology(ada)
        context = context_of(ada, tmp_path)
        answer = await ask(get(url, ROWS), context=context, Accept="text/csv")
        assert (answer.status, SIZE in answer.body.decode()) == (200, True)
        without = ssl.create_default_context(cadata=ada.endpoint.ca_certificate.decode())
        with pytest.raises(OSError, match=r"(?i)certificate|reset|aborted|EOF|closed"):
            await ask(get(url, ROWS), context=without)
        from lepton_admin.link import CoordinatorLink

        with CoordinatorLink(operator(tmp_path / "home").endpoint) as link:
            await asyncio.to_thread(link.revoke, "ada")
        answer = await ask(get(url, ROWS), context=context)
        assert (answer.status, answer.error["reason"]) == (403, "REVOKED")


async def test_a_service_of_its_own_speaks_tls_unless_clear_is_spelled_out_and_then_on_loopback(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "knowledge"
    init_home(home, listen="127.0.0.1:0", hosts=["localhost", "127.0.0.1"])
    issue_service(home, "knowledge", ["localhost", "127.0.0.1"], folder)
    with pytest.raises(SettingsError, match="loopback"):
        await serve_knowledge(
            folder,
            listen="127.0.0.1:0",
            sparql=SparqlListening("0.0.0.0:0", Clear.LOOPBACK),
        )
    assert not (folder / "knowledge.db").exists()
    for clear, scheme in ((Clear.NOWHERE, "https"), (Clear.LOOPBACK, "http")):
        served: asyncio.Future[KnowledgeAddresses] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        sparql = SparqlListening("127.0.0.1:0", clear)
        service = asyncio.create_task(
            serve_knowledge(folder, listen="127.0.0.1:0", sparql=sparql, ready=served.set_result, stop=stop)
        )
        url = (await served).sparql_url
        assert url.startswith(f"{scheme}://127.0.0.1:")
        if clear is Clear.LOOPBACK:
            assert (await ask(get(url, ROWS))).status == 404
        else:
            context = ssl.create_default_context(cafile=folder / "ca.pem")
            with pytest.raises(OSError, match=r"(?i)certificate|reset|aborted|EOF|closed"):
                await ask(get(url, ROWS), context=context)
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            assert (await ask(get(url, ROWS), context=context)).status == 404
        stop.set()
        await service
