"""A concept: what a column can mean, with everything that makes two columns mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_kg.shacl.shapes import NUMERIC

#: Datatypes whose values are numbers; a concept with one of these can be a feature.
NUMERIC_DATATYPES = NUMERIC
#: What an empty cell can mean: nobody looked, it cannot be, it was looked for and is not there, or nobody knows which.
MISSING_MEANINGS = ("not-measured", "not-applicable", "absent", "unknown")


@dataclass(frozen=True)
class Value:
    """One member of a value set."""

    iri: str
    #: Short code (skos:notation), unique in its value set; None if the ontology gives none.
    notation: str | None
    #: Preferred label by language tag; "" for a label without one.
    labels: Mapping[str, str]
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Concept:
    """What a column can mean."""

    iri: str
    #: Preferred label by language tag; "" for a label without one.
    labels: Mapping[str, str]
    #: Alternative and hidden labels in any language, sorted.
    synonyms: tuple[str, ...] = ()
    #: IRI of the XSD datatype; None for a concept that only groups others, or is a value.
    datatype: str | None = None
    #: Canonical UCUM unit of numeric values.
    unit: str | None = None
    #: Kind of quantity, as the ontology names it or else as the unit implies it.
    quantity_kind: str | None = None
    #: Public range outside which a value is not believed, in the canonical unit.
    plausible_minimum: float | None = None
    plausible_maximum: float | None = None
    #: Permitted values of a coded concept, by notation and IRI; empty for others.
    value_set: tuple[Value, ...] = ()
    #: IRIs of the directly broader concepts, sorted.
    broader: tuple[str, ...] = ()
    #: Gram a mole, where masses and amounts of it convert.
    molar_mass_g_per_mol: float | None = None
    #: Codes that name the concept itself (skos:notation), sorted.
    notations: tuple[str, ...] = ()
    #: What a missing value means, one of `MISSING_MEANINGS`; None if the ontology does not say.
    missing_meaning: str | None = None
    #: Raw codes that sources are known to write for "no value", sorted; advice for mappings, never applied by itself.
    missing_codes: tuple[str, ...] = ()

    @property
    def is_numeric(self) -> bool:
        """True if its values are numbers."""
        return self.datatype in NUMERIC_DATATYPES

    @property
    def is_observable(self) -> bool:
        """True if a column can hold it; False for groupings and values."""
        return self.datatype is not None or bool(self.value_set)

    @property
    def label(self) -> str:
        """One label for people: English, else unmarked, else the first language."""
        return self.labels.get("en") or self.labels.get("") or next(iter(self.labels.values()), self.iri)
