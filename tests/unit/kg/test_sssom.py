"""The concept level of a mapping goes out as SSSOM TSV and comes back the same; nothing that comes in is approved."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import MappingError, SettingsError
from lepton_kg.mapping import Column, Mapping, Source
from lepton_kg.sssom import from_sssom, to_sssom
from tests.unit.kg.test_plan import DONE, ONTOLOGY, T

LIKE = Mapping(
    ontology=ONTOLOGY.digest,
    vocabulary=T,
    source=Source(kind="parquet", path="x"),
    columns=(
        Column(column="g", concept="glucose", unit="mg/dL", missing=("-9",), score=0.25, justification="a\tb", **DONE),
        Column(column="y", concept="outcome", codes={"1": "ill"}, predicate="broad"),
    ),
)
#: Quotes, tabs and all that some program takes for the end of a line among it.
TEXT = st.text(
    st.sampled_from("\"'\t\r\n\v\f\x1c\x85\u2028#=,; ab") | st.characters(exclude_categories=["Cs"]), max_size=12
)


def concept_level(mapping):
    return [(c.column, mapping.iri(c.concept), c.predicate, c.score, c.justification) for c in mapping.columns]


def test_what_goes_out_comes_back_with_units_codes_and_approvals():
    text = to_sssom(LIKE, ONTOLOGY)
    assert text.startswith("#curie_map:\n")
    assert f"#object_source_version: {ONTOLOGY.digest}\n" in text
    assert from_sssom(text, source="s", like=LIKE) == LIKE


@given(
    st.lists(
        st.builds(
            Column,
            column=TEXT.filter(bool),
            concept=st.integers(0, 99).map(lambda number: f"{T}c{number}"),
            justification=TEXT,
            score=st.none() | st.sampled_from([0.0, 0.5, 0.125, 1.0]),
            predicate=st.sampled_from(["exact", "broad", "narrow", "close"]),
        ),
        min_size=1,
        max_size=4,
        unique_by=(lambda column: column.column, lambda column: column.concept),
    )
)
def test_any_concept_level_makes_the_round_trip_into_an_empty_mapping(columns):
    whole = LIKE.model_copy(update={"columns": tuple(columns)})
    assert concept_level(from_sssom(to_sssom(whole, ONTOLOGY), source="s", like=LIKE)) == concept_level(whole)


def test_a_column_whose_name_begins_like_a_header_line_is_no_header():
    (first, *rest) = LIKE.columns
    named = LIKE.model_copy(update={"columns": (first.model_copy(update={"column": "#\t: \x1f"}), *rest)})
    assert concept_level(from_sssom(to_sssom(named, ONTOLOGY), source="s", like=LIKE)) == concept_level(named)


def test_a_document_that_a_spreadsheet_has_saved_is_read_alike():
    text = to_sssom(LIKE, ONTOLOGY)
    assert from_sssom("\ufeff" + text.replace("\n", "\r\n"), source="s", like=LIKE) == LIKE


def test_a_foreign_document_with_curies_is_read_and_its_lines_are_proposals():
    text = (
        "#curie_map:\n#  t: https://example.org/t/\n#  c: 'urn:columns:'\n"
        "subject_id\tpredicate_id\tobject_id\tmapping_justification\tauthor_label\tmapping_date\n"
        "c:g\tskos:exactMatch\tt:temperature\tsemapv:ManualMappingCuration\tEve\t2025-01-01\n"
    )
    read = from_sssom(text, source="s", like=LIKE)
    (column,) = read.columns
    assert (column.column, column.concept, column.status, column.approver) == ("g", T + "temperature", "proposed", None)
    # The unit was that of another concept; what "no value" is called has not changed.
    assert (column.unit, column.missing) == (None, ("-9",))


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("predicate_id", "predikat", "line 7"),
        ("skos:exactMatch", "skos:related", "line 8"),
        (T + "glucose", "x:glucose", "line 8"),
        ("rdfs literal\tskos:broadMatch", "skos:broadMatch", "line 9"),
    ],
)
def test_a_document_that_is_not_sssom_is_refused_with_its_line(old, new, where):
    text = to_sssom(LIKE, ONTOLOGY)
    assert old in text
    with pytest.raises(MappingError) as refused:
        from_sssom(text.replace(old, new, 1), source="s.tsv", like=LIKE)
    assert refused.value.where == f"s.tsv, {where}"


def test_two_lines_for_one_concept_are_refused():
    text = to_sssom(LIKE, ONTOLOGY).replace(T + "outcome", T + "glucose")
    with pytest.raises(SettingsError, match="concepts mapped twice"):
        from_sssom(text, source="s.tsv", like=LIKE)


def test_a_tag_or_an_alias_in_the_header_is_refused():
    with pytest.raises(MappingError):
        from_sssom("#curie_map: !!python/name:os.system x\n" + to_sssom(LIKE, ONTOLOGY), source="s", like=LIKE)


def test_the_date_of_an_approval_is_written_as_the_standard_has_it():
    assert f"\t{dt.date(2025, 1, 1).isoformat()}\t" in to_sssom(LIKE, ONTOLOGY)
