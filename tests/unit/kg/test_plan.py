import dataclasses
import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_core.errors import DataError, JobError, MatchRefusal
from lepton_core.task import Feature, Target, Task
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import Column, CsvOptions, Mapping, Source, Subject
from lepton_kg.ontology import parse_ontology
from lepton_kg.task import resolve_task
from tests.property.budget import examples

T = "https://example.org/t/"
ONTOLOGY = parse_ontology(
    b"""
@prefix : <https://example.org/t/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
:glucose a skos:Concept ; skos:prefLabel "glucose"@en ; lepton:datatype xsd:decimal ; lepton:unit "mmol/L" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 40 ; lepton:molarMass 180 .
:fasting a skos:Concept ; skos:prefLabel "fasting"@en ; skos:broader :glucose ; lepton:datatype xsd:decimal ;
    lepton:unit "mmol/L" .
:random a skos:Concept ; skos:prefLabel "random"@en ; skos:broader :glucose ; lepton:datatype xsd:decimal ;
    lepton:unit "mmol/L" .
:temperature a skos:Concept ; skos:prefLabel "temperature"@en ; lepton:datatype xsd:decimal ; lepton:unit "Cel" ;
    lepton:plausibleMinimum 30 ; lepton:plausibleMaximum 44 .
:outcome a skos:Concept ; skos:prefLabel "outcome"@en ; lepton:datatype xsd:string ; lepton:valueSet :outcomes .
:outcomes a skos:Collection ; skos:member :ill, :well .
:ill a skos:Concept ; skos:prefLabel "ill"@en .
:well a skos:Concept ; skos:prefLabel "well"@en .
:dying a skos:Concept ; skos:prefLabel "dying"@en ; skos:broader :ill .
:stage a skos:Concept ; skos:prefLabel "stage"@en ; lepton:datatype xsd:string ; lepton:valueSet :stages .
:stages a skos:Collection ; skos:member :early, :first, :late, :unstaged .
:early a skos:Concept ; skos:prefLabel "early"@en .
:first a skos:Concept ; skos:prefLabel "first"@en ; skos:broader :early .
:firsta a skos:Concept ; skos:prefLabel "first a"@en ; skos:broader :first .
:late a skos:Concept ; skos:prefLabel "late"@en .
:unstaged a skos:Concept ; skos:prefLabel "unstaged"@en .
""",
    format="turtle",
    source="test",
)
DONE = {"status": "approved", "approver": "A", "date": dt.date(2025, 1, 1)}
GLUCOSE = Column(column="g", concept="glucose", unit="mmol/L", missing=("-9", "NA"), **DONE)
TEMPERATURE = Column(column="t", concept="temperature", unit="[degF]", missing=("-9",), **DONE)
OUTCOME = Column(column="y", concept="outcome", codes={"1": "ill", "0": "well", "2": "dying"}, missing=("9",), **DONE)
TASK = Task(
    ontology=ONTOLOGY.digest,
    vocabulary=T,
    features=(Feature(concept="glucose"), Feature(concept="temperature", required=False)),
    target=Target(concept="outcome", positive="ill"),
)


def mapping(*columns, source=None, **changes):
    return Mapping(
        ontology=ONTOLOGY.digest,
        vocabulary=T,
        source=source or Source(kind="parquet", path="x"),
        columns=columns or (GLUCOSE, TEMPERATURE, OUTCOME),
    ).model_copy(update=changes)


def changed(column, **changes):
    return Column.model_validate({**column.model_dump(), **changes})


def refusal(*columns, task=TASK, **changes):
    with pytest.raises(MatchRefusal) as refused:
        compile_plan(task, mapping(*columns, **changes), ONTOLOGY)
    return refused.value


