"""The clinical example: three languages, units that convert, and shapes that find what cannot be."""

from pathlib import Path

import polars as pl
import pytest

from lepton_kg.ontology import parse_ontology
from lepton_kg.shacl.table import compile_shape, implied_shape
from lepton_kg.units import conversion

EXAMPLE = Path(__file__).parents[3] / "examples" / "clinical" / "ontology.ttl"
ONTOLOGY = parse_ontology(EXAMPLE.read_bytes(), format="turtle", source="ontology.ttl")
C = "https://example.org/clinical/"


def test_every_concept_is_labelled_in_three_languages():
    for concept in ONTOLOGY.concepts.values():
        assert set(concept.labels) == {"de", "en", "zh"}, concept.iri
    assert [found.iri for found in ONTOLOGY.resolve("总胆固醇")] == [C + "cholesterol"]
    assert [found.iri for found in ONTOLOGY.resolve("nüchternblutzucker")] == [C + "fasting-glucose"]


def test_amounts_and_masses_convert_where_the_ontology_knows_the_molar_mass():
    cholesterol = ONTOLOGY.concept(C + "cholesterol")
    there = conversion("mg/dL", cholesterol.unit, molar_mass_g_per_mol=cholesterol.molar_mass_g_per_mol)
    assert there(200.0) == pytest.approx(5.17, abs=0.01)
    assert (cholesterol.missing_meaning, cholesterol.missing_codes) == ("not-measured", ("0",))


def test_every_measured_concept_has_a_public_range():
    measured = [concept for concept in ONTOLOGY.concepts.values() if concept.is_numeric]
    assert len(measured) > 15
    assert all(concept.plausible_minimum < concept.plausible_maximum for concept in measured)


def test_the_shape_of_a_visit_and_what_concepts_imply_find_impossible_rows():
    (visit,) = ONTOLOGY.shapes
    table = pl.DataFrame(
        {
            C + "age": [54, None, 154],
            C + "sex": [C + "female", C + "male", "w"],
            C + "systolic-pressure": [130.0, 80.0, None],
            C + "diastolic-pressure": [80.0, 130.0, 70.0],
            C + "cholesterol": [5.2, 0.0, 250.0],
        }
    )
    report = compile_shape(visit, table.schema).run(table)
    assert report.violations == 4
    assert "diastolic-pressure: 1 of 3 rows violate lessThan" in str(report)
    implied = implied_shape(ONTOLOGY, [C + "cholesterol"])
    assert compile_shape(implied, table.schema).run(table).violations == 2
