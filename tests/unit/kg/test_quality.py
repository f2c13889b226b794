"""What an owner is told of its own columns, and that a source written in two ways is a typed error."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from lepton_core.errors import DataError
from lepton_kg.examine import require_one_way
from lepton_kg.mapping import Column, CsvOptions, Mapping, Source, parse_mapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.quality import examine_quality
from tests.unit.kg.test_hospitals import ONTOLOGY as HOSPITALS
from tests.unit.kg.test_hospitals import summary  # noqa: F401 - a fixture
from tests.unit.kg.test_plan_tasks import BORN, ONTOLOGY, T

CLINIC = parse_ontology(
    b"""
@prefix : <https://example.org/t/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
:glucose a skos:Concept ; skos:prefLabel "glucose" ; lepton:datatype xsd:decimal ; lepton:unit "mmol/L" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 40 ; lepton:molarMass 180.156 .
:sex a skos:Concept ; skos:prefLabel "sex" ; lepton:datatype xsd:string ; lepton:valueSet :sexes .
:sexes a skos:Collection ; skos:member :male, :female .
:male a skos:Concept ; skos:prefLabel "male" .
:female a skos:Concept ; skos:prefLabel "female" .
""",
    format="turtle",
    source="test",
)


def report_of(tmp_path, frame, *columns, ontology=CLINIC):
    frame.write_parquet(tmp_path / "d.parquet")
    source = Source(kind="parquet", path="d.parquet")
    mapping = Mapping(ontology=ontology.digest, vocabulary=T, source=source, columns=columns)
    return examine_quality(mapping, ontology, tmp_path, name="m").columns


@pytest.mark.parametrize(("declared", "written", "seen"), [("mg/dL", 1.0, "mmol/L"), ("mmol/L", 18.0156, "mg/dL")])
def test_a_column_in_another_unit_than_declared_is_suspected(tmp_path, declared, written, seen):
    values = np.random.default_rng(0).normal(7, 2, 500).clip(3, 20) * written
    column = Column(column="g", concept="glucose", unit=declared)
    (told,) = report_of(tmp_path, pl.DataFrame({"g": values}), column)
    assert f"declared as {declared}, the values look like {seen}" in told.suspicions
    right = Column(column="g", concept="glucose", unit=seen)
    (told,) = report_of(tmp_path, pl.DataFrame({"g": values}), right)
    assert told.suspicions == ()
    assert told.after.median == pytest.approx(7, abs=0.5)


def test_no_unit_of_the_hospitals_example_is_suspected(summary):  # noqa: F811 - the fixture
    for files in summary.hospitals:
        mapping = parse_mapping(files.mapping.read_text("utf-8"), source="m")
        report = examine_quality(mapping, HOSPITALS, files.mapping.parent, name="m")
        assert report.rows == files.rows
        looks = [line for column in report.columns for line in column.suspicions if "look like" in line]
        assert looks == [], files.name
        assert sum(column.out_of_range for column in report.columns) == len(files.mistyped)


def test_what_is_missing_unreadable_and_unknown_is_counted_before_and_after(tmp_path):
    frame = pl.DataFrame({"g": ["180.156", "90.078", "NA", "", "high"], "s": ["m", "f", "x", "9", None]})
    glucose, sex = report_of(
        tmp_path,
        frame,
        Column(column="g", concept="glucose", unit="mg/dL", missing=("NA",)),
        Column(column="s", concept="sex", codes={"m": "male", "f": "female", "w": "female"}, missing=("9",)),
    )
    assert (glucose.rows, glucose.missing, glucose.unreadable) == (5, 2, 1)
    assert (glucose.before.maximum, glucose.after.maximum) == (180.156, pytest.approx(10.0))
    assert sum(glucose.after.histogram) == 2
    assert (sex.missing, sex.unreadable, sex.values) == (2, 1, {"female": 1, "male": 1})
    assert "1 cells hold codes that the mapping does not name" in sex.suspicions
    assert "codes that no row has: w" in sex.suspicions


def test_a_column_with_one_value_in_every_row_stands_out(tmp_path):
    (told,) = report_of(tmp_path, pl.DataFrame({"g": [0.0] * 9}), Column(column="g", concept="glucose", unit="mmol/L"))
    assert any("every value is the same" in line for line in told.suspicions)


def write(tmp_path, text, *columns, decimal=".", ontology=CLINIC):
    (tmp_path / "d.csv").write_text(text)
    source = Source(kind="csv", path="d.csv", csv=CsvOptions(delimiter=";", decimal=decimal))
    return Mapping(ontology=ontology.digest, vocabulary=T, source=source, columns=columns)


@pytest.mark.parametrize(("decimal", "other", "row"), [(".", ",", 3), (",", ".", 2)])
def test_mixed_decimal_signs_are_an_error_with_column_and_row(tmp_path, decimal, other, row):
    cells = ["1.5" if decimal == "." else "1,5", "NA", "7,25", "8.25"]
    if row == 2:
        cells[1] = "6.5"
    column = Column(column="g", concept="glucose", unit="mmol/L", missing=("NA",))
    mapping = write(tmp_path, "\n".join(["g", *cells]), column, decimal=decimal)
    with pytest.raises(DataError) as refused:
        require_one_way(mapping, CLINIC, tmp_path)
    assert refused.value.reason == "MIXED_DECIMALS"
    assert refused.value.where == f"d.csv, column 'g', row {row}"
    assert repr(other) in refused.value.got
    assert "7,25" not in str(refused.value)


def test_dates_of_three_kinds_are_an_error_that_names_each(tmp_path):
    text = "b\n01.02.1950\n\n1950-02-01\n12/31/1950\n31/12/1950\n01.01.1900\nlast year\n"
    mapping = write(tmp_path, text, BORN, ontology=ONTOLOGY)
    with pytest.raises(DataError) as refused:
        require_one_way(mapping, ONTOLOGY, tmp_path)
    assert refused.value.reason == "MIXED_DATES"
    assert refused.value.where.startswith("d.csv, column 'b', row ")
    assert refused.value.expected == "DD.MM.YYYY in every row"
    assert refused.value.got == (
        "YYYY-MM-DD in 1 rows, DD/MM/YYYY in 1 rows, MM/DD/YYYY in 1 rows, another way in 1 rows"
    )


def test_dates_of_one_kind_and_typed_ones_pass(tmp_path):
    require_one_way(write(tmp_path, "b\n01.02.1950\n01.01.1900\n", BORN, ontology=ONTOLOGY), ONTOLOGY, tmp_path)
    pl.DataFrame({"b": [dt.date(1950, 2, 1)]}).write_parquet(tmp_path / "d.parquet")
    source = Source(kind="parquet", path="d.parquet")
    typed = Mapping(ontology=ONTOLOGY.digest, vocabulary=T, source=source, columns=(BORN,))
    require_one_way(typed, ONTOLOGY, tmp_path)
