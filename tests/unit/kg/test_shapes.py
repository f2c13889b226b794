"""Shapes against graphs and tables: the same violations as pyshacl's, which reads the same shapes on its own."""

import random

import polars as pl
import pyoxigraph as ox
import pyshacl
import pytest
import rdflib
from rdflib.namespace import RDF, SH

from lepton_core.errors import InputError
from lepton_kg.concept_reader import _own_shapes
from lepton_kg.ontology import parse_ontology
from lepton_kg.shacl.graph import check_graph
from lepton_kg.shacl.shapes import read_shapes
from lepton_kg.shacl.table import cell_term, compile_shape, implied_shape
from lepton_kg.statements import Statements

PREFIXES = """
@prefix : <https://example.org/t/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix sh: <http://www.w3.org/ns/shacl#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
"""
T = "https://example.org/t/"
ROWS = """
:Row a sh:NodeShape ; sh:targetClass :Patient ; sh:property
  [ sh:path :age ; sh:datatype xsd:integer ; sh:minInclusive 0 ; sh:maxExclusive 120 ; sh:minCount 1 ; sh:maxCount 1 ] ,
  [ sh:path :systolic ; sh:datatype xsd:decimal ; sh:minExclusive 40 ; sh:maxInclusive 300.5 ] ,
  [ sh:path :diastolic ; sh:datatype xsd:decimal ; sh:lessThan :systolic ] ,
  [ sh:path :sex ; sh:in ( :male :female ) ; sh:nodeKind sh:IRI ; sh:minCount 1 ] ,
  [ sh:path :code ; sh:pattern "^[A-Z][0-9]+$" ; sh:minLength 3 ; sh:maxLength 5 ; sh:datatype xsd:string ] ,
  [ sh:path :weight ; sh:datatype xsd:double ; sh:minInclusive 0.5e0 ] ,
  [ sh:path :least ; sh:datatype xsd:double ; sh:lessThanOrEquals :most ] ,
  [ sh:path :written ; sh:datatype xsd:decimal ; sh:minInclusive 1 ] ,
  [ sh:path :visits ; sh:in ( 0 1 2 ) ; sh:datatype xsd:integer ] ,
  [ sh:path :nowhere ; sh:minCount 1 ; sh:datatype xsd:string ] .
"""


def shapes_of(text):
    problems = []
    shapes = read_shapes(Statements(ox.parse(PREFIXES + text, ox.RdfFormat.TURTLE)), problems)
    assert problems == []
    return shapes


def rows(count, seed=3):
    """Rows of which some break each rule."""
    chosen = random.Random(seed)
    pick = lambda *values: [chosen.choice(values) for _ in range(count)]  # noqa: E731 - one line a column reads best
    return pl.DataFrame(
        {
            T + "age": pl.Series(pick(0, 40, 119, 120, -1, None), dtype=pl.Int64),
            T + "systolic": pl.Series(pick(40.0, 40.5, 120.0, 300.5, 301.0, None), dtype=pl.Float64),
            T + "diastolic": pl.Series(pick(40.0, 80.0, 120.0, 310.0, None), dtype=pl.Float64),
            T + "sex": pick(T + "male", T + "female", T + "other", None),
            T + "code": pick("A12", "A1", "A12345", "a12", "", "Ä12", None),
            T + "weight": pl.Series(pick(0.4, 0.5, 70.0, float("nan"), float("inf"), None), dtype=pl.Float64),
            T + "least": pl.Series(pick(0.5, 70.0, 200.0, None), dtype=pl.Float64),
            T + "most": pl.Series(pick(0.5, 60.0, 200.0, None), dtype=pl.Float64),
            T + "written": pick("1.5", "0.5", "many", "-", None),
            T + "visits": pl.Series(pick(0, 1, 2, 3, None), dtype=pl.Int64),
        }
    )


def graph_of(table, shape):
    """The rows as RDF, cell by cell."""
    by_path = {found.path: found for found in shape.properties}
    quads = []
    for index, row in enumerate(table.iter_rows(named=True)):
        focus = ox.NamedNode(f"urn:row:{index}")
        quads.append(ox.Quad(focus, ox.NamedNode(str(RDF.type)), ox.NamedNode(T + "Patient")))
        for path, value in row.items():
            term = cell_term(value, by_path.get(path, by_path[T + "weight"]))
            quads += [ox.Quad(focus, ox.NamedNode(path), term)] if term is not None else []
    return quads


def oracle(data, shapes):
    """(focus, path, component) of each of pyshacl's results."""
    graph = rdflib.Graph().parse(data=ox.serialize(data, format=ox.RdfFormat.N_TRIPLES), format="nt")
    shape_graph = rdflib.Graph().parse(data=shapes, format="turtle")
    _, report, _ = pyshacl.validate(graph, shacl_graph=shape_graph, inference="none")
    return sorted(
        (
            str(report.value(result, SH.focusNode)),
            str(report.value(result, SH.resultPath)),
            str(report.value(result, SH.sourceConstraintComponent)),
        )
        for result in report.subjects(RDF.type, SH.ValidationResult)
    )


