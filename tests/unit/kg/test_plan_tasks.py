"""What a task may ask beyond numbers and a target: codes, roll-up, formulas, filters, and a split by subject."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import JobError, MatchRefusal, OntologyError
from lepton_core.task import Feature, Filter, Split, Target, Task
from lepton_kg.compiler import compile_plan
from lepton_kg.formulas import check_formulas, require_formulas
from lepton_kg.mapping import Column, Line, Mapping, Source, Subject
from lepton_kg.mapping_check import check_mapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.task import resolve_task
from lepton_kg.unknown_codes import CodeCount

T = "https://example.org/t/"
TURTLE = """
@prefix : <https://example.org/t/> .
@prefix derive: <https://w3id.org/lepton/derive#> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
:weight a skos:Concept ; skos:prefLabel "weight" ; lepton:datatype xsd:decimal ; lepton:unit "kg" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 400 .
:height a skos:Concept ; skos:prefLabel "height" ; lepton:datatype xsd:decimal ; lepton:unit "cm" .
:bmi a skos:Concept ; skos:prefLabel "BMI" ; lepton:datatype xsd:decimal ; lepton:unit "kg/m2" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 50 ;
    derive:formula "body-mass-index" ; derive:mass :weight ; derive:height :height .
:born a skos:Concept ; skos:prefLabel "born" ; lepton:datatype xsd:date .
:seen a skos:Concept ; skos:prefLabel "seen" ; lepton:datatype xsd:date .
:age a skos:Concept ; skos:prefLabel "age" ; lepton:datatype xsd:decimal ; lepton:unit "a" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 100 ;
    derive:formula "age" ; derive:birth :born ; derive:at :seen .