def test_rows_become_scaled_tensors_and_faulty_ones_are_counted_by_reason():
    frame = pl.DataFrame(
        {
            "g": [" 20 ", "0", "40.0", "NA", "-9.0", "41", "high", "10", "10", None, "1"],
            "t": [98.6, -9.0, float("nan"), 98.6, 98.6, 98.6, 98.6, 98.6, 98.6, 98.6, 2000.0],
            "y": [1, 0, 2, 1, 1, 1, 1, 9, 7, 0, 1],
        }
    )
    data = compile_plan(TASK, mapping(), ONTOLOGY).execute(frame, max_refused_fraction=1.0)
    np.testing.assert_allclose(data.features, [[0, 0], [-1, 0], [1, 0]], atol=1e-6)
    np.testing.assert_array_equal(data.target, [1, 0, 1])
    assert data.features.dtype == data.target.dtype == np.float32
    assert data.features.flags.c_contiguous
    assert data.report.rows_mapped == 3
    assert data.report.rows_refused == 8
    assert data.report.refused_by == {
        "TARGET_MISSING": 1,
        "UNKNOWN_CODE": 1,
        "NOT_A_NUMBER": 1,
        "OUT_OF_RANGE": 2,
        "MISSING_VALUE": 3,
    }
    assert data.report.missing_by_concept == {T + "temperature": 2}


STAGE = Column(
    column="s",
    concept="stage",
    codes={"I": "first", "Ia": "firsta", "E": "early", "L": "late", "U": "unstaged"},
    **DONE,
)


def staged(*classes):
    return TASK.model_copy(update={"target": Target(concept="stage", classes=classes)})


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("late", "early"), [1, 1, 1, 0]), (("early", "late", "first"), [2, 2, 0, 1]), (("first", "late"), [0, 0, 1])],
)
def test_classes_are_numbered_in_the_jobs_order_and_values_rolled_up_to_the_nearest(classes, expected):
    frame = pl.DataFrame({"g": [20.0] * 6, "t": [98.6] * 6, "s": ["I", "Ia", "E", "L", "U", "X"]})
    plan = compile_plan(staged(*classes), mapping(GLUCOSE, TEMPERATURE, STAGE), ONTOLOGY)
    data = plan.execute(frame, max_refused_fraction=1.0)
    assert data.target.tolist() == expected
    assert data.report.refused_by == {"UNKNOWN_CODE": 6 - len(expected)}


def test_a_value_outside_the_value_set_is_refused_for_several_classes_too():
    outside = changed(STAGE, codes={"E": "early", "?": "well"})
    refused = refusal(GLUCOSE, TEMPERATURE, outside, task=staged("early", "late"))
    assert (refused.reason, refused.where) == ("UNKNOWN_VALUE", T + "stage")


