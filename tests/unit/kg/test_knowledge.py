import json
import os

import pytest

from lepton_core.errors import FaultError, NotFoundError, OntologyError
from lepton_core.ids import Digest, digest_of
from lepton_kg.catalogue import MemoryCatalogue
from lepton_kg.index import _HALVED_BYTES, OntologyIndex
from lepton_kg.service import Knowledge
from lepton_kg.store import FolderOntologyStore

TURTLE = """
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
<https://example.org/a> a skos:Concept ; skos:prefLabel "Blood Sugar"@en, "血糖"@zh ; skos:altLabel "glucose"@en ;
    skos:notation "15074-8" ; lepton:datatype xsd:decimal ; lepton:unit "mmol/L" .
<https://example.org/b> a skos:Concept ; skos:prefLabel "b"@en ; lepton:valueSet <https://example.org/set> .
<https://example.org/set> skos:member <https://example.org/yes>, <https://example.org/no> .
<https://example.org/yes> skos:prefLabel "yes" . <https://example.org/no> skos:prefLabel "no" ; skos:notation "N" .
<https://example.org/c> a skos:Concept ; skos:prefLabel "c" ; skos:broader <https://example.org/b> .
""".encode()
MAPPING = """
ontology: {digest}
vocabulary: https://example.org/
source: {{kind: csv, path: x.csv}}
columns:
  - {{column: sugar, concept: a, unit: mmol/L}}
  - {{column: flag, concept: b, codes: {{'1': 'yes'}}}}
"""
A, B, C = (f"https://example.org/{name}" for name in "abc")


class Ticking:
    def __init__(self):
        self.time = 0.0

    def now(self):
        self.time += 1.0
        return self.time


class Full:
    """A disk or a database that is full."""

    def __init__(self, inner, method):
        self._inner, self._method = inner, method

    def __getattr__(self, name):
        if name != self._method:
            return getattr(self._inner, name)

        def fail(*_arguments, **_more):
            raise FaultError("full")

        return fail


def open_knowledge(folder, catalogue=None):
    index = OntologyIndex(folder / "index")
    return Knowledge(FolderOntologyStore(folder), catalogue or MemoryCatalogue(), Ticking(), index=index)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def knowledge(tmp_path):
    return open_knowledge(tmp_path / "kg")


def publish(knowledge, data=TURTLE, format="turtle", **more):
    return knowledge.publish(data, format=format, **more).digest


def test_what_is_published_is_there_for_a_service_started_later(tmp_path):
    catalogue = MemoryCatalogue()
    first = open_knowledge(tmp_path / "kg", catalogue)
    digest = publish(first, label="2025-01", publisher="ada")
    later = open_knowledge(tmp_path / "kg", catalogue)
    assert later.get(digest) == first.get(digest)
    assert later.ontology(digest) == first.ontology(digest)
    (record,) = later.list()
    assert (record.digest, record.label, record.published, record.concepts) == (digest, "2025-01", 1.0, 3)
    assert record.canonical_bytes == len(later.get(digest))
    assert (record.publisher, record.format, record.document) == ("ada", "turtle", digest_of(TURTLE))
    assert record.importer.startswith("pyoxigraph/")


def test_publishing_the_same_statements_again_changes_nothing(knowledge):
    digest = publish(knowledge, label="first")
    assert publish(knowledge, knowledge.get(digest), format="nquads", label="second") == digest
    assert [record.label for record in knowledge.list()] == ["first"]


def test_versions_are_listed_oldest_first(knowledge):
    digests = [publish(knowledge, TURTLE + f"<http://x> <http://y> {n} .".encode(), format="ttl") for n in range(10)]
    assert [record.digest for record in knowledge.list()] == digests
    assert [knowledge.ontology(digest).digest for digest in digests] == digests


@pytest.mark.parametrize("text", ["blood  sugar", "血糖", "GLUCOSE", A, "15074-8"])
def test_labels_codes_and_iris_resolve_in_any_language_and_case(knowledge, text):
    digest = publish(knowledge)
    assert [concept.iri for concept in knowledge.resolve(digest, text)] == [A]


def test_what_nobody_named_so_resolves_to_nothing(knowledge):
    assert knowledge.resolve(publish(knowledge), "insulin") == ()


def test_closure_and_value_set_are_looked_up_by_concept(knowledge):
    digest = publish(knowledge)
    assert knowledge.closure(digest, B, upward=False) == {C: 1}
    assert knowledge.closure(digest, C, upward=True) == {B: 1}
    assert [value.notation for value in knowledge.value_set(digest, B)] == [None, "N"]
    assert knowledge.value_set(digest, A) == ()
    with pytest.raises(OntologyError, match="no such concept"):
        knowledge.closure(digest, "https://example.org/z", upward=True)


