"""A mapping against an ontology version, without the owner's data: every word that means nothing, all at once."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from lepton_core.errors import OntologyError, UnitError
from lepton_kg.approval import line_of
from lepton_kg.mapping import Column, Mapping
from lepton_kg.ontology import Concept, Ontology


@dataclass(frozen=True)
class MappingProblem:
    """One thing about one column that cannot be so."""

    #: Empty where it is about the whole mapping.
    column: str
    #: ONTOLOGY_MISMATCH, UNKNOWN_CONCEPT, NOT_OBSERVABLE, UNIT_MISMATCH or UNKNOWN_VALUE.
    reason: str
    message: str
    expected: str = ""
    got: str = ""
    hint: str = ""
    #: The code that it is about; empty where it is about none.
    code: str = ""

    @property
    def place(self) -> str:
        """Column and code, as an error's `where`."""
        column = f"column {self.column!r}" if self.column else ""
        return f"{column}, code {self.code!r}" if self.code else column


def check_mapping(mapping: Mapping, ontology: Ontology) -> tuple[MappingProblem, ...]:
    """Every problem, in the order of the columns; none means that the mapping makes sense in this version."""
    problems = []
    if mapping.ontology != ontology.digest:
        problems.append(
            MappingProblem(
                "",
                "ONTOLOGY_MISMATCH",
                "the mapping is for another ontology version",
                expected=ontology.digest,
                got=mapping.ontology,
                hint="approve it again for this version",
            )
        )
    for column in mapping.columns:
        try:
            concept = ontology.concept(mapping.iri(column.concept))
        except OntologyError as error:
            problems.append(
                MappingProblem(column.column, "UNKNOWN_CONCEPT", error.message, got=error.got, hint=error.hint)
            )
            continue
        problems += _check_column(column, concept, mapping, ontology)
    return tuple(problems)


def _check_column(column: Column, concept: Concept, mapping: Mapping, ontology: Ontology) -> list[MappingProblem]:
    if not concept.is_observable:
        return [
            MappingProblem(
                column.column,
                "NOT_OBSERVABLE",
                "a concept that no column can hold",
                expected="a concept with a datatype or a value set",
                got=concept.iri,
                hint="name one of its narrower concepts",
            )
        ]
    if concept.value_set or column.codes:
        return _check_codes(column, concept, mapping, ontology)
    if not concept.is_numeric or concept.unit is None:
        return []
    if column.unit is None and column.conversion is None:
        return [
            MappingProblem(
                column.column,
                "UNIT_MISMATCH",
                "a measured column without its unit",
                expected=f"a unit that converts to {concept.unit}",
                hint="say in which unit the source writes it",
            )
        ]
    try:
        line_of(column, concept)
    except UnitError as error:
        return [
            MappingProblem(
                column.column,
                "UNIT_MISMATCH",
                error.message,
                expected=error.expected or concept.unit,
                got=error.got or column.unit or "",
                hint=error.hint or "correct the unit in the mapping",
            )
        ]
    return []


def _check_codes(column: Column, concept: Concept, mapping: Mapping, ontology: Ontology) -> list[MappingProblem]:
    """A code means a value of the set, or one below it, which a task rolls up."""
    known = [value.iri for value in concept.value_set]
    expected = ", ".join(known)[:1_000] or "no codes: the concept has no value set"
    problems = []
    if known and not column.codes:
        problems.append(
            MappingProblem(
                column.column,
                "UNKNOWN_VALUE",
                "a coded column without codes",
                expected=expected,
                hint="say which of the source's codes means which value",
            )
        )
    for raw, name in column.codes.items():
        iri = mapping.iri(name)
        if not {iri, *ontology.ancestors(iri)}.isdisjoint(known):
            continue
        close = difflib.get_close_matches(iri, known, n=1, cutoff=0.0)
        problems.append(
            MappingProblem(
                column.column,
                "UNKNOWN_VALUE",
                "a code for a value that is not in the concept's value set, nor below one that is",
                expected=expected,
                got=iri[:300],
                hint=f"did you mean {close[0]}?" if close else "leave the codes out",
                code=raw,
            )
        )
    return problems
