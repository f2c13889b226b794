"""An ontology version: concepts with their units, public ranges and value sets, addressed by the hash of their meaning.

Read from SKOS (labels, broader, collections as value sets) and Lepton's own few terms, see `TERMS` and
docs/ontology.md. Statements of other vocabularies are kept, hashed and left alone.
"""

from __future__ import annotations

import difflib
import graphlib
import hmac
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pyoxigraph as ox

from lepton_core.errors import LeptonError, OntologyError, UnitError
from lepton_core.ids import Digest, digest_of
from lepton_kg.rdf import canonicalize, parse_quads
from lepton_kg.units import parse_unit

#: Namespace of Lepton's own terms.
LEPTON = "https://w3id.org/lepton/kg#"
#: Local names of Lepton's own terms: each takes a concept to a literal or an IRI, once at most.
TERMS = ("datatype", "unit", "quantityKind", "plausibleMinimum", "plausibleMaximum", "valueSet", "molarMass")

_RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_XSD = "http://www.w3.org/2001/XMLSchema#"
#: Datatypes whose values are numbers; a concept with one of these can be a feature.
NUMERIC_DATATYPES = frozenset(_XSD + name for name in ("decimal", "double", "float", "integer"))
#: Most problems that one error tells.
_SHOWN_PROBLEMS = 10

_Statements = Mapping[str, Mapping[str, list[ox.NamedNode | ox.BlankNode | ox.Literal]]]


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


@dataclass(frozen=True)
class Ontology:
    """One immutable version; equal digests mean equal statements."""

    #: SHA-256 of `canonical`.
    digest: Digest
    #: RDFC-1.0 canonical N-Quads, sorted.
    canonical: bytes = field(repr=False)
    #: By IRI.
    concepts: Mapping[str, Concept] = field(repr=False)

    def concept(self, iri: str) -> Concept:
        """The concept of that IRI.

        Raises:
            OntologyError: there is none; the hint names the closest one.
        """
        found = self.concepts.get(iri)
        if found is not None:
            return found
        close = difflib.get_close_matches(iri, self.concepts, n=1, cutoff=0.0)
        raise OntologyError(
            "no such concept in this ontology version",
            where=f"ontology {self.digest[:12]}",
            got=iri[:300],
            hint=f"did you mean {close[0]}?" if close else "the ontology has no concepts",
            reason="UNKNOWN_CONCEPT",
        )

    def ancestors(self, iri: str) -> Mapping[str, int]:
        """Every broader concept in the closure with its distance in steps; without the concept itself."""
        distances = {iri: 0}
        frontier = deque([iri] if iri in self.concepts else [])
        while frontier:
            near = frontier.popleft()
            for broader in self.concepts[near].broader:
                if broader not in distances:
                    distances[broader] = distances[near] + 1
                    frontier.append(broader)
        del distances[iri]
        return distances


def parse_ontology(data: bytes, *, format: str, source: str) -> Ontology:
    """The ontology in the document; `format` is one of `rdf.FORMATS`, `source` names it in errors.

    The digest is the same for the same statements in any syntax, order and blank-node naming.

    Raises:
        OntologyError: not parseable (with the line), or concepts that contradict themselves (all told at once).
    """
    quads = parse_quads(data, format=format, source=source)
    canonical = canonicalize(quads, source=source)
    return Ontology(digest_of(canonical), canonical, _read_concepts(quads, source))


def load_canonical(nquads: bytes, expected_digest: Digest, *, source: str = "ontology") -> Ontology:
    """The ontology in canonical bytes from somebody else, believed only if their hash is the expected one.

    Raises:
        OntologyError: another hash, or bytes that are no ontology.
    """
    digest = digest_of(nquads)
    if not hmac.compare_digest(digest, expected_digest):
        raise OntologyError(
            "an ontology with another hash than asked for",
            where=source,
            expected=expected_digest,
            got=digest,
            hint="fetch it again; do not use these bytes",
            reason="ONTOLOGY_MISMATCH",
        )
    quads = parse_quads(nquads, format="nquads", source=source)
    return Ontology(digest, nquads, _read_concepts(quads, source))


