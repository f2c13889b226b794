"""Which of an owner's columns gives a concept, and by which line: the concept's own, or a narrower one's rolled up."""

from __future__ import annotations

from lepton_core.errors import MatchRefusal, UnitError
from lepton_core.task import ANY_DISTANCE
from lepton_kg.approval import line_of
from lepton_kg.mapping import Column, Mapping
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.units import conversion


def find_column(iri: str, mapping: Mapping, ontology: Ontology, *, roll_up: int = ANY_DISTANCE) -> tuple[Column, int]:
    """The one approved column that gives the concept, and how many steps it is rolled up; 0 is exact.

    A column of the concept itself is preferred; else the nearest narrower concept's, at most `roll_up` steps below.

    Raises:
        MatchRefusal: MISSING_CONCEPT, UNAPPROVED_MAPPING, INEXACT_MAPPING or AMBIGUOUS_MAPPING; names the concept.
    """
    candidates: list[tuple[int, Column]] = []
    beyond = False
    for row in mapping.columns:
        mapped = mapping.iri(row.concept)
        steps = 0 if mapped == iri else ontology.ancestors(mapped).get(iri)
        if steps is None:
            continue
        # A match to a broader concept goes uphill as well: the column is of something narrower that has no name.
        distance = steps + (row.predicate == "broad")
        if distance <= roll_up:
            candidates.append((distance, row))
        beyond = beyond or distance > roll_up
    if not candidates and beyond:
        raise MatchRefusal(
            "the owner's column is of a narrower concept than the job takes",
            where=iri,
            expected=f"a concept at most {roll_up} steps below" if roll_up else "the concept itself",
            got="one further below",
            hint="the job allows more with roll_up",
            reason="INEXACT_MAPPING",
        )
    if not candidates:
        raise MatchRefusal(
            "the owner's data have no such concept",
            where=iri,
            hint="the owner maps and approves a column for it, or the job makes it optional",
            reason="MISSING_CONCEPT",
        )
    fitting = [(distance, row) for distance, row in candidates if row.predicate in {"exact", "broad"}]
    if not fitting:
        raise MatchRefusal(
            "the owner's column only comes near the concept",
            where=iri,
            expected="a match that is exact, or to a broader concept",
            got="narrow or close",
            reason="INEXACT_MAPPING",
        )
    approved = [(distance, row) for distance, row in fitting if row.status == "approved"]
    if not approved:
        raise MatchRefusal(
            "the owner has not approved the mapping of this concept",
            where=iri,
            hint="the owner runs `lepton mapping approve`",
            reason="UNAPPROVED_MAPPING",
        )
    nearest = min(distance for distance, _ in approved)
    rows = [row for distance, row in approved if distance == nearest]
    if len(rows) > 1:
        raise MatchRefusal(
            "more than one of the owner's columns gives this concept",
            where=iri,
            expected="one column, or one for the concept itself",
            got="several narrower concepts at the same distance",
            reason="AMBIGUOUS_MAPPING",
        )
    return rows[0], nearest


def find_line(row: Column, concept: Concept, unit: str, mapping: Mapping, ontology: Ontology) -> tuple[float, float]:
    """A and b of value in `unit` = raw * a + b, for a column that gives the concept.

    Raises:
        MatchRefusal: UNIT_MISMATCH.
    """
    if row.unit is None and row.conversion is None:
        raise MatchRefusal(
            "the owner's mapping gives no unit for a measured concept",
            where=concept.iri,
            expected=f'a unit of {concept.quantity_kind} ("1" if it has none)',
            got="none",
            reason="UNIT_MISMATCH",
        )
    mapped = ontology.concept(mapping.iri(row.concept))
    molar_mass = concept.molar_mass_g_per_mol or mapped.molar_mass_g_per_mol
    try:
        if row.unit is not None:
            if row.conversion is not None:
                line_of(row, mapped)
            found = conversion(row.unit, unit, molar_mass_g_per_mol=molar_mass)
            return found.a, found.b
        stored = row.conversion
        onward = conversion(mapped.unit or unit, unit, molar_mass_g_per_mol=molar_mass)
    except UnitError as error:
        raise MatchRefusal(
            "the owner's unit does not convert to the concept's",
            where=concept.iri,
            expected=error.expected,
            got=error.got,
            hint="the owner corrects the unit in the mapping",
            reason="UNIT_MISMATCH",
        ) from None
    if stored is None:
        return onward.a, onward.b
    return stored.a * onward.a, stored.b * onward.a + onward.b
