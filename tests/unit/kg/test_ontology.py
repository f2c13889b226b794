import pyoxigraph as ox
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_core.errors import OntologyError
from lepton_core.ids import digest_of
from lepton_kg import rdf
from lepton_kg.ontology import check_ontology, load_canonical, parse_ontology
from tests.property.budget import examples

PREFIXES = """
@prefix : <https://example.org/t/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
"""
BODY = """
:lab a skos:Concept ; skos:prefLabel "laboratory"@en .
:glucose a skos:Concept ; skos:prefLabel "glucose"@en, "Glukose"@de ; skos:altLabel "blood sugar"@en ;
    skos:broader :lab ; lepton:datatype xsd:decimal ; lepton:unit "mmol/L" ; lepton:molarMass 180.156 ;
    lepton:plausibleMinimum 1.0 ; lepton:plausibleMaximum 40 ; skos:notation "15074-8" ;
    lepton:missingMeaning "not-measured" ; lepton:missingCode "-9", "0" .
:fasting a skos:Concept ; skos:prefLabel "fasting glucose"@en ; skos:broader :glucose ;
    lepton:datatype xsd:decimal ; lepton:unit "mmol/L" .
:sex a skos:Concept ; skos:prefLabel "sex"@en ; lepton:datatype xsd:string ; lepton:valueSet :sexes .
:sexes a skos:Collection ; skos:member :male, :female .
:male a skos:Concept ; skos:prefLabel "male"@en ; skos:notation "M" .
:female a skos:Concept ; skos:prefLabel "female"@en ; skos:notation "F" .
"""
T = "https://example.org/t/"


def parse(body, **changes):
    return parse_ontology((PREFIXES + body).encode(), **{"format": "turtle", "source": "t.ttl", **changes})


def test_a_concept_carries_everything_the_document_says():
    ontology = parse(BODY)
    glucose = ontology.concept(T + "glucose")
    assert glucose.labels == {"en": "glucose", "de": "Glukose"}
    assert glucose.synonyms == ("blood sugar",)
    assert (glucose.unit, glucose.quantity_kind) == ("mmol/L", "amount concentration")
    assert (glucose.plausible_minimum, glucose.plausible_maximum) == (1.0, 40.0)
    assert glucose.molar_mass_g_per_mol == 180.156
    assert glucose.broader == (T + "lab",)
    assert (glucose.notations, glucose.missing_meaning) == (("15074-8",), "not-measured")
    assert glucose.missing_codes == ("-9", "0")
    assert glucose.is_numeric
    assert [(value.iri, value.notation) for value in ontology.concept(T + "sex").value_set] == [
        (T + "female", "F"),
        (T + "male", "M"),
    ]
    assert not ontology.concept(T + "lab").is_observable


def test_ancestors_are_the_closure_with_distances():
    ontology = parse(BODY)
    assert ontology.ancestors(T + "fasting") == {T + "glucose": 1, T + "lab": 2}
    assert ontology.ancestors(T + "unknown") == {}


def test_descendants_are_the_closure_the_other_way():
    ontology = parse(BODY + ":lab skos:narrower :other . :other a skos:Concept ; skos:prefLabel 'other' .")
    assert ontology.descendants(T + "lab") == {T + "glucose": 1, T + "fasting": 2, T + "other": 1}
    assert ontology.concept(T + "other").broader == (T + "lab",)


def test_a_cycle_is_refused_with_the_way_it_takes():
    with pytest.raises(OntologyError) as refused:
        parse(BODY.replace('"laboratory"@en .', '"laboratory"@en ; skos:broader :fasting .'))
    for name in ("lab", "glucose", "fasting"):
        assert T + name in refused.value.got
    assert " -> " in refused.value.got