def test_rows_violate_what_pyshacl_says_that_they_violate():
    (shape,) = shapes_of(ROWS)
    table = rows(150)
    report = compile_shape(shape, table.schema).run(table)
    found = sorted(
        (f"urn:row:{row}", check.path, check.constraint.component)
        for check, numbers in zip(report.constraints, report.rows, strict=True)
        for row in numbers
    )
    data = [quad.triple for quad in graph_of(table, shape)]
    assert found == oracle(data, PREFIXES + ROWS)
    broken = {(path, component) for _, path, component in found}
    possible = {(c.path, c.constraint.component) for c in report.constraints}
    never = {"MaxCountConstraintComponent", "NodeKindConstraintComponent"}
    assert {c.rpartition("#")[2] for p, c in possible - broken if p != T + "nowhere"} <= {
        *never,
        "DatatypeConstraintComponent",
    }
    assert report.violations == len(found)
    assert "many" not in str(report)


def test_what_is_no_number_is_never_below_one():
    # Here pyshacl differs: it orders NaN like a number.
    (shape,) = shapes_of(":s a sh:NodeShape ; sh:property [ sh:path :least ; sh:lessThan :most ] .")
    nan = float("nan")
    table = pl.DataFrame({T + "least": [nan, 1.0, nan, 1.0, None], T + "most": [2.0, nan, nan, 2.0, 2.0]})
    assert compile_shape(shape, table.schema).run(table).rows == ((0, 1, 2),)


def test_the_same_rows_as_a_graph_violate_the_same():
    (shape,) = shapes_of(ROWS)
    table = rows(60, seed=4)
    report = compile_shape(shape, table.schema).run(table)
    violations = check_graph((shape,), Statements(graph_of(table, shape)))
    assert sorted((v.focus, v.path, v.constraint.component) for v in violations) == sorted(
        (f"urn:row:{row}", check.path, check.constraint.component)
        for check, numbers in zip(report.constraints, report.rows, strict=True)
        for row in numbers
    )


def test_an_ontology_violates_what_pyshacl_says_of_lepton_s_own_shapes():
    from importlib import resources

    body = """
    :a a skos:Concept ; skos:prefLabel "a"@en, "A"@en ; lepton:unit "mm", "cm" ; lepton:molarMass -1 .
    :b a skos:Concept ; skos:broader :nowhere, "b" ; lepton:plausibleMinimum 5 ; lepton:plausibleMaximum 4.5 .
    :c a skos:Concept ; skos:prefLabel :a ; lepton:valueSet [ skos:member "x" ] ; lepton:missingMeaning "why" .
    :d a skos:Concept ; skos:prefLabel "d" ; lepton:valueSet :set . :set skos:member :a, :b .
    """
    graph = list(ox.parse(PREFIXES + body, ox.RdfFormat.TURTLE))
    own = resources.files("lepton_kg.shacl").joinpath("ontology.ttl").read_text("utf-8")
    violations = check_graph(_own_shapes(), Statements(graph))
    expected = oracle([quad.triple for quad in graph], own)
    names = [(v.path, v.constraint.component) for v in violations]
    assert sorted(names) == sorted((path, component) for _, path, component in expected)
    assert len(names) > 10
    assert any("lepton:molarMass is not positive (expected minExclusive 0, got " in str(v) for v in violations)


def test_concepts_imply_a_shape_of_their_own():
    body = """
    :glucose a skos:Concept ; skos:prefLabel "glucose" ; lepton:datatype xsd:decimal ; lepton:unit "mmol/L" ;
        lepton:plausibleMinimum 1.0 ; lepton:plausibleMaximum 40 .
    :sex a skos:Concept ; skos:prefLabel "sex" ; lepton:valueSet :sexes . :sexes skos:member :male, :female .
    :male skos:prefLabel "m" . :female skos:prefLabel "f" .
    """
    ontology = parse_ontology((PREFIXES + body).encode(), format="turtle", source="x")
    shape = implied_shape(ontology, [T + "glucose", T + "sex"])
    table = pl.DataFrame({T + "glucose": [0.5, 5.0, 41.0, None], T + "sex": [T + "male", "m", None, T + "female"]})
    report = compile_shape(shape, table.schema).run(table)
    assert (report.violations, report.violating_rows) == (3, 3)
    assert "glucose: 1 of 4 rows violate minInclusive" in str(report)
    assert str(compile_shape(shape, table.schema).run(table.clear())) == "0 rows conform"


def test_columns_that_no_constraint_can_be_read_on_are_refused():
    (shape,) = shapes_of(':s a sh:NodeShape ; sh:property [ sh:path :age ; sh:pattern "a" ] .')
    for kind in (pl.Int64(), pl.List(pl.Int64)):
        with pytest.raises(InputError) as refused:
            compile_shape(shape, {T + "age": kind})
        assert refused.value.where == T + "age"