:wrong a skos:Concept ; skos:prefLabel "wrong" ; lepton:datatype xsd:decimal ; lepton:unit "a" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 100 ; derive:formula "import os" ; derive:birth :born .
:pain a skos:Concept ; skos:prefLabel "pain" ; lepton:datatype xsd:string ; lepton:valueSet :pains .
:pains a skos:Collection ; skos:member :chest, :back, :none .
:chest a skos:Concept ; skos:prefLabel "chest" .
:back a skos:Concept ; skos:prefLabel "back" .
:none a skos:Concept ; skos:prefLabel "none" .
:angina a skos:Concept ; skos:prefLabel "angina" ; skos:broader :chest .
:radiating a skos:Concept ; skos:prefLabel "radiating" ; skos:broader :chest, :back .
:ill a skos:Concept ; skos:prefLabel "ill" ; lepton:datatype xsd:string ; lepton:valueSet :ills .
:ills a skos:Collection ; skos:member :yes, :no .
:yes a skos:Concept ; skos:prefLabel "yes" .
:no a skos:Concept ; skos:prefLabel "no" .
"""
ONTOLOGY = parse_ontology(TURTLE.encode(), format="turtle", source="test")
DONE = {"status": "approved", "approver": "A", "date": dt.date(2025, 1, 1)}
ILL = Column(column="y", concept="ill", codes={"1": "yes", "0": "no"}, **DONE)
PAIN = Column(column="p", concept="pain", codes={"c": "chest", "b": "back", "n": "none", "a": "angina"}, **DONE)
WEIGHT = Column(column="w", concept="weight", unit="g", **DONE)
HEIGHT = Column(column="h", concept="height", unit="m", **DONE)
BORN = Column(column="b", concept="born", date_format="DD.MM.YYYY", missing=("01.01.1900",), **DONE)
SEEN = Column(column="s", concept="seen", **DONE)
Y = ["1"] * 4


def plan(*features, columns, subject=None, **task):
    mapping = Mapping(
        ontology=ONTOLOGY.digest,
        vocabulary=T,
        source=Source(kind="parquet", path="x"),
        subject=subject,
        columns=(*columns, ILL),
    )
    return compile_plan(wanted(*features, **task), mapping, ONTOLOGY, subjects=subject is not None)


def wanted(*features, **task):
    return Task(
        ontology=ONTOLOGY.digest,
        vocabulary=T,
        features=tuple(Feature(**one) for one in features),
        target=Target(concept="ill", positive="yes"),
        **task,
    )


def test_a_coded_feature_has_one_place_a_value_and_unnamed_values_are_no_in_all():
    made = plan({"concept": "pain", "values": ("chest", "back"), "required": False}, columns=[PAIN])
    data = made.execute(pl.DataFrame({"p": ["c", "b", "n", "a", None], "y": [*Y, "0"]}))
    assert data.features.tolist() == [[1, -1], [-1, 1], [-1, -1], [1, -1], [0, 0]]
    assert data.report.missing_by_concept == {T + "pain": 1}
    assert made.width == 2


def test_an_unknown_code_of_a_feature_refuses_its_row_and_a_missing_required_one_too():
    made = plan({"concept": "pain", "values": ("chest",)}, columns=[PAIN])
    report = made.check(pl.DataFrame({"p": ["c", "?", "", "n"], "y": Y}))
    assert report.refused_by == {"UNKNOWN_CODE": 1, "MISSING_VALUE": 1}


def test_unknown_codes_are_counted_by_column_among_the_rows_that_serve_and_listed_while_they_are_few():
    pain = Column(column="p", concept="pain", codes={"c": "chest"}, missing=("-9",), **DONE)
    feature = {"concept": "pain", "values": ("chest",), "required": False}
    filters = (Filter(concept="weight", minimum=10.0),)
    made = plan(feature, columns=[pain, WEIGHT], filters=filters)
    weight = [70_000.0] * 5 + [1.0]
    frame = pl.DataFrame({"p": ["c", "?", "-9", None, "?", "!"], "w": weight, "y": ["1", "0", "x", "", None, "z"]})
    counted = CodeCount(made.features, made.target)
    for batch in (frame.head(2), frame.tail(4)):
        made.check(batch, codes=counted)
    pains, ills = counted.columns()
    assert (pains.column, pains.concept, pains.rows) == ("p", T + "pain", 2)
    assert (ills.column, ills.rows) == ("y", 1)
    assert (counted.codes("p"), counted.codes("y")) == ({"?": 2}, {"x": 1})
    made.check(pl.DataFrame({"p": [f"{n}" for n in range(51)], "w": [70_000.0] * 51, "y": ["1"] * 51}), codes=counted)
    assert counted.columns()[0].rows == 53
    assert counted.codes("p") is None


def test_an_owner_without_an_optional_coded_concept_imputes_every_place():
    for impute, value in (("midpoint", 0.0), ("minimum", -1.0)):
        feature = {"concept": "pain", "values": ("chest", "back"), "required": False, "impute": impute}
        data = plan(feature, columns=[]).execute(pl.DataFrame({"y": ["1", "0"]}))
        assert data.features.tolist() == [[value, value]] * 2


def test_formulas_that_nobody_can_compute_are_told_before_an_ontology_is_published():
    assert [line.split(":", 2)[1].rpartition("/")[2] for line in check_formulas(ONTOLOGY)] == ["wrong"]
    sound = TURTLE.replace('derive:formula "import os" ; derive:birth :born', 'skos:note "none"')
    assert check_formulas(parse_ontology(sound.encode(), format="turtle", source="test")) == ()
    for change, told in (
        (("derive:height :height", "derive:height :nowhere"), "nowhere"),
        (("derive:height :height", "derive:height :weight"), "kg"),
        (("derive:birth :born ; derive:at", "derive:birth :weight ; derive:at"), "xsd:date"),
        (('lepton:unit "kg/m2"', 'lepton:unit "kg"'), "kg/m2"),
    ):
        (found,) = check_formulas(parse_ontology(sound.replace(*change).encode(), format="turtle", source="test"))
        assert told in found
    with pytest.raises(OntologyError) as refused:
        require_formulas(ONTOLOGY, "test.ttl")
    assert refused.value.reason == "BAD_FORMULA"


def test_what_compiles_is_no_problem_to_the_check_and_what_is_a_problem_does_not_compile():
    stored = Column(column="w", concept="weight", conversion=Line(a=0.001, b=0.0), **DONE)
    sound = {"weight": (stored, WEIGHT), "pain": (PAIN,)}
    wrong = {
        "weight": (WEIGHT.model_copy(update={"unit": None}), WEIGHT.model_copy(update={"unit": "mol"})),
        "pain": (PAIN.model_copy(update={"codes": {}}), PAIN.model_copy(update={"codes": {"c": "ill"}})),
    }
    for every, compiles in ((sound, True), (wrong, False)):
        for concept, columns in every.items():
            for column in columns:
                source = Source(kind="parquet", path="x")
                mapping = Mapping(ontology=ONTOLOGY.digest, vocabulary=T, source=source, columns=(column, ILL))
                assert (check_mapping(mapping, ONTOLOGY) == ()) is compiles
                feature = {"concept": concept} | ({"values": ("chest", "back")} if concept == "pain" else {})
                if compiles:
                    assert plan(feature, columns=[column])
                else:
                    with pytest.raises(MatchRefusal):
                        plan(feature, columns=[column])


def test_a_code_below_two_of_the_values_is_refused_or_is_yes_in_both():
    radiating = PAIN.model_copy(update={"codes": {**PAIN.codes, "r": "radiating"}})
    both = {"concept": "pain", "values": ("chest", "back")}
    with pytest.raises(MatchRefusal) as refused:
        plan(both, columns=[radiating])
    assert (refused.value.reason, refused.value.where) == ("AMBIGUOUS_VALUE", T + "pain")
    made = plan({**both, "encoding": "multi-hot"}, columns=[radiating])
    assert made.execute(pl.DataFrame({"p": ["r", "a"], "y": ["1", "0"]})).features.tolist() == [[1, 1], [1, -1]]


def test_exact_and_uphill_codes_and_columns_are_told_apart_and_can_be_forbidden():
    exact = {"concept": "pain", "values": ("chest",), "roll_up": 0}
    report = plan(exact, columns=[PAIN]).check(pl.DataFrame({"p": ["c", "a", "n", "n"], "y": Y}))
    assert report.refused_by == {"UNKNOWN_CODE": 1}
    broad = WEIGHT.model_copy(update={"predicate": "broad"})
    assert plan({"concept": "weight"}, columns=[broad]).rolled_up == {T + "weight": 1}
    assert plan({"concept": "weight"}, columns=[WEIGHT]).rolled_up == {}
    with pytest.raises(MatchRefusal) as refused:
        plan({"concept": "weight", "roll_up": 0}, columns=[broad])
    assert refused.value.reason == "INEXACT_MAPPING"


def test_a_stored_conversion_without_a_unit_is_used():
    stones = Column(column="w", concept="weight", conversion=Line(a=6.35029318), **DONE)
    data = plan({"concept": "weight"}, columns=[stones]).execute(pl.DataFrame({"w": [10.0], "y": ["1"]}))
    assert data.features[0, 0] == pytest.approx(63.5029318 / 200 - 1)


def test_a_derived_concept_is_computed_from_converted_inputs():
    made = plan({"concept": "bmi"}, columns=[WEIGHT, HEIGHT])
    data = made.execute(pl.DataFrame({"w": [80_000.0, 50_000.0], "h": [2.0, 1.0], "y": ["1", "0"]}))
    np.testing.assert_allclose(data.features[:, 0], [20 / 25 - 1, 50 / 25 - 1], atol=1e-6)
    assert made.columns == ("h", "w", "y")


def test_a_height_of_zero_gives_no_value_and_a_column_of_its_own_is_preferred():
    report = plan({"concept": "bmi"}, columns=[WEIGHT, HEIGHT]).check(
        pl.DataFrame({"w": [8e4, 8e4], "h": [0.0, 2.0], "y": ["1", "1"]})
    )
    assert report.refused_by == {"MISSING_VALUE": 1}
    own = Column(column="bmi", concept="bmi", unit="kg/m2", **DONE)
    assert plan({"concept": "bmi"}, columns=[WEIGHT, HEIGHT, own]).columns == ("bmi", "y")


def test_an_age_comes_from_days_written_in_one_way_and_others_refuse_their_rows():
    made = plan({"concept": "age", "required": False}, columns=[BORN, SEEN])
    frame = pl.DataFrame(
        {
            "b": ["01.03.1950", "1950-03-01", "03/01/1950", "1.3.1950", "01.01.1900", "31.02.1950"],
            "s": [dt.date(2000, 3, 1)] * 6,
            "y": ["1"] * 6,
        }
    )
    data = made.execute(frame, max_refused_fraction=1.0)
    np.testing.assert_allclose(data.features[:, 0], [18263 / 365.25 / 50 - 1, 0.0], atol=1e-6)
    assert data.report.refused_by == {"NOT_A_NUMBER": 4}


def test_a_missing_input_is_a_missing_concept_and_an_unknown_formula_is_the_jobs_fault():
    with pytest.raises(MatchRefusal) as refused:
        plan({"concept": "bmi"}, columns=[WEIGHT])
    assert (refused.value.reason, refused.value.where) == ("MISSING_CONCEPT", T + "bmi")
    with pytest.raises(JobError) as wrong:
        resolve_task(wanted({"concept": "wrong"}), ONTOLOGY)
    assert wrong.value.reason == "BAD_FORMULA"


def test_filters_leave_rows_out_by_range_and_by_value_and_count_them():
    made = plan(
        {"concept": "weight"},
        columns=[WEIGHT, PAIN],
        filters=(Filter(concept="weight", minimum=50, maximum=90), Filter(concept="pain", values=("chest",))),
    )
    frame = pl.DataFrame({"w": [60e3, 40e3, 60e3, None, 60e3], "p": ["c", "c", "b", "c", "a"], "y": ["1"] * 5})
    data = made.execute(frame)
    assert (data.report.rows_mapped, data.report.rows_filtered) == (2, 3)
    with pytest.raises(MatchRefusal) as refused:
        plan({"concept": "weight"}, columns=[WEIGHT], filters=(Filter(concept="pain", values=("chest",)),))
    assert refused.value.reason == "MISSING_CONCEPT"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": ({"concept": "pain"},)}, "NOT_NUMERIC"),
        ({"features": ({"concept": "pain", "values": ("yes",)},)}, "UNKNOWN_VALUE"),
        ({"features": ({"concept": "weight", "values": ("yes",)},)}, "NOT_CODED"),
        ({"filters": (Filter(concept="pain", minimum=1),)}, "NOT_NUMERIC"),
        ({"filters": (Filter(concept="pain", values=("yes",)),)}, "UNKNOWN_VALUE"),
    ],
)
def test_codes_and_filters_without_meaning_are_the_jobs_fault(change, reason):
    features = change.pop("features", ({"concept": "weight"},))
    with pytest.raises(JobError) as refused:
        resolve_task(wanted(*features, **change), ONTOLOGY)
    assert refused.value.reason == reason


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40), st.integers(0, 3))
def test_no_subject_is_on_both_sides_of_a_split_and_every_row_is_on_one(ids, seed):
    made = plan(
        {"concept": "weight"}, columns=[WEIGHT], subject=Subject(column="id"), split=Split(held_out=0.4, seed=seed)
    )
    frame = pl.DataFrame({"id": ids, "w": [float(1000 * i) for i in range(len(ids))], "y": ["1"] * len(ids)})
    sides = []
    for held_out in (False, True):
        try:
            data = made.execute(frame, held_out=held_out)
        except MatchRefusal:  # NO_ROWS: nobody is on this side
            sides.append(set())
            continue
        assert data.report.rows_mapped + data.report.rows_held_out == len(ids)
        rows = np.rint((data.features[:, 0] + 1) * 200).astype(int)
        sides.append(set(rows.tolist()))
        named = [ids[row] for row in rows]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(named))}
        assert data.subjects.tolist() == [numbers[name] for name in named]
        assert data.subjects.dtype == np.int64
    assert sides[0] | sides[1] == set(range(len(ids)))
    assert not {ids[row] for row in sides[0]} & {ids[row] for row in sides[1]}


def test_a_split_holds_out_about_its_share_alike_in_every_batch_and_needs_a_subject():
    split = Split(held_out=0.25)
    made = plan({"concept": "weight"}, columns=[WEIGHT], subject=Subject(column="id"), split=split)
    frame = pl.DataFrame({"id": range(4000), "w": [1.0] * 4000, "y": ["1"] * 4000})
    whole = made.execute(frame).report
    assert 0.22 < whole.rows_held_out / 4000 < 0.28
    # Numbers and their texts are one subject, and batches add up to the whole.
    batches = [frame[:1000], frame[1000:].with_columns(pl.col("id").cast(pl.String))]
    assert made.execute(batches).report == whole
    with pytest.raises(MatchRefusal) as refused:
        plan({"concept": "weight"}, columns=[WEIGHT], split=split)
    assert refused.value.reason == "NO_SUBJECT"


def test_a_row_without_a_subject_is_refused_and_a_subject_with_two_rows_where_each_has_one_is_an_error():
    frame = pl.DataFrame({"id": ["a", "b", None, " a "], "w": [1.0] * 4, "y": Y})
    shared = plan({"concept": "weight"}, columns=[WEIGHT], subject=Subject(column="id"))
    data = shared.execute(frame, max_refused_fraction=0.5)
    assert data.subjects.tolist() == [0, 1, 0]
    assert data.report.refused_by == {"SUBJECT_MISSING": 1}
    with pytest.raises(MatchRefusal) as refused:
        plan({"concept": "weight"}, columns=[WEIGHT], subject=Subject(column="id", unique=True)).check(frame)
    assert (refused.value.reason, refused.value.got) == ("SUBJECT_TWICE", "more")


def test_without_a_subject_column_no_numbers_are_made_up():
    assert (
        plan({"concept": "weight"}, columns=[WEIGHT]).execute(pl.DataFrame({"w": [1.0], "y": ["1"]})).subjects is None
    )