@settings(max_examples=examples(40, 1000))
@given(
    st.lists(
        st.tuples(
            # Thousandths: nothing lies within the rounding slack beyond the end of a range.
            st.one_of(st.none(), st.integers(-100_000, 100_000).map(lambda n: n / 1000), st.just(float("nan"))),
            st.one_of(st.none(), st.integers(0, 250_000).map(lambda n: n / 1000)),
            st.sampled_from(["1", "0", "2", "9", "x", "", None]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_row_is_mapped_or_counted_and_every_tensor_is_in_its_range(rows):
    frame = pl.DataFrame(rows, schema={"g": pl.Float64, "t": pl.Float64, "y": pl.String}, orient="row")
    plan = compile_plan(TASK, mapping(), ONTOLOGY)
    report = plan.check(frame)
    assert report.rows_mapped + report.rows_refused == len(rows)
    assert sum(report.refused_by.values()) == report.rows_refused
    good = [
        (g, t, y)
        for g, t, y in rows
        if y in {"0", "1", "2"} and g is not None and 0 <= g <= 40 and (t is None or 86.0 <= t <= 111.2)
    ]
    assert report.rows_mapped == len(good)
    if good:
        data = plan.execute(frame, max_refused_fraction=1.0)
        assert data.features.shape == (len(good), 2)
        assert np.all(np.abs(data.features) <= 1)
        np.testing.assert_allclose(data.features[:, 0], [g / 20 - 1 for g, _, _ in good], atol=1e-6)
        assert set(data.target.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.Float32, pl.String, pl.Int8, pl.Decimal(10, 2)])
def test_values_and_codes_are_read_alike_from_every_column_type(dtype):
    frame = pl.DataFrame({"g": [20, 40, -9], "t": [None, None, None], "y": [1, 0, 1]}).with_columns(
        pl.col("g", "y").cast(dtype), pl.col("t").cast(pl.Float64)
    )
    data = compile_plan(TASK, mapping(), ONTOLOGY).execute(frame.lazy(), max_refused_fraction=0.5)
    np.testing.assert_allclose(data.features[:, 0], [0, 1])
    assert data.target.tolist() == [1.0, 0.0]
    assert data.report.refused_by == {"MISSING_VALUE": 1}


def test_a_decimal_comma_is_read_and_a_dot_beside_it_is_no_number():
    source = Source(kind="csv", path="x", csv=CsvOptions(delimiter=";", decimal=","))
    frame = pl.DataFrame({"g": ["20,0", "-9,0", "1.000,5", "1.5"], "t": [None] * 4, "y": ["1", "1", "1", "0"]})
    report = compile_plan(TASK, mapping(source=source), ONTOLOGY).check(frame.cast({"t": pl.String}))
    assert report.rows_mapped == 1
    assert report.refused_by == {"MISSING_VALUE": 1, "NOT_A_NUMBER": 2}


def test_amounts_and_masses_convert_by_the_concepts_molar_mass():
    frame = pl.DataFrame({"g": [360.0], "t": [98.6], "y": ["1"]})
    plan = compile_plan(TASK, mapping(changed(GLUCOSE, unit="mg/dL"), TEMPERATURE, OUTCOME), ONTOLOGY)
    np.testing.assert_allclose(plan.execute(frame).features, [[0.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(("impute", "expected"), [("midpoint", 0.0), ("minimum", -1.0)])
def test_an_optional_concept_the_owner_lacks_is_imputed_by_the_public_rule(impute, expected):
    task = TASK.model_copy(
        update={"features": (TASK.features[0], Feature(concept="temperature", required=False, impute=impute))}
    )
    plan = compile_plan(task, mapping(GLUCOSE, OUTCOME), ONTOLOGY)
    data = plan.execute(pl.DataFrame({"g": [20.0, 0.0], "y": ["1", "0"]}))
    assert plan.columns == ("g", "y")
    assert data.features[:, 1].tolist() == [expected, expected]
    assert data.report.missing_by_concept == {T + "temperature": 2}


def test_a_narrower_concept_is_rolled_up_and_the_concept_itself_is_preferred():
    fasting = Column(column="f", concept="fasting", unit="mmol/L", **DONE)
    assert compile_plan(TASK, mapping(fasting, OUTCOME), ONTOLOGY).features[0].column == "f"
    assert compile_plan(TASK, mapping(fasting, GLUCOSE, OUTCOME), ONTOLOGY).features[0].column == "g"
    broader = TASK.model_copy(update={"features": (Feature(concept="fasting"),)})
    assert refusal(GLUCOSE, OUTCOME, task=broader).reason == "NO_PLAUSIBLE_RANGE"


def test_two_narrower_concepts_at_one_distance_are_ambiguous():
    both = [Column(column=name, concept=name, unit="mmol/L", **DONE) for name in ("fasting", "random")]
    assert refusal(*both, OUTCOME).reason == "AMBIGUOUS_MAPPING"


@pytest.mark.parametrize(
    ("columns", "reason", "where"),
    [
        ((TEMPERATURE, OUTCOME), "MISSING_CONCEPT", "glucose"),
        ((GLUCOSE,), "MISSING_CONCEPT", "outcome"),
        ((changed(GLUCOSE, status="proposed"), OUTCOME), "UNAPPROVED_MAPPING", "glucose"),
        ((changed(GLUCOSE, predicate="close"), OUTCOME), "INEXACT_MAPPING", "glucose"),
        ((changed(GLUCOSE, predicate="narrow"), OUTCOME), "INEXACT_MAPPING", "glucose"),
        ((changed(GLUCOSE, unit="mm"), OUTCOME), "UNIT_MISMATCH", "glucose"),
        ((changed(GLUCOSE, unit=None), OUTCOME), "UNIT_MISMATCH", "glucose"),
        ((GLUCOSE, changed(TEMPERATURE, unit="mm"), OUTCOME), "UNIT_MISMATCH", "temperature"),
        ((GLUCOSE, changed(OUTCOME, codes={"1": "sick"})), "UNKNOWN_VALUE", "outcome"),
        ((GLUCOSE, changed(OUTCOME, codes={})), "UNKNOWN_VALUE", "outcome"),
    ],
)
def test_a_mapping_that_cannot_serve_the_task_is_refused_by_reason_and_concept(columns, reason, where):
    refused = refusal(*columns)
    assert (refused.reason, refused.where) == (reason, T + where)


def test_another_ontology_version_is_refused_on_either_side():
    assert refusal(ontology="b" * 64).reason == "ONTOLOGY_MISMATCH"
    assert refusal(task=TASK.model_copy(update={"ontology": "b" * 64})).reason == "ONTOLOGY_MISMATCH"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": (Feature(concept="glucos"),)}, "UNKNOWN_CONCEPT"),
        ({"features": (Feature(concept="outcome"),)}, "NOT_NUMERIC"),
        ({"features": (Feature(concept="fasting"),)}, "NO_PLAUSIBLE_RANGE"),
        ({"features": (Feature(concept="glucose", unit="mm"),)}, "UNIT_MISMATCH"),
        ({"target": Target(concept="glucose", positive="ill")}, "NOT_CODED"),
        ({"target": Target(concept="outcome", positive="dying")}, "UNKNOWN_VALUE"),
        ({"target": Target(concept="stage", classes=("early", "well"))}, "UNKNOWN_VALUE"),
        ({"ontology": "b" * 64}, "ONTOLOGY_MISMATCH"),
    ],
)
def test_a_task_without_meaning_in_the_ontology_is_the_jobs_fault(change, reason):
    with pytest.raises(JobError) as refused:
        resolve_task(TASK.model_copy(update=change), ONTOLOGY)
    assert refused.value.reason == reason
    assert refusal(task=TASK.model_copy(update=change)).reason == reason


def test_too_many_refused_rows_are_a_violation_that_tells_no_number_and_no_value():
    frame = pl.DataFrame({"g": [20.0, 1234.5, 20.0, 20.0], "t": [98.6] * 4, "y": ["1"] * 4})
    plan = compile_plan(TASK, mapping(), ONTOLOGY)
    with pytest.raises(MatchRefusal) as refused:
        plan.execute(frame)
    assert refused.value.reason == "VIOLATIONS"
    told = str(refused.value.as_dict())
    assert "1234" not in told
    assert "25" not in told
    assert "'g'" not in told
    assert plan.execute(frame, max_refused_fraction=0.25).report.rows_mapped == 3


def test_a_source_without_usable_rows_is_refused():
    frame = pl.DataFrame(schema={"g": pl.Float64, "t": pl.Float64, "y": pl.String})
    with pytest.raises(MatchRefusal) as refused:
        compile_plan(TASK, mapping(), ONTOLOGY).execute(frame)
    assert refused.value.reason == "NO_ROWS"


def test_a_frame_without_a_column_of_the_plan_is_a_data_error():
    with pytest.raises(DataError) as refused:
        compile_plan(TASK, mapping(), ONTOLOGY).execute(pl.DataFrame({"g": [1.0]}))
    assert refused.value.expected == "t, y"


def of_subjects(frame, **subject):
    named = mapping(subject=Subject(column="p", **subject))
    return compile_plan(TASK, named, ONTOLOGY, subjects=True).execute(frame, max_refused_fraction=1.0)


def test_rows_of_one_id_get_one_number_and_rows_without_an_id_are_refused():
    frame = pl.DataFrame(
        {
            "g": [20.0] * 7 + [99.0],
            "t": [98.6] * 8,
            "y": ["1"] * 8,
            "p": ["b", " a", "b", "?", "", None, "a ", "c"],
        }
    )
    data = of_subjects(frame, missing=("?",))
    assert data.subjects.dtype == np.int64
    assert len(data.subjects) == len(data.target) == 4
    first, second, third, fourth = data.subjects.tolist()
    assert first == third != second == fourth
    assert data.report.refused_by == {"SUBJECT_MISSING": 3, "OUT_OF_RANGE": 1}


@pytest.mark.parametrize(
    "ids", [pl.Series([7, 8, 7, None]), pl.Series([7.0, 8.0, 7.0, None]), pl.Series(["7", "8", "7", None])]
)
def test_ids_of_any_type_are_the_same_subjects(ids):
    frame = pl.DataFrame({"g": [20.0] * 4, "t": [98.6] * 4, "y": ["1"] * 4, "p": ids})
    assert of_subjects(frame).subjects.tolist() == [0, 1, 0]


def test_a_second_row_of_a_subject_is_refused_where_there_must_be_one():
    frame = pl.DataFrame({"g": [20.0] * 3, "t": [98.6] * 3, "y": ["1"] * 3, "p": ["Erika", None, None]})
    assert of_subjects(frame, unique=True).subjects.tolist() == [0]  # nobody's rows are not one person's
    twice = frame.with_columns(p=pl.Series(["Erika", "Max", "Erika"]), g=pl.Series([20.0, 20.0, 99.0]))
    with pytest.raises(MatchRefusal) as refused:
        of_subjects(twice, unique=True)  # though the second row has no use
    assert refused.value.reason == "SUBJECT_TWICE"
    assert "Erika" not in str(refused.value)
    assert of_subjects(twice).subjects.tolist() == [0, 1]


def test_a_mapping_that_names_no_subject_cannot_serve_a_job_for_subjects_and_no_id_is_read_for_others():
    with pytest.raises(MatchRefusal) as refused:
        compile_plan(TASK, mapping(), ONTOLOGY, subjects=True)
    assert refused.value.reason == "MISSING_SUBJECT"
    named = mapping(subject=Subject(column="p"))
    assert compile_plan(TASK, named, ONTOLOGY).columns == ("g", "t", "y")
    assert compile_plan(TASK, named, ONTOLOGY, subjects=True).columns == ("g", "p", "t", "y")


def test_the_digest_is_stable_and_changes_with_everything_that_changes_a_tensor():
    plan = compile_plan(TASK, mapping(), ONTOLOGY)
    assert plan.digest() == compile_plan(TASK, mapping(OUTCOME, TEMPERATURE, GLUCOSE), ONTOLOGY).digest()
    others = [
        mapping(changed(GLUCOSE, unit="umol/L"), TEMPERATURE, OUTCOME),
        mapping(changed(GLUCOSE, missing=("-8",)), TEMPERATURE, OUTCOME),
        mapping(GLUCOSE, OUTCOME),
        mapping(GLUCOSE, TEMPERATURE, changed(OUTCOME, codes={"1": "well", "0": "ill"})),
    ]
    assert len({plan.digest(), *(compile_plan(TASK, other, ONTOLOGY).digest() for other in others)}) == 5
    assert dataclasses.replace(plan, features=plan.features[::-1]).digest() != plan.digest()
