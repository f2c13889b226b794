"""Whatever is wrong with a document that an owner or a researcher wrote is told with place, need, find and remedy."""

from __future__ import annotations

import pytest

from lepton_core.errors import LeptonError, MappingError, OntologyError, SettingsError
from lepton_kg.mapping import parse_mapping
from lepton_kg.ontology import parse_ontology

PREFIX = "@prefix : <urn:> . @prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n"
RDF = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
HEAD = f"ontology: {'a' * 64}\nsource: {{kind: csv, path: d.csv}}\ncolumns:\n"


@pytest.mark.parametrize(
    ("format", "document", "place", "remedy"),
    [
        ("turtle", PREFIX + ":a a skos:Concept ; foaf:x :b .", "line 2, column 21", "declare the prefix"),
        ("turtle", PREFIX + ":a a", "line 2", "correct the document"),
        ("turtle", PREFIX + "<not an iri> a skos:Concept .", "line 2", "escape"),
        ("turtle", PREFIX + "<< :a :b :c >> :d :e .", "line 2, column 1", "a node of its own"),
        ("turtle", (PREFIX + ':a skos:prefLabel "größe" .').encode("latin-1"), "line 2", "UTF-8"),
        ("turtle", PREFIX.encode("utf-16"), "line 1", "it looks like UTF-16"),
        pytest.param(
            "turtle", PREFIX + f':a skos:prefLabel "{"x" * (2**20 + 1)}" .', "<urn:a>", "leave the text out", id="long"
        ),
        ("ntriples", '<urn:a> <urn:b> <urn:c> .\n<urn:a> <urn:b> "x .\n', "line 2", "correct the document"),
        ("nquads", "<urn:a> <urn:b> <urn:c> <urn:g> .", "o.x", "the graph's name"),
        ("rdfxml", RDF + "\n<a></rdf:RDF>", "line 2", "correct the document"),
        ("rdfxml", RDF + "\n<rdf:Description>&uuml;</rdf:Description></rdf:RDF>", "line 2", "write the sign itself"),
        ("rdfxml", RDF + "\n<x:a/></rdf:RDF>", "line 2", "xmlns"),
        ("rdfxml", f'<!DOCTYPE r [<!ENTITY a "b">]>{RDF}&a;</rdf:RDF>', "line 1, column 25", "Turtle"),
        ("jsonld", '{"@id": "urn:a", ', "line 1", "correct the document"),
        ("jsonld", '{"@context": "https://schema.org/", "@id": "urn:x"}', "o.x", "nothing is fetched"),
        pytest.param(
            "jsonld", '{"a":' * 200 + "1" + "}" * 200, "line 1, column 501", "one beside the other", id="deep"
        ),
        ("obo", "format-version: 1.2\n\n[Term]\nid: X:1\nis_a X:2\n", "line 5", "OBO"),
    ],
)
def test_a_document_that_is_no_ontology_is_told_with_place_and_remedy(format, document, place, remedy):
    with pytest.raises(OntologyError) as refused:
        parse_ontology(document if isinstance(document, bytes) else document.encode(), format=format, source="o.x")
    told = refused.value
    assert place in told.where
    assert remedy in told.hint
    assert told.expected
    assert told.got


@pytest.mark.parametrize("sign", ["\\u001b[2J", "\\u0000", "\\u202e", "\\n", "\\u009b"])
def test_a_label_that_would_be_shown_as_something_else_is_refused(sign):
    document = PREFIX + f':a a skos:Concept ; skos:prefLabel "gl{sign}ucose" .'
    with pytest.raises(OntologyError) as refused:
        parse_ontology(document.encode(), format="turtle", source="o.ttl")
    assert "urn:a: a skos:prefLabel with control characters" in refused.value.got


@pytest.mark.parametrize(
    ("lines", "place", "remedy"),
    [
        ("- &a {column: g, concept: h}\n- *a\n", "line 5", "write out"),
        ("- {column: !!python/name:os.system g, concept: h}\n", "line 4", "leave the tag out"),
        ("- {column: g, column: h, concept: h}\n", "line 4", "keep one"),
        ("- {column: g, concept: h\n", "line 5", "quotes"),
        ("- " + "[" * 40 + "]" * 40, "line 4", "four levels"),
    ],
)
def test_a_mapping_that_is_not_strict_yaml_is_told_with_line_and_remedy(lines, place, remedy):
    with pytest.raises(MappingError) as refused:
        parse_mapping(HEAD + lines, source="m.yaml")
    assert place in refused.value.where
    assert remedy in refused.value.hint


def test_what_only_follows_from_a_fault_is_not_told_as_another():
    with pytest.raises(SettingsError) as refused:
        parse_mapping(HEAD + "- {colum: g, concept: h}\n", source="m.yaml")
    assert refused.value.problems == (
        "columns.0.column: required, but missing",
        "columns.0.colum: unknown key; did you mean 'column'?",
    )
    with pytest.raises(SettingsError) as refused:
        parse_mapping(HEAD.replace("columns:", "columns: []"), source="m.yaml")
    assert len(refused.value.problems) == 1


def test_two_lines_for_one_concept_are_told_by_their_columns():
    with pytest.raises(LeptonError, match="h by columns 'g' and 'i'; keep one line"):
        parse_mapping(HEAD + "- {column: g, concept: h}\n- {column: i, concept: h}\n", source="m.yaml")
