"""What an approval holds for, who signed it, and how its end is told."""

from __future__ import annotations

import datetime as dt

import pytest

from lepton_core.errors import IdentityError, MappingError, UnitError
from lepton_core.identity import IdentityKey
from lepton_core.ports import SystemRandomness
from lepton_kg.approval import approve, renew, require_current, require_signed
from lepton_kg.mapping import Column, Line, Mapping, Source, Subject, dump_mapping, parse_mapping
from lepton_kg.ontology import parse_ontology
from tests.unit.kg.test_plan import ONTOLOGY, T

KEY = IdentityKey.generate(SystemRandomness())
SCHEMA = {"g": "text", "t": "text", "y": "text", "pid": "text"}
PROPOSED = Mapping(
    ontology=ONTOLOGY.digest,
    vocabulary=T,
    source=Source(kind="csv", path="d.csv"),
    subject=Subject(column="pid"),
    columns=(
        Column(column="g", concept="glucose", unit="mg/dL"),
        Column(column="t", concept="temperature", conversion=Line(a=0.5, b=30.0)),
        Column(column="y", concept="outcome", codes={"1": "ill"}),
    ),
)
DAY = dt.date(2025, 3, 1)


def approved(mapping=PROPOSED, **changes):
    given = {"approver": "Ada", "date": DAY, "schema": SCHEMA, "ontology": ONTOLOGY, "key": KEY}
    return approve(mapping, **(given | changes))


def other_ontology(old, new):
    text = ONTOLOGY.canonical.decode()
    assert old in text
    return parse_ontology(text.replace(old, new).encode(), format="nquads", source="new")


def test_an_approval_stores_the_conversion_the_meanings_and_a_signature_that_survive_the_file():
    mapping = parse_mapping(dump_mapping(approved()), source="m")
    assert mapping == approved()
    assert mapping.columns[0].conversion == Line(a=10 / 180, b=0.0)
    assert mapping.columns[1].conversion == Line(a=0.5, b=30.0)
    assert mapping.meanings[T + "glucose"] == "glucose; decimal; in mmol/L; 0 to 40; 180 g/mol"
    require_signed(mapping, KEY.public)
    require_current(mapping, ONTOLOGY.digest, SCHEMA)


@pytest.mark.parametrize(("old", "new"), [("concept: glucose", "concept: random"), ("'1': ill", "'1': well")])
def test_a_word_changed_after_the_approval_breaks_the_signature(old, new):
    text = dump_mapping(approved())
    assert old in text
    with pytest.raises(IdentityError) as refused:
        require_signed(parse_mapping(text.replace(old, new), source="m"), KEY.public)
    assert refused.value.reason == "BAD_SIGNATURE"


def test_a_mapping_that_nobody_or_somebody_else_signed_is_told_apart_from_a_forged_one():
    for mapping in (approved(key=None), approved(key=IdentityKey.generate(SystemRandomness()))):
        with pytest.raises(MappingError) as refused:
            require_signed(mapping, KEY.public)
        assert refused.value.reason == "UNSIGNED_MAPPING"


def test_a_stored_conversion_must_be_the_units_own():
    wrong = PROPOSED.columns[0].model_copy(update={"conversion": Line(a=1.0)})
    with pytest.raises(UnitError) as refused:
        approved(PROPOSED.model_copy(update={"columns": (wrong,)}))
    assert refused.value.reason == "UNIT_MISMATCH"


def test_the_subjects_column_must_be_in_the_source():
    with pytest.raises(MappingError) as refused:
        approved(schema=dict.fromkeys("gty", "text"))
    assert (refused.value.reason, refused.value.got) == ("MISSING_COLUMN", "pid")


def test_nothing_changed_ends_nothing():
    assert renew(approved(), ONTOLOGY, SCHEMA) == renew(approved(), ONTOLOGY, dict(reversed(SCHEMA.items())))
    assert renew(approved(), ONTOLOGY, SCHEMA).mapping == approved()


def test_a_changed_column_ends_its_line_and_the_signature_and_leaves_the_others():
    renewed = renew(approved(), ONTOLOGY, {"glu": "text", "t": "text", "y": "text", "pid": "text"})
    assert renewed.differences == ("'g' is gone", "'glu' is new")
    assert renewed.unapproved == ("g",)
    assert [column.status for column in renewed.mapping.columns] == ["proposed", "approved", "approved"]
    assert renewed.mapping.signature is None
    with pytest.raises(MappingError) as refused:
        require_current(renewed.mapping, ONTOLOGY.digest, SCHEMA)
    assert refused.value.reason == "UNAPPROVED_MAPPING"


def test_a_concept_that_means_something_else_ends_its_line_with_both_meanings():
    new = other_ontology('"mmol/L"', '"mg/dL"')
    renewed = renew(approved(), new, SCHEMA)
    (difference,) = renewed.differences
    assert "in mmol/L" in difference
    assert "in mg/dL" in difference
    assert renewed.unapproved == ("g",)
    assert renewed.mapping.columns[0].conversion is None
    again = approved(renewed.mapping, ontology=new)
    assert again.columns[0].conversion == Line(a=1.0, b=0.0)


def test_a_version_that_changes_no_mapped_concept_keeps_the_lines_and_still_wants_a_signature():
    renewed = renew(approved(), other_ontology('"late"@en', '"very late"@en'), SCHEMA)
    assert renewed.unapproved == ()
    assert renewed.mapping.signature is None
    assert "no mapped concept has changed" in renewed.differences[0]


def test_a_concept_that_is_gone_is_told():
    text = "\n".join(line for line in ONTOLOGY.canonical.decode().splitlines() if T + "temperature" not in line)
    renewed = renew(approved(), parse_ontology(text.encode(), format="nquads", source="new"), SCHEMA)
    assert f"{T}temperature is gone" in renewed.differences
    assert renewed.unapproved == ("t",)
