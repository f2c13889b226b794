"""Constraints on mapped rows as polars expressions: their time, and whether pyshacl finds the same violations."""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import polars as pl
import pyoxigraph as ox

from lepton_kg.shacl.shapes import NodeShape, PropertyShape, read_shapes
from lepton_kg.shacl.table import TableReport, cell_term, compile_shape
from lepton_kg.statements import Statements

_BASE = "https://example.org/o/"
_TYPE = ox.NamedNode("http://www.w3.org/1999/02/22-rdf-syntax-ns#type")
#: One in so many cells is wrong.
_WRONG = 250
_SHAPES = """
@prefix : <https://example.org/o/> .
@prefix sh: <http://www.w3.org/ns/shacl#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .

:Row a sh:NodeShape ; sh:targetClass :Patient ; sh:property
    [ sh:path :age ; sh:datatype xsd:integer ; sh:minInclusive 0 ; sh:maxInclusive 120 ; sh:minCount 1 ] ,
    [ sh:path :systolic ; sh:datatype xsd:decimal ; sh:minInclusive 40 ; sh:maxInclusive 300 ] ,
    [ sh:path :diastolic ; sh:datatype xsd:decimal ; sh:lessThan :systolic ] ,
    [ sh:path :sex ; sh:in ( :male :female ) ; sh:minCount 1 ] ,
    [ sh:path :code ; sh:pattern "^[A-Z][0-9]+$" ; sh:maxLength 5 ] .
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many rows, and how often."""
    parser.add_argument("--rows", type=int, default=10**4, help="rows of five columns")
    parser.add_argument("--oracle-rows", type=int, default=10**4, help="rows that pyshacl looks at, too")
    parser.add_argument("--checks", type=int, default=50, help="checks, of which the fastest counts")


def run(args: argparse.Namespace) -> dict[str, object]:
    """`validate_ms` and `oracle_equal`: every pair of row and constraint, both ways."""
    problems: list[str] = []
    (shape,) = read_shapes(Statements(ox.parse(_SHAPES, ox.RdfFormat.TURTLE)), problems)
    if problems:
        raise AssertionError(problems)
    table = _rows(args.rows)
    check = compile_shape(shape, table.schema)
    report = check.run(table)
    times = []
    for _ in range(args.checks):
        start = time.perf_counter()
        check.run(table)
        times.append(time.perf_counter() - start)
    looked_at = table.head(args.oracle_rows)
    ours = _pairs(check.run(looked_at))
    return {
        "validate_ms": min(times) * 1_000,
        "violations": report.violations,
        "oracle_equal": ours == _oracle(looked_at, shape),
        "oracle_rows": looked_at.height,
    }


def _rows(count: int) -> pl.DataFrame:
    """Patients of whom a few have an impossible value, or none."""
    draw = np.random.default_rng(11)

    def spoilt(values: np.ndarray, wrong: object) -> list[object]:
        found: list[object] = values.tolist()
        for row in draw.integers(0, count, size=max(1, count // _WRONG)):
            found[row] = wrong
        return found

    systolic = draw.normal(130, 15, count).round(1)
    return pl.DataFrame(
        {
            _BASE + "age": pl.Series(spoilt(draw.integers(18, 95, count), 199), dtype=pl.Int64),
            _BASE + "systolic": pl.Series(spoilt(systolic, 13.5), dtype=pl.Float64),
            _BASE + "diastolic": pl.Series(spoilt((systolic * 0.6).round(1), 410.0), dtype=pl.Float64),
            _BASE + "sex": spoilt(draw.choice([_BASE + "male", _BASE + "female"], count), None),
            _BASE + "code": spoilt(np.array([f"I{number}" for number in draw.integers(10, 99, count)]), "unknown"),
        }
    )


def _pairs(report: TableReport) -> list[tuple[str, str, str]]:
    return sorted(
        (f"urn:row:{row}", check.path, check.constraint.component)
        for check, rows in zip(report.constraints, report.rows, strict=True)
        for row in rows
    )


def _oracle(table: pl.DataFrame, shape: NodeShape) -> list[tuple[str, str, str]]:
    """(row, path, component) of each of pyshacl's results."""
    import pyshacl
    import rdflib
    from rdflib.namespace import RDF, SH

    logging.getLogger("rdflib.term").setLevel(logging.ERROR)
    by_path: dict[str, PropertyShape] = {found.path: found for found in shape.properties}
    triples = []
    for index, row in enumerate(table.iter_rows(named=True)):
        focus = ox.NamedNode(f"urn:row:{index}")
        triples.append(ox.Triple(focus, _TYPE, ox.NamedNode(_BASE + "Patient")))
        for path, value in row.items():
            term = cell_term(value, by_path[path])
            if term is not None:
                triples.append(ox.Triple(focus, ox.NamedNode(path), term))
    document = ox.serialize(triples, format=ox.RdfFormat.N_TRIPLES) or b""
    graph = rdflib.Graph().parse(data=document, format="nt")
    shapes = rdflib.Graph().parse(data=_SHAPES, format="turtle")
    _, report, _ = pyshacl.validate(graph, shacl_graph=shapes, inference="none")
    return sorted(
        (
            str(report.value(result, SH.focusNode)),
            str(report.value(result, SH.resultPath)),
            str(report.value(result, SH.sourceConstraintComponent)),
        )
        for result in report.subjects(RDF.type, SH.ValidationResult)
    )
