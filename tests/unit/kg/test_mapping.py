import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import MappingError, SettingsError
from lepton_kg.approval import approve, require_current
from lepton_kg.mapping import (
    Column,
    CsvOptions,
    Mapping,
    Source,
    dump_mapping,
    fingerprint,
    parse_mapping,
)

DIGEST = "a" * 64
TEXT = f"""
format: 1
ontology: {DIGEST}
vocabulary: https://example.org/t/
source: {{kind: csv, path: data.csv, csv: {{delimiter: ';', decimal: ','}}}}
columns:
  - column: gluc
    concept: glucose
    unit: mg/dL
    missing: [-9, NA, '']
    score: 0.9
  - column: sex
    concept: sex
    codes: {{NO: male, 007: female}}
"""
SCHEMA = {"gluc": "text", "sex": "text", "other": "text"}
DAY = dt.date(2025, 3, 1)


def test_plain_scalars_stay_text():
    mapping = parse_mapping(TEXT, source="m.yaml")
    assert mapping.columns[0].missing == ("-9", "NA", "")
    assert mapping.columns[1].codes == {"NO": "male", "007": "female"}
    assert mapping.columns[0].score == 0.9
    assert mapping.source.decimal == ","


@pytest.mark.parametrize("nothing", ["", " ~", " null"])
def test_an_empty_or_null_scalar_is_nothing(nothing):
    mapping = parse_mapping(TEXT.replace("unit: mg/dL", f"unit:{nothing}"), source="m.yaml")
    assert mapping.columns[0].unit is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (TEXT + "format: 1\n", "line 15"),
        (TEXT.replace("score: 0.9", "unit: g/L"), "line 11"),
        (TEXT.replace("column: gluc", "column: &x gluc").replace("column: sex", "column: *x"), "line 12"),
        (TEXT.replace("column: gluc", "column: !!python/name:os.system gluc"), "line 7"),
        (TEXT.replace("column: gluc", "? [a]\n    : b"), "line 7"),
        (TEXT + "columns: [", "line 15"),
        ("x: " + "[" * 50 + "]" * 50, "line 1"),
    ],
)
def test_yaml_that_is_not_strict_is_refused_with_its_line(text, line):
    with pytest.raises(MappingError) as refused:
        parse_mapping(text, source="m.yaml")
    assert line in refused.value.where


@pytest.mark.parametrize("text", ["", "- a", "text", "\x00"])
def test_a_document_without_keys_is_refused(text):
    with pytest.raises(MappingError):
        parse_mapping(text, source="m.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("column: gluc", "colum: gluc"), "did you mean 'column'"),
        (("concept: sex", "concept: https://example.org/t/glucose"), "concepts mapped twice"),
        (("column: sex", "column: gluc"), "columns mapped twice"),
        ((DIGEST, "abc"), "ontology: String should match"),
        (("kind: csv", "kind: sqlite"), "table is needed"),
        (("decimal: ','", "decimal: ';'"), "csv.decimal"),
        (("delimiter: ';'", "delimiter: ','"), "the same"),
        (("score: 0.9", "score: 1.9"), "score"),
        (("score: 0.9", "status: approved"), "needs approver and date"),
        (("score: 0.9", "codes: {a: b}"), "a unit or codes"),
        (("codes:", "missing: [NO]\n    codes:"), "also missing"),
        (("format: 1", "format: 2"), "format"),
        (("unit: mg/dL", "predicate: similar"), "predicate"),
    ],
)
def test_a_key_or_value_a_mapping_must_not_have_is_refused_by_name(change, said):
    assert change[0] in TEXT
    with pytest.raises(SettingsError) as refused:
        parse_mapping(TEXT.replace(*change), source="m.yaml")
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


def test_a_mapping_this_large_is_refused():
    with pytest.raises(MappingError, match="this large"):
        parse_mapping(TEXT + "#" * (4 * 2**20), source="m.yaml")


#: What `str.isprintable` is true of.
PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
CELL = st.text(PRINTABLE, max_size=12)
NAME = CELL.filter(bool)


