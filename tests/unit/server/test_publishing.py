"""Documents that must not be published: refused with place, expected and got, and nothing left of them anywhere."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lepton_core.errors import InputError, OntologyError
from lepton_core.ports import SystemClock
from lepton_kg.rdf import MAX_BYTES, MAX_TERM
from lepton_protos.v1 import kg_pb2 as pb
from lepton_server.api.knowledge_embedded_link import EmbeddedKnowledge
from lepton_server.store.memory import MemoryStore

SKOS = "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n"
XML = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:e="http://e/">\n'
LAUGHS = (
    '<?xml version="1.0"?>\n<!DOCTYPE lolz [\n<!ENTITY lol "lol">\n'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1 or str()};" * 10}">\n' for n in range(1, 10))
    + "]>\n"
    + XML
    + "<rdf:Description><e:p>&lol9;</e:p></rdf:Description></rdf:RDF>"
)
CYCLE = SKOS + "".join(
    f"<urn:{n}> a skos:Concept ; skos:prefLabel '{n}' ; skos:broader <urn:{(n + 1) % 3}> .\n" for n in range(3)
)


class Knowledge:
    """Knowledge in a folder, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, MemoryStore()
        self.embedded = EmbeddedKnowledge(folder, self.store, SystemClock())

    async def publish(self, format: str, *pieces: bytes) -> pb.OntologyVersion:
        """Publish what comes in pieces."""

        async def requests() -> AsyncIterator[pb.PublishOntologyRequest]:
            for piece in pieces:
                yield pb.PublishOntologyRequest(document=piece, format=format, actor="ada")

        return await self.embedded.publish(requests())

    def is_empty(self) -> bool:
        """True if there is no file, no index, no record and no row of the audit trail."""
        with self.store.transaction() as transaction:
            rows = [*transaction.ontologies(), *transaction.audit()]
        return not rows and [path for path in self.folder.rglob("*") if path.name != "index"] == []


@pytest.fixture
def knowledge(tmp_path: Path) -> Knowledge:
    return Knowledge(tmp_path / "ontologies")


@pytest.mark.parametrize(
    ("format", "document", "where"),
    [
        ("turtle", SKOS + "<urn:a> a skos:Concept ; skos:prefLabel 'a .\n", "line 2, column 41"),
        ("turtle", SKOS + "\n<urn:a> a nowhere:Concept .\n", "line 3, column 11"),
        ("ntriples", "<urn:a> <urn:b> <urn:c> .\n<urn:a> <urn:b> .\n", "line 2, column 17"),
        ("nquads", "<urn:a> <urn:b> 'x' .\n", "line 1, column 17"),
        ("nquads", "<urn:a> <urn:b> <urn:c> <urn:g> .\n", ""),
        ("rdfxml", XML + "<rdf:Description>\n</rdf:RDF>", "line 3, column 3"),
        ("rdfxml", XML + "<x:Description/></rdf:RDF>", "line 2, column 1"),
        pytest.param("rdfxml", LAUGHS, "line 3, column", id="laughs"),
        ("jsonld", '{"@id": "urn:a",\n "urn:b": }', "line 2, column 11"),
        ("jsonld", '{"@context": "http://127.0.0.1:1/c", "@id": "urn:a", "urn:b": "c"}', ""),
        ("obo", "format-version: 1.4\n\n[Term]\nid: A:1\nname: a\nis_a B:1\n", "line 6, column 1"),
        ("turtle", CYCLE, ""),
        ("turtle", "\udcff", "line 1"),
    ],
)
async def test_a_broken_document_is_refused_with_its_place_and_leaves_nothing(
    knowledge: Knowledge, format: str, document: str, where: str
) -> None:
    with pytest.raises(OntologyError) as refused:
        await knowledge.publish(format, document.encode("utf-8", "surrogateescape"))
    error = refused.value
    assert error.where.startswith("upload")
    assert where in error.where
    assert error.expected
    assert error.got
    assert knowledge.is_empty()


async def test_a_cycle_names_every_concept_of_it(knowledge: Knowledge) -> None:
    with pytest.raises(OntologyError) as refused:
        await knowledge.publish("turtle", CYCLE.encode())
    assert all(f"urn:{n}" in refused.value.got for n in range(3))
    assert "broader than itself" in refused.value.got


async def test_a_literal_of_a_gigabyte_is_refused_while_it_comes(knowledge: Knowledge) -> None:
    piece, sent = b"a" * 2**20, 0

    async def requests() -> AsyncIterator[pb.PublishOntologyRequest]:
        nonlocal sent
        yield pb.PublishOntologyRequest(document=SKOS.encode() + b"<urn:a> skos:note '''", format="turtle")
        for _ in range(1_024):
            sent += len(piece)
            yield pb.PublishOntologyRequest(document=piece)

    tracemalloc.start()
    try:
        with pytest.raises(OntologyError) as refused:
            await knowledge.embedded.publish(requests())
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_BYTES
    finally:
        tracemalloc.stop()
    assert sent <= MAX_BYTES + 2**20
    assert refused.value.reason == "TOO_LARGE"
    assert knowledge.is_empty()


async def test_a_literal_longer_than_any_label_is_refused_in_a_document_that_is_not(knowledge: Knowledge) -> None:
    with pytest.raises(OntologyError, match="term this long") as refused:
        await knowledge.publish("turtle", SKOS.encode(), b"<urn:a> skos:note '" + b"a" * (MAX_TERM + 1) + b"' .")
    assert "urn:a" in refused.value.where
    assert knowledge.is_empty()


async def test_a_publication_without_a_message_is_refused(knowledge: Knowledge) -> None:
    with pytest.raises(InputError, match="without a message"):
        await knowledge.publish("turtle")
    assert knowledge.is_empty()


@pytest.mark.parametrize("pieces", [lambda data: [data], lambda data: [data[:7], b"", data[7:]]])
async def test_a_document_may_come_in_any_pieces(knowledge: Knowledge, pieces: Callable[[bytes], list[bytes]]) -> None:
    document = (SKOS + "<urn:a> a skos:Concept ; skos:prefLabel 'Größe 大小' .").encode()
    version = await knowledge.publish("turtle", *pieces(document))
    assert (version.concepts, version.publisher, version.format) == (1, "ada", "turtle")
    assert not knowledge.is_empty()