def test_a_mapping_is_checked_word_by_word(knowledge):
    digest = publish(knowledge)
    assert knowledge.check_mapping(digest, MAPPING.format(digest=digest)) == ()
    bad = MAPPING.replace("mmol/L", "mg/dL").replace("'yes'", "'maybe'") + "  - {{column: z, concept: zz}}\n"
    found = knowledge.check_mapping(digest, bad.format(digest="0" * 64))
    assert [(problem.column, problem.reason) for problem in found] == [
        ("", "ONTOLOGY_MISMATCH"),
        ("sugar", "UNIT_MISMATCH"),
        ("flag", "UNKNOWN_VALUE"),
        ("z", "UNKNOWN_CONCEPT"),
    ]
    assert "molar mass" in found[1].hint
    assert found[2].hint == "did you mean https://example.org/yes?"


def test_a_diff_tells_concepts_fields_and_statements(knowledge):
    old = publish(knowledge)
    changed = TURTLE.replace(b'"mmol/L"', b'"mg/dL"').replace(b'skos:prefLabel "c"', b'skos:prefLabel "see"@en')
    changed += b"<https://example.org/d> a skos:Concept ; skos:prefLabel 'd' ."
    found = knowledge.diff(old, publish(knowledge, changed))
    assert (found.added, found.removed) == (("https://example.org/d",), ())
    assert {change.iri: [(one.field, one.old, one.new) for one in change.fields] for change in found.changed} == {
        A: [
            ("unit", "mmol/L", "mg/dL"),
            ("quantity_kind", "amount concentration", "mass concentration"),
        ],
        C: [("labels", "c", "see@en")],
    }
    assert (found.statements_added, found.statements_removed) == (4, 2)
    back = knowledge.diff(found.new, found.old)
    assert (back.removed, back.statements_added) == (found.added, found.statements_removed)
    assert knowledge.diff(old, old).changed == ()


