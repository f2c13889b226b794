"""A proposed line has codes of the column alone, each with the one value it can mean; the rest is left open."""

from __future__ import annotations

import polars as pl
import pytest

from lepton_kg.concept import Concept, Value
from lepton_kg.mapping import Source
from lepton_kg.ontology import parse_ontology
from lepton_kg.suggest import ColumnProfile, profile_columns
from lepton_kg.suggest_line import propose_line, suggest_codes

SOURCE = Source(kind="parquet", path="d.parquet")


def answers(yes="yes", no="no", *, notations=("1", "0")):
    values = (Value("urn:yes", notations[0], {"en": yes}), Value("urn:no", notations[1], {"en": no}))
    return Concept("urn:sepsis", {"en": "sepsis"}, datatype="xsd:string", value_set=values)


def column(*codes):
    return ColumnProfile("sepsis", "text", distinct_values=codes)


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        *(("yes", "no"), ("Y", "N"), ("ja", "nein"), ("J", "N"), ("true", "false"), ("TRUE", "FALSE"), ("T", "F")),
        *(("1", "0"), ("oui", "non"), ("是", "否"), ("wahr", "falsch")),
    ],
)
@pytest.mark.parametrize(
    "concept",
    [
        answers(),
        answers(notations=(None, None)),
        answers("true", "false", notations=("true", "false")),
        answers("present", "absent", notations=("P", "A")),
    ],
)
def test_yes_and_no_are_told_apart_however_a_column_writes_them(concept, yes, no):
    assert suggest_codes(concept, column(no, yes)) == {no: "urn:no", yes: "urn:yes"}
    assert suggest_codes(concept, column("-9", no, "unknown", yes)) == {no: "urn:no", yes: "urn:yes"}


@pytest.mark.parametrize(
    ("concept", "codes", "proposed"),
    [
        # Who says which answer a J is, if the values are no yes and no?
        (answers("malignant", "benign"), ("J", "N"), {}),
        (answers("malignant", "benign"), ("0", "1"), {"0": "urn:no", "1": "urn:yes"}),
        # 1 and 2, or grades from 0 to 2, are no yes and no.
        (answers(notations=(None, None)), ("1", "2"), {}),
        (answers(notations=(None, None)), ("0", "1", "2"), {}),
        # Two ways of writing in one column.
        (answers(notations=(None, None)), ("0", "1", "f", "t"), {}),
        # An ontology that writes 0 for yes is right about its own codes.
        (answers(notations=("0", "1")), ("0", "1"), {"0": "urn:yes", "1": "urn:no"}),
        (answers(notations=("0", None)), ("0", "1"), {"0": "urn:yes"}),
        # A sign is part of a code.
        (answers(), ("-1", "0", "1"), {"0": "urn:no", "1": "urn:yes"}),
        (answers("a", "b", notations=("+", "-")), ("+", "-"), {"+": "urn:yes", "-": "urn:no"}),
        # A code that names two values names none.
        (answers("grade one", "grade-one", notations=("1", "2")), ("grade one", "2"), {"2": "urn:no"}),
        # One code alone may be of any pair.
        (answers(notations=(None, None)), ("N",), {}),
        (answers("a", "b"), ("c", "d"), {}),
    ],
)
def test_a_code_that_could_mean_either_is_left_open_and_said_to_be(concept, codes, proposed):
    line = propose_line(concept, column(*codes), unit=None, why="name", score=0.9)
    assert line.codes == proposed
    left = len(codes) - len(proposed)
    assert line.justification == ("name" if not left else f"name; {left} of {len(codes)} codes are left open")


def test_notations_are_proposed_only_where_the_columns_own_codes_are_not_known():
    line = propose_line(answers(), column(), unit=None, why="name", score=None)
    assert line.codes == {"1": "urn:yes", "0": "urn:no"}
    assert "notations" in line.justification


@pytest.mark.parametrize("cells", [[1.0, 0.0, None], [True, False, None], [1, 0, None], [" 1", "0 ", ""]])
def test_the_proposed_codes_are_those_that_the_plan_reads(cells):
    frame = pl.DataFrame({"sepsis": cells})
    (profile,) = profile_columns(frame, SOURCE)
    codes = suggest_codes(answers(), profile)
    wanted = {"true", "false"} if frame["sepsis"].dtype == pl.Boolean else {"0", "1"}
    assert set(codes) == wanted
    assert codes[max(wanted)] == "urn:yes"


def test_suggested_yes_and_no_of_an_ontology_document_serve_a_plan_unchanged():
    text = """
        @prefix : <urn:> . @prefix lepton: <https://w3id.org/lepton/kg#> .
        @prefix skos: <http://www.w3.org/2004/02/skos/core#> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
        :smoker a skos:Concept ; skos:prefLabel "smoker"@en ; lepton:datatype xsd:boolean ; lepton:valueSet :set .
        :set a skos:Collection ; skos:member :y, :n .
        :y a skos:Concept ; skos:prefLabel "yes"@en, "ja"@de ; skos:notation "1" .
        :n a skos:Concept ; skos:prefLabel "no"@en, "nein"@de ; skos:notation "0" ."""
    concept = parse_ontology(text.encode(), format="turtle", source="o.ttl").concept("urn:smoker")
    assert suggest_codes(concept, column("J", "N")) == {"J": "urn:y", "N": "urn:n"}
