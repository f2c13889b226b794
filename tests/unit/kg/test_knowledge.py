import pytest

from lepton_core.errors import FaultError, NotFoundError, OntologyError
from lepton_kg.service import Knowledge
from lepton_kg.store import FolderOntologyStore

TURTLE = """
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
<https://example.org/a> a skos:Concept ; skos:prefLabel "Blood Sugar"@en, "血糖"@zh ; skos:altLabel "glucose"@en .
<https://example.org/b> a skos:Concept ; skos:prefLabel "b"@en .
""".encode()


class Ticking:
    def __init__(self):
        self.time = 0.0

    def now(self):
        self.time += 1.0
        return self.time


@pytest.fixture
def knowledge(tmp_path):
    return Knowledge(FolderOntologyStore(tmp_path / "kg"), Ticking())


def test_what_is_published_is_there_for_a_service_started_later(knowledge, tmp_path):
    digest = knowledge.publish(TURTLE, format="turtle", label="2025-01")
    later = Knowledge(FolderOntologyStore(tmp_path / "kg"), Ticking())
    assert later.get(digest) == knowledge.get(digest)
    assert later.ontology(digest) == knowledge.ontology(digest)
    (record,) = later.list()
    assert (record.digest, record.label, record.published, record.concepts) == (digest, "2025-01", 1.0, 2)
    assert record.canonical_bytes == len(later.get(digest))


def test_publishing_the_same_statements_again_changes_nothing(knowledge):
    digest = knowledge.publish(TURTLE, format="turtle", label="first")
    assert knowledge.publish(knowledge.get(digest), format="nquads", label="second") == digest
    assert [record.label for record in knowledge.list()] == ["first"]


def test_versions_are_listed_oldest_first(knowledge):
    digests = [knowledge.publish(TURTLE + f"<http://x> <http://y> {n} .".encode(), format="ttl") for n in range(12)]
    assert [record.digest for record in knowledge.list()] == digests
    assert [knowledge.ontology(digest).digest for digest in digests] == digests


@pytest.mark.parametrize("label", ["blood  sugar", "血糖", "GLUCOSE", "https://example.org/a"])
def test_labels_resolve_in_any_language_and_case(knowledge, label):
    digest = knowledge.publish(TURTLE, format="turtle")
    assert [concept.iri for concept in knowledge.resolve(digest, label)] == ["https://example.org/a"]


def test_a_label_nobody_gave_resolves_to_nothing(knowledge):
    assert knowledge.resolve(knowledge.publish(TURTLE, format="turtle"), "insulin") == ()


def test_an_unknown_version_is_not_found(knowledge):
    with pytest.raises(NotFoundError):
        knowledge.get("0" * 64)
    with pytest.raises(NotFoundError):
        knowledge.resolve("0" * 64, "x")


def test_a_refused_document_leaves_nothing_behind(knowledge, tmp_path):
    with pytest.raises(OntologyError):
        knowledge.publish(b"@prefix", format="turtle")
    assert knowledge.list() == ()
    assert list((tmp_path / "kg").iterdir()) == []


def test_damaged_bytes_are_a_fault_and_never_an_ontology(knowledge, tmp_path):
    digest = knowledge.publish(TURTLE, format="turtle")
    (tmp_path / "kg" / f"{digest}.nq").write_bytes(b"")
    with pytest.raises(FaultError, match="damaged"):
        knowledge.get(digest)


def test_bytes_without_their_record_are_published_again(knowledge, tmp_path):
    digest = knowledge.publish(TURTLE, format="turtle", label="lost")
    (tmp_path / "kg" / f"{digest}.json").unlink()
    assert knowledge.list() == ()
    assert knowledge.publish(TURTLE, format="turtle", label="again") == digest
    assert [record.label for record in knowledge.list()] == ["again"]


def test_a_name_that_is_no_digest_never_becomes_a_path(knowledge):
    with pytest.raises(Exception, match="not a valid ontology hash"):
        knowledge.get("../secret")