def test_check_tells_every_problem_of_a_document_and_none_of_a_good_one():
    assert check_ontology((PREFIXES + BODY).encode(), format="turtle", source="x") == ()
    bad = BODY.replace('"F"', '"M"').replace("180.156", "-1")
    bad += "".join(f":c{n} a skos:Concept ." for n in range(20))
    told = check_ontology((PREFIXES + bad).encode(), format="turtle", source="x")
    assert sum("no skos:prefLabel" in line for line in told) == 20
    assert any("molarMass is not positive" in line and "got" in line for line in told)
    assert any("two values with one skos:notation" in line for line in told)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("sh:property [ sh:path skos:note ; sh:qualifiedMinCount 1 ]", "not in the subset"),
        ("sh:property [ sh:path ( skos:broader skos:note ) ; sh:minCount 1 ]", "other paths are not supported"),
        ("sh:property [ sh:path skos:note ; sh:minCount 'few' ]", "not a whole number"),
        ("sh:property [ sh:path skos:note ; sh:pattern '(a' ]", "not a regular expression"),
        ("sh:property [ sh:path skos:note ; sh:pattern '(?=a)' ]", "not supported"),
        ("sh:property [ sh:path skos:note ; sh:minInclusive 'a' ]", "not a number"),
        ("sh:or ( :a :b )", "not in the subset"),
        ("sh:property [ sh:path skos:note ; sh:minCount 1 ; sh:message 'write a note' ]", "write a note"),
    ],
)
def test_shapes_of_the_document_hold_for_it_and_what_they_cannot_say_is_refused(shape, said):
    sh = "@prefix sh: <http://www.w3.org/ns/shacl#> ."
    with pytest.raises(OntologyError) as refused:
        parse(sh + BODY + f":shape a sh:NodeShape ; sh:targetClass skos:Concept ; {shape} .")
    assert said in refused.value.got


def test_an_unknown_concept_is_refused_with_the_closest_one():
    with pytest.raises(OntologyError) as refused:
        parse(BODY).concept(T + "glucos")
    assert T + "glucose" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "syntax"),
    [("nt", ox.RdfFormat.N_TRIPLES), ("nq", ox.RdfFormat.N_QUADS), ("rdfxml", ox.RdfFormat.RDF_XML)],
)
def test_the_same_statements_have_one_digest_in_every_syntax(name, syntax):
    ontology = parse(BODY)
    triples = [quad.triple for quad in ox.parse(ontology.canonical, ox.RdfFormat.N_QUADS)]
    other = ox.serialize(reversed(triples), format=syntax)
    assert parse_ontology(other, format=name, source="other").digest == ontology.digest


def ring(names):
    labels = [f'{name} <http://p> "{index}" .' for index, name in enumerate(names)]
    return labels + [f"{name} <http://next> {names[(i + 1) % len(names)]} ." for i, name in enumerate(names)]


@settings(max_examples=examples(30, 1000))
@given(st.permutations(range(6)), st.permutations(range(12)), st.text("abcdef", min_size=1, max_size=4))
def test_blank_node_names_and_the_order_of_lines_do_not_change_the_digest(numbers, order, prefix):
    base = parse(BODY).canonical.decode()
    lines = ring([f"_:{prefix}{number}" for number in numbers])
    shuffled = base + "\n".join(lines[index] for index in order)
    plain = base + "\n".join(ring([f"_:n{number}" for number in range(6)]))
    found = parse_ontology(shuffled.encode(), format="nt", source="x")
    assert found.digest == parse_ontology(plain.encode(), format="nt", source="x").digest


def test_another_statement_is_another_digest():
    assert parse(BODY).digest != parse(BODY.replace("40 ;", "41 ;")).digest


def test_canonical_bytes_come_back_and_only_under_their_hash():
    ontology = parse(BODY)
    again = load_canonical(ontology.canonical, ontology.digest)
    assert again == ontology
    assert again.concepts == ontology.concepts
    with pytest.raises(OntologyError) as refused:
        load_canonical(ontology.canonical + b"\n", ontology.digest)
    assert refused.value.reason == "ONTOLOGY_MISMATCH"


