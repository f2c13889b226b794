"""Concepts that are computed from others: a closed list of named formulas, which an ontology names and never writes.

In the ontology, in a namespace of its own, so that only plans read it:

    :bmi derive:formula "body-mass-index" ; derive:mass :body-weight ; derive:height :body-height .

| formula | inputs | gives |
|---|---|---|
| `body-mass-index` | `mass` in kg, `height` in m | mass / height^2, in kg/m2 |
| `age` | `birth` and `at`, both dates | the days between over 365.25, in a |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from lepton_core.errors import JobError, LeptonError, OntologyError
from lepton_kg.ontology import Ontology
from lepton_kg.rdf import parse_quads
from lepton_kg.units import conversion

if TYPE_CHECKING:
    import polars as pl

#: Namespace of the terms that say how a concept is computed.
DERIVE = "https://w3id.org/lepton/derive#"
#: Datatype of an input that is a day.
DATE = "http://www.w3.org/2001/XMLSchema#date"
_DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Formula:
    """One way to compute a concept."""

    #: Term of each input -> the unit it is computed in; None for a date, which comes as days since 1970.
    inputs: Mapping[str, str | None]
    #: Unit of what it gives.
    unit: str
    #: The inputs' expressions, in the order of `inputs`, as one.
    compute: Callable[[Sequence[pl.Expr]], pl.Expr]


#: Every formula there is.
FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "body-mass-index": Formula({"mass": "kg", "height": "m"}, "kg/m2", lambda of: of[0] / (of[1] * of[1])),
        "age": Formula({"birth": None, "at": None}, "a", lambda of: (of[1] - of[0]) / _DAYS_A_YEAR),
    }
)


@dataclass(frozen=True)
class Derivation:
    """How an ontology says that a concept is computed."""

    formula: str
    #: IRIs of the inputs, in the order of the formula's.
    inputs: tuple[str, ...]


def check_formulas(ontology: Ontology) -> tuple[str, ...]:
    """Every concept whose formula is none, takes inputs that are none, or gives another unit; one line each."""
    predicate = b"> <" + DERIVE.encode()
    lines = (line for line in ontology.canonical.splitlines() if predicate in line)
    problems = []
    for iri in sorted({line.partition(b"> <")[0].removeprefix(b"<").decode() for line in lines}):
        try:
            derivation = derivation_of(iri, ontology)
            if derivation is not None:
                _require_sound(iri, derivation, ontology)
        except LeptonError as error:
            problems.append(f"{iri}: {error.message}; expected: {error.expected}; got: {error.got}")
    return tuple(problems)


def require_formulas(ontology: Ontology, source: str) -> None:
    """Refuse an ontology with a formula that no task could use; all of them are told at once.

    Raises:
        OntologyError: BAD_FORMULA.
    """
    problems = check_formulas(ontology)
    if problems:
        raise OntologyError(
            "formulas that nobody can compute",
            where=source,
            expected="formulas of the list in docs/ontology.md, over concepts whose units convert",
            got="; ".join(problems)[:2_000],
            hint="`lepton ontology check` tells all of them",
            reason="BAD_FORMULA",
        )


def _require_sound(iri: str, derivation: Derivation, ontology: Ontology) -> None:
    """Refuse inputs and units that no task could compute with."""
    formula, concept = FORMULAS[derivation.formula], ontology.concept(iri)
    conversion(formula.unit, concept.unit or "1")
    for name, wanted in zip(derivation.inputs, formula.inputs.values(), strict=True):
        given = ontology.concept(name)
        if wanted is not None:
            conversion(given.unit or "1", wanted, molar_mass_g_per_mol=given.molar_mass_g_per_mol)
        elif given.datatype != DATE:
            raise JobError(
                "a formula takes a day from a concept that is none",
                where=name,
                expected="datatype xsd:date",
                got=given.datatype or "none",
                reason="BAD_FORMULA",
            )


def derivation_of(iri: str, ontology: Ontology) -> Derivation | None:
    """How the concept is computed; None if the ontology does not say.

    Raises:
        JobError: BAD_FORMULA, if it says what is no formula of this list.
    """
    if DERIVE.encode() not in ontology.canonical:
        return None
    lines = b"\n".join(
        line
        for line in ontology.canonical.splitlines()
        if line.startswith(b"<" + iri.encode() + b"> <" + DERIVE.encode())
    )
    about: dict[str, list[str]] = {}
    for quad in parse_quads(lines + b"\n", format="nquads", source="ontology") if lines else ():
        about.setdefault(quad.predicate.value.removeprefix(DERIVE), []).append(getattr(quad.object, "value", ""))
    if not about:
        return None
    name = about.pop("formula", [""])
    formula = FORMULAS.get(name[0]) if len(name) == 1 else None
    if formula is None or set(about) != set(formula.inputs) or any(len(given) != 1 for given in about.values()):
        raise JobError(
            "a concept whose formula is none of those that are known",
            where=iri,
            expected="; ".join(f"{known} with {', '.join(one.inputs)}" for known, one in FORMULAS.items()),
            got=f"{', '.join(name) or 'no formula'} with {', '.join(sorted(about)) or 'nothing'}"[:300],
            hint="correct the derive: statements and publish the new version",
            reason="BAD_FORMULA",
        )
    return Derivation(name[0], tuple(about[term][0] for term in formula.inputs))