def test_an_unknown_version_is_not_found(knowledge):
    for ask in (
        lambda: knowledge.get("0" * 64),
        lambda: knowledge.resolve("0" * 64, "x"),
        lambda: knowledge.approve("0" * 64, actor="ada"),
        lambda: knowledge.deprecate("0" * 64, actor="ada", reason="old"),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_a_refused_document_leaves_nothing_behind(knowledge, tmp_path):
    with pytest.raises(OntologyError):
        publish(knowledge, b"@prefix")
    assert knowledge.list() == ()
    assert files_in(tmp_path / "kg") == []


@pytest.mark.parametrize("method", ["put", "build", "add"])
def test_a_publication_that_fails_halfway_leaves_nothing_in_files_index_or_catalogue(tmp_path, method):
    folder = tmp_path / "kg"
    catalogue, store, index = MemoryCatalogue(), FolderOntologyStore(folder), OntologyIndex(folder / "index")
    parts = [Full(part, method) if hasattr(part, method) else part for part in (store, catalogue, index)]
    broken = Knowledge(parts[0], parts[1], Ticking(), index=parts[2])
    with pytest.raises(FaultError, match="full"):
        publish(broken)
    assert catalogue.records() == []
    assert files_in(folder) == []
    whole = Knowledge(store, catalogue, Ticking(), index=index)
    digest = publish(whole, label="kept")
    with pytest.raises(FaultError, match="full"):
        publish(broken)  # a second time, and of what is published already: that stays
    assert whole.get(digest)
    assert index.has(digest)
    assert [record.label for record in whole.list()] == ["kept"]


def test_a_sweep_takes_only_what_a_dead_publication_put_there_itself(tmp_path):
    folder = tmp_path / "kg"
    ours, other = MemoryCatalogue(), MemoryCatalogue()
    index = OntologyIndex(folder / "index")
    on_record = publish(open_knowledge(folder, other), label="the other service's")
    without_mark = "0" * 64
    (folder / f"{without_mark}.nq").write_bytes(b"")  # who knows whose
    running, store = FolderOntologyStore(folder), FolderOntologyStore(folder)
    canonical = b"<urn:a> <urn:b> <urn:c> .\n"
    digest = digest_of(canonical)
    assert running.begin(digest)
    running.put(digest, canonical)
    index.build(digest, canonical)
    passing = folder / f".{digest}.nq.0011"
    passing.write_bytes(b"")
    knowledge = Knowledge(store, ours, Ticking(), index=index)
    # We know nothing of the other's versions: neither of one on its record, nor of one being published.
    assert (knowledge.sweep(), store.begin(Digest(on_record))) == ((), False)
    FolderOntologyStore(folder)
    assert passing.exists()
    with pytest.raises(FaultError) as refused:
        store.begin(digest)
    assert refused.value.reason == "BUSY"
    died(running)
    assert knowledge.sweep() == (digest,)
    FolderOntologyStore(folder)
    assert sorted(path.name for path in folder.glob("*.nq")) == [f"{without_mark}.nq", f"{on_record}.nq"]
    assert [*folder.glob(".*")] == []
    assert not index.has(digest)
    assert open_knowledge(folder, other).get(on_record)


def test_a_sweep_keeps_a_version_whose_publication_died_after_its_record(tmp_path):
    folder, catalogue = tmp_path / "kg", MemoryCatalogue()
    store = FolderOntologyStore(folder)
    digest = publish(Knowledge(store, catalogue, Ticking()))
    assert not store.begin(Digest(digest))
    (folder / f".{digest}.unfinished").touch()
    later = open_knowledge(folder, catalogue)
    assert later.sweep() == ()
    assert later.get(digest)
    assert [*folder.glob(".*")] == []


def died(store):
    """What the system does at a process's end: its locks are free."""
    for descriptor in store._unfinished._held.values():
        os.close(descriptor)
    store._unfinished._held.clear()


def test_damaged_bytes_are_a_fault_and_never_an_ontology(knowledge, tmp_path):
    digest = publish(knowledge)
    (tmp_path / "kg" / f"{digest}.nq").write_bytes(b"")
    with pytest.raises(FaultError, match="damaged"):
        knowledge.get(digest)
    publish(knowledge)
    assert digest_of(knowledge.get(digest)) == digest


def test_versions_of_an_earlier_release_are_taken_in_from_the_notes_beside_them(tmp_path):
    digest = publish(open_knowledge(tmp_path / "kg"))
    canonical = (tmp_path / "kg" / f"{digest}.nq").read_bytes()
    note = {"digest": digest, "label": "old", "published": 7.0, "concepts": 3, "canonical_bytes": len(canonical)}
    (tmp_path / "kg" / f"{digest}.json").write_text(json.dumps(note), "utf-8")
    (tmp_path / "kg" / "broken.json").write_text("{", "utf-8")
    catalogue = MemoryCatalogue()
    later = open_knowledge(tmp_path / "kg", catalogue)
    for _ in range(2):
        later.adopt_earlier()
        assert [(record.label, record.published) for record in later.list()] == [("old", 7.0)]


def test_a_name_that_is_no_digest_never_becomes_a_path(knowledge, tmp_path):
    with pytest.raises(Exception, match="not a valid ontology hash"):
        knowledge.get("../secret")
    with pytest.raises(Exception, match="not a valid ontology hash"):
        OntologyIndex(tmp_path / "index").path("../secret")


def test_the_index_is_built_anew_from_the_stored_bytes(knowledge, tmp_path):
    digest = publish(knowledge)
    index = OntologyIndex(tmp_path / "kg" / "index")
    ask = "SELECT (COUNT(*) AS ?n) { ?s ?p ?o }"
    (before,) = (int(row["n"].value) for row in index.open(digest).query(ask))
    index.remove(digest)
    assert not index.has(digest)
    with pytest.raises(FaultError, match="without its index"):
        index.open(digest)
    index.build(digest, tmp_path / "kg" / f"{digest}.nq")
    index.build(digest, tmp_path / "kg" / f"{digest}.nq")  # it is there
    (after,) = (int(row["n"].value) for row in index.open(digest).query(ask))
    assert after == before == len(knowledge.get(digest).splitlines())
    (index.path(digest) / "CURRENT").write_bytes(b"damaged")
    with pytest.raises(FaultError, match="damaged"):
        index.open(digest)


def test_a_large_index_loaded_in_halves_holds_every_statement_of_both(tmp_path):
    lines = [f'<urn:{n:02}> <urn:p> "{chr(0x5E00 + n) * 250_000}" .\n' for n in range(23)]
    canonical = "".join(lines).encode()
    assert len(canonical) > _HALVED_BYTES
    index, digest = OntologyIndex(tmp_path), digest_of(canonical)
    index.build(digest, canonical)
    assert sorted(f"{quad.triple} .\n" for quad in index.open(digest)) == lines


def test_what_a_killed_process_has_left_is_swept_away(tmp_path):
    folder = tmp_path / "kg"
    open_knowledge(folder)
    (folder / "index" / ".building-1").mkdir()
    (folder / f".{'0' * 64}.nq.abc").write_bytes(b"half")
    open_knowledge(folder)
    assert list((folder / "index").iterdir()) == []
    assert files_in(folder) == []