def test_a_syntax_error_tells_its_line_and_column():
    with pytest.raises(OntologyError) as refused:
        parse_ontology(b"@prefix : <http://a/> .\n:a :b .\n", format="turtle", source="bad.ttl")
    assert refused.value.where == "bad.ttl, line 2, column 7"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("1.0 ;", "50.0 ;"), "plausibleMinimum is not below"),
        (("lepton:plausibleMinimum 1.0 ;", ""), "go together"),
        (('"mmol/L" ; lepton:molarMass', '"parsec" ; lepton:molarMass'), "a unit that is not known"),
        (("skos:broader :lab", "skos:broader :nowhere"), "is no concept here"),
        (('"laboratory"@en .', '"laboratory"@en ; skos:broader :fasting .'), "broader than itself"),
        (('"laboratory"@en .', '"laboratory"@en ; skos:broader :lab .'), "broader than itself"),
        (('"not-measured"', '"forgotten"'), "missingMeaning is none that is known"),
        (("180.156", "0.0"), "molarMass is not positive"),
        (("skos:broader :lab ;", 'skos:broader "lab" ;'), "must name an IRI"),
        (('"glucose"@en,', '"glucose"@en, "sugar"@en,'), "two skos:prefLabel"),
        (("lepton:plausibleMaximum 40", 'lepton:plausibleMaximum "many"'), "not a finite number"),
        (("lepton:plausibleMaximum 40", "lepton:plausibleMaximum 40, 50"), "more than once"),
        (("lepton:molarMass", "lepton:molarMas"), "did you mean molarMass"),
        ((":male, :female", ":male"), "fewer than two"),
        (('"F"', '"M"'), "two values with one skos:notation"),
        (('skos:prefLabel "sex"@en ;', ""), "no skos:prefLabel"),
        (("lepton:valueSet :sexes", "lepton:valueSet [ skos:member :male, :female ]"), "must name an IRI"),
        (('lepton:unit "mmol/L" ; lepton:molarMass 180.156 ;', ""), "numeric, but without unit"),
        (("lepton:valueSet :sexes", 'lepton:unit "1" ; lepton:valueSet :sexes'), "both coded"),
    ],
)
def test_a_concept_that_contradicts_itself_is_refused_with_its_reason(change, said):
    assert change[0] in BODY
    with pytest.raises(OntologyError) as refused:
        parse(BODY.replace(*change))
    assert said in refused.value.got


def test_all_problems_are_told_at_once():
    with pytest.raises(OntologyError) as refused:
        parse(BODY.replace('"F"', '"M"').replace("40 ;", "0 ;"))
    assert "notation" in refused.value.got
    assert "plausible" in refused.value.got


def test_an_ontology_without_concepts_is_refused():
    with pytest.raises(OntologyError, match="no skos:Concept"):
        parse(":a :b :c .")


@pytest.mark.parametrize(
    ("data", "syntax", "said"),
    [
        (b"<http://a> <http://b> <http://c> <http://g> .", "nq", "does not parse"),
        (b"<http://a> <http://b> <<( <http://a> <http://b> <http://c> )>> .", "turtle", "quoted triples"),
        (b"<a> <b> <c> .", "turtle", "does not parse"),
        (b"\xff\xfe", "turtle", "not UTF-8"),
        (b"", "docx", "not known"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><x/>', "rdfxml", "entity"),
        (b'{"@context": "http://127.0.0.1:1/context", "@id": "http://a", "http://b": "c"}', "jsonld", "does not parse"),
    ],
)
def test_documents_that_are_unsafe_or_broken_are_refused(data, syntax, said):
    with pytest.raises(OntologyError, match=said):
        parse_ontology(data, format=syntax, source="x")


def test_a_document_over_the_size_limit_is_refused(monkeypatch):
    monkeypatch.setattr(rdf, "MAX_BYTES", 100)
    with pytest.raises(OntologyError, match="this large"):
        parse(BODY)


def test_more_blank_nodes_than_allowed_are_refused():
    body = "".join(f'[] skos:note "{number}" . ' for number in range(rdf.MAX_BLANK_NODES + 1))
    with pytest.raises(OntologyError, match="blank nodes"):
        parse(BODY + body)
    allowed = "".join(f'[] skos:note "{number}" . ' for number in range(rdf.MAX_BLANK_NODES))
    assert parse(BODY + allowed).concepts


def test_blank_nodes_that_cannot_be_told_apart_are_refused_before_they_cost_time():
    clique = "".join(f"_:n{i} skos:related _:n{j} . " for i in range(12) for j in range(12) if i != j)
    with pytest.raises(OntologyError, match="too entangled"):
        parse(BODY + clique)
    ring = "".join(f"_:n{i} skos:related _:n{(i + 1) % 400} . " for i in range(400))
    with pytest.raises(OntologyError, match="too entangled"):
        parse(BODY + ring)


def test_lists_of_alike_elements_are_no_reason_to_refuse():
    assert parse(BODY + ":lab skos:note (1 2 3), (1 2 3), (1 2 4) .").digest == digest_of(
        parse(BODY + ":lab skos:note (1 2 4), (1 2 3), (1 2 3) .").canonical
    )