def _read_concepts(quads: Iterable[ox.Quad], source: str) -> Mapping[str, Concept]:
    statements: defaultdict[str, defaultdict[str, list[ox.NamedNode | ox.BlankNode | ox.Literal]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for quad in quads:
        if isinstance(quad.subject, ox.NamedNode) and not isinstance(quad.object, ox.Triple):
            statements[quad.subject.value][quad.predicate.value].append(quad.object)
    reader = _Reader(statements)
    kind = ox.NamedNode(_SKOS + "Concept")
    iris = sorted(iri for iri, about in statements.items() if kind in about.get(_RDF_TYPE, ()))
    concepts = {iri: reader.concept(iri) for iri in iris}
    problems = reader.problems
    if not concepts:
        problems.append("no skos:Concept in it")
    for iri, concept in concepts.items():
        problems.extend(f"{iri}: broader {name} is no concept here" for name in concept.broader if name not in concepts)
    if not problems:
        try:
            graphlib.TopologicalSorter({iri: concept.broader for iri, concept in concepts.items()}).prepare()
        except graphlib.CycleError as error:
            problems.append(f"{error.args[1][0]}: broader than itself")
    if problems:
        shown = "; ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        raise OntologyError(
            f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the ontology",
            where=source,
            got=shown + (f"; and {more} more" if more > 0 else ""),
            hint="see docs/ontology.md for what a concept may carry",
        )
    return MappingProxyType(concepts)


class _Reader:
    """Statements as concepts; what is wrong with them gathers in `problems`."""

    def __init__(self, statements: _Statements) -> None:
        self._statements = statements
        #: One line a fault, each starting with the concept's IRI.
        self.problems: list[str] = []

    def concept(self, iri: str) -> Concept:
        for predicate in self._statements[iri]:
            if predicate.startswith(LEPTON) and predicate.removeprefix(LEPTON) not in TERMS:
                close = difflib.get_close_matches(predicate.removeprefix(LEPTON), TERMS, n=1, cutoff=0.0)
                self.problems.append(f"{iri}: unknown term {predicate}; did you mean {close[0]}?")
        unit = self._text(iri, LEPTON + "unit")
        kind = self._text(iri, LEPTON + "quantityKind")
        if unit is not None:
            try:
                kind = kind or parse_unit(unit).kind
            except UnitError as error:
                self._problem(iri, "unit", error)
        labels = self._labels(iri)
        if not labels:
            self.problems.append(f"{iri}: no skos:prefLabel")
        concept = Concept(
            iri=iri,
            labels=labels,
            synonyms=self._synonyms(iri),
            datatype=self._text(iri, LEPTON + "datatype"),
            unit=unit,
            quantity_kind=kind,
            plausible_minimum=self._number(iri, LEPTON + "plausibleMinimum"),
            plausible_maximum=self._number(iri, LEPTON + "plausibleMaximum"),
            value_set=self._value_set(iri),
            broader=tuple(sorted(set(self._iris(iri, _SKOS + "broader")))),
            molar_mass_g_per_mol=self._number(iri, LEPTON + "molarMass"),
        )
        self._check(concept)
        return concept

    def _check(self, concept: Concept) -> None:
        low, high = concept.plausible_minimum, concept.plausible_maximum
        if (low is None) != (high is None):
            self.problems.append(f"{concept.iri}: plausibleMinimum and plausibleMaximum go together")
        if low is not None and high is not None and low >= high:
            self.problems.append(f"{concept.iri}: plausibleMinimum is not below plausibleMaximum")
        if low is not None and not concept.is_numeric:
            self.problems.append(f"{concept.iri}: a plausible range without a numeric datatype")
        if concept.is_numeric and concept.unit is None:
            self.problems.append(f'{concept.iri}: numeric, but without unit (dimensionless: "1")')
        if concept.value_set and (concept.is_numeric or concept.unit is not None):
            self.problems.append(f"{concept.iri}: both coded (valueSet) and measured")
        if concept.molar_mass_g_per_mol is not None and concept.molar_mass_g_per_mol <= 0:
            self.problems.append(f"{concept.iri}: molarMass is not positive")

    def _value_set(self, iri: str) -> tuple[Value, ...]:
        collections = self._iris(iri, LEPTON + "valueSet")
        if not collections:
            return ()
        if len(collections) > 1:
            self.problems.append(f"{iri}: more than one valueSet")
        values = []
        for member in sorted(set(self._iris(collections[0], _SKOS + "member"))):
            labels = self._labels(member)
            if not labels:
                self.problems.append(f"{iri}: value {member} has no skos:prefLabel")
            values.append(Value(member, self._text(member, _SKOS + "notation"), labels, self._synonyms(member)))
        if len(values) < 2:
            self.problems.append(f"{iri}: valueSet {collections[0]} has fewer than two skos:member")
        notations = [value.notation for value in values if value.notation is not None]
        if len(notations) != len(set(notations)):
            self.problems.append(f"{iri}: two values with one skos:notation")
        return tuple(sorted(values, key=lambda value: (value.notation or "", value.iri)))

    def _labels(self, iri: str) -> Mapping[str, str]:
        labels: dict[str, str] = {}
        for term in self._statements.get(iri, {}).get(_SKOS + "prefLabel", ()):
            if isinstance(term, ox.Literal):
                language = term.language or ""
                if language in labels:
                    self.problems.append(f"{iri}: two skos:prefLabel in language {language or 'none'!r}")
                labels[language] = term.value
        return MappingProxyType(dict(sorted(labels.items())))

    def _synonyms(self, iri: str) -> tuple[str, ...]:
        about = self._statements.get(iri, {})
        terms = [*about.get(_SKOS + "altLabel", ()), *about.get(_SKOS + "hiddenLabel", ())]
        return tuple(sorted({term.value for term in terms if isinstance(term, ox.Literal)}))

    def _iris(self, iri: str, predicate: str) -> list[str]:
        terms = self._statements.get(iri, {}).get(predicate, ())
        named = [term.value for term in terms if isinstance(term, ox.NamedNode)]
        if len(named) != len(terms):
            self.problems.append(f"{iri}: {predicate} must name an IRI")
        return named

    def _text(self, iri: str, predicate: str) -> str | None:
        terms = self._statements.get(iri, {}).get(predicate, ())
        if len(terms) > 1:
            self.problems.append(f"{iri}: {predicate} more than once")
        if not terms:
            return None
        term = terms[0]
        if isinstance(term, ox.BlankNode):
            self.problems.append(f"{iri}: {predicate} must be a literal or an IRI")
            return None
        return term.value

    def _number(self, iri: str, predicate: str) -> float | None:
        text = self._text(iri, predicate)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.problems.append(f"{iri}: {predicate} is not a finite number")
            return None
        return number + 0.0  # -0.0 has no canonical form.

    def _problem(self, iri: str, term: str, error: LeptonError) -> None:
        self.problems.append(f"{iri}: {term}: {error.message} ({error.got})")
