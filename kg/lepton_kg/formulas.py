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

import polars as pl

from lepton_core.errors import JobError
from lepton_kg.ontology import Ontology
from lepton_kg.rdf import parse_quads

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