@given(
    st.lists(
        st.builds(
            Column,
            column=NAME,
            concept=NAME,
            codes=st.dictionaries(CELL, NAME, max_size=3),
            justification=CELL,
            score=st.none() | st.floats(min_value=0, max_value=1),
            predicate=st.sampled_from(["exact", "broad", "narrow", "close"]),
        ),
        min_size=1,
        max_size=4,
        unique_by=(lambda column: column.column, lambda column: column.concept),
    ),
    st.sampled_from(
        [
            Source(kind="parquet", path="a.parquet"),
            Source(kind="sqlite", path="a.db", table="t"),
            Source(kind="csv", path="a.csv", csv=CsvOptions(delimiter="\t", encoding="cp1252", decimal=",")),
        ]
    ),
)
def test_what_is_dumped_is_read_back_equal(columns, source):
    mapping = Mapping(ontology=DIGEST, source=source, columns=tuple(columns))
    assert parse_mapping(dump_mapping(mapping), source="dump") == mapping


def test_approval_records_who_when_and_for_which_columns():
    approved = approve(parse_mapping(TEXT, source="m"), approver="Dr. Ada", date=DAY, schema=SCHEMA)
    assert {(column.status, column.approver, column.date) for column in approved.columns} == {
        ("approved", "Dr. Ada", DAY)
    }
    assert approved.schema_fingerprint == fingerprint(SCHEMA)
    assert parse_mapping(dump_mapping(approved), source="m") == approved
    require_current(approved, DIGEST, dict(reversed(SCHEMA.items())))


def test_a_mapping_of_a_column_the_source_lacks_is_not_approved():
    with pytest.raises(MappingError) as refused:
        approve(parse_mapping(TEXT, source="m"), approver="Dr. Ada", date=DAY, schema={"sex": "text"})
    assert refused.value.got == "gluc"


def test_a_subject_is_a_column_of_the_source_and_is_read_back():
    text = TEXT + "subject: {column: patient, missing: ['?'], unique: 'true'}\n"
    with pytest.raises(MappingError) as refused:
        approve(parse_mapping(text, source="m"), approver="Dr. Ada", date=DAY, schema=SCHEMA)
    assert refused.value.got == "patient"
    approved = approve(
        parse_mapping(text, source="m"), approver="Dr. Ada", date=DAY, schema={**SCHEMA, "patient": "text"}
    )
    assert (approved.subject.column, approved.subject.unique) == ("patient", True)
    assert parse_mapping(dump_mapping(approved), source="m") == approved


def test_a_changed_source_ends_the_approval_with_the_difference():
    approved = approve(parse_mapping(TEXT, source="m"), approver="Dr. Ada", date=DAY, schema=SCHEMA)
    with pytest.raises(MappingError) as refused:
        require_current(approved, DIGEST, {"gluc": "int64", "sexe": "text", "other": "text"})
    assert refused.value.reason == "SCHEMA_CHANGED"
    assert refused.value.got == "'sex' is gone (renamed to 'sexe'?); 'sexe' is new; 'gluc' was text, is int64"


def test_another_ontology_version_ends_the_approval():
    approved = approve(parse_mapping(TEXT, source="m"), approver="Dr. Ada", date=DAY, schema=SCHEMA)
    with pytest.raises(MappingError) as refused:
        require_current(approved, "b" * 64, SCHEMA)
    assert (refused.value.reason, refused.value.expected) == ("ONTOLOGY_MISMATCH", "b" * 64)


def test_a_mapping_that_was_never_approved_is_not_current():
    with pytest.raises(MappingError) as refused:
        require_current(parse_mapping(TEXT, source="m"), DIGEST, SCHEMA)
    assert refused.value.reason == "UNAPPROVED_MAPPING"


def test_an_edited_fingerprint_is_refused():
    approved = dump_mapping(approve(parse_mapping(TEXT, source="m"), approver="A", date=DAY, schema=SCHEMA))
    with pytest.raises(SettingsError, match="schema_fingerprint"):
        parse_mapping(approved.replace("other: text", "other: int64"), source="m")
