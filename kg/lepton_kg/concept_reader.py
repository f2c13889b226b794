"""Concepts and shapes out of an ontology's statements, and everything that is wrong with them at once.

What SHACL can say stands in `shacl/ontology.ttl`; what it cannot (units, cycles, what excludes what) stands here.
"""

from __future__ import annotations

import difflib
import graphlib
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

import pyoxigraph as ox

from lepton_core.errors import LeptonError, OntologyError, UnitError
from lepton_kg.concept import Concept, Value
from lepton_kg.shacl.graph import check_graph
from lepton_kg.shacl.shapes import NodeShape, is_well_typed, read_shapes
from lepton_kg.statements import SKOS, Statements, Term
from lepton_kg.units import parse_unit

#: Namespace of Lepton's own terms.
LEPTON = "https://w3id.org/lepton/kg#"
#: Local names of Lepton's own terms on a concept; all but missingCode once at most.
TERMS = (
    "datatype",
    "unit",
    "quantityKind",
    "plausibleMinimum",
    "plausibleMaximum",
    "valueSet",
    "molarMass",
    "missingMeaning",
    "missingCode",
)
#: Signs that have the text after them shown backwards; a person approves what is shown.
_OVERRIDES = frozenset("\u202d\u202e")
#: Most problems that one error tells.
_SHOWN_PROBLEMS = 10


def read_concepts(quads: Iterable[ox.Quad], source: str) -> tuple[Mapping[str, Concept], tuple[NodeShape, ...]]:
    """The concepts by IRI, and the document's node shapes.

    Raises:
        OntologyError: concepts that contradict themselves or the shapes; `got` tells the first problems.
    """
    graph = Statements(quads)
    concepts, shapes, problems = examine(graph)
    if problems:
        shown = "; ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        raise OntologyError(
            f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the ontology",
            where=source,
            expected="what docs/ontology.md says that a concept may carry",
            got=shown + (f"; and {more} more" if more > 0 else ""),
            hint="`lepton ontology check` shows every problem without publishing",
            reason="INVALID",
        )
    return MappingProxyType(concepts), shapes


def examine(graph: Statements) -> tuple[dict[str, Concept], tuple[NodeShape, ...], list[str]]:
    """Concepts, shapes, and every problem, a line each, starting with the IRI it is about."""
    problems: list[str] = []
    shapes = read_shapes(graph, problems)
    problems += [str(violation) for violation in check_graph((*_own_shapes(), *shapes), graph)]
    reader = _Reader(graph, problems)
    iris = sorted(node.value for node in graph.of_type(SKOS + "Concept") if isinstance(node, ox.NamedNode))
    concepts = {iri: reader.concept(iri) for iri in iris}
    if not concepts:
        problems.append("no skos:Concept in it")
    problems += _cycles(concepts)
    return concepts, shapes, list(dict.fromkeys(problems))


@cache
def _own_shapes() -> tuple[NodeShape, ...]:
    """The shapes that every ontology has to meet."""
    text = resources.files("lepton_kg.shacl").joinpath("ontology.ttl").read_bytes()
    problems: list[str] = []
    shapes = read_shapes(Statements(ox.parse(text, ox.RdfFormat.TURTLE)), problems)
    if problems:
        raise OntologyError("the shapes that ship with Lepton are broken", got="; ".join(problems))
    return shapes


def _is_plain(text: str) -> bool:
    """True if what is shown is what is there: no escape moves the cursor of a terminal, no override reverses text."""
    return not any(unicodedata.category(sign) == "Cc" or sign in _OVERRIDES for sign in text)


def _cycles(concepts: Mapping[str, Concept]) -> list[str]:
    known = {iri: [name for name in concept.broader if name in concepts] for iri, concept in concepts.items()}
    try:
        graphlib.TopologicalSorter(known).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1][::-1]
        way = " -> ".join(cycle[:6]) + (" -> ..." if len(cycle) > 6 else "")
        return [f"{cycle[0]}: broader than itself: {way}"]
    return []


class _Reader:
    """Statements as concepts; what is wrong with them is added to `problems`."""

    def __init__(self, graph: Statements, problems: list[str]) -> None:
        self._graph = graph
        self._problems = problems
        #: By IRI of the narrower concept: skos:narrower says the same as skos:broader, the other way round.
        self._broader: defaultdict[str, set[str]] = defaultdict(set)
        for subject, value in graph.with_predicate(SKOS + "narrower"):
            if isinstance(subject, ox.NamedNode) and isinstance(value, ox.NamedNode):
                self._broader[value.value].add(subject.value)

    def concept(self, iri: str) -> Concept:
        for predicate in self._graph.predicates(ox.NamedNode(iri)):
            if predicate.startswith(LEPTON) and predicate.removeprefix(LEPTON) not in TERMS:
                close = difflib.get_close_matches(predicate.removeprefix(LEPTON), TERMS, n=1, cutoff=0.0)
                self._problems.append(f"{iri}: unknown term {predicate}; did you mean {close[0]}?")
        unit = self._text(iri, LEPTON + "unit")
        kind = self._text(iri, LEPTON + "quantityKind")
        if unit is not None:
            try:
                kind = kind or parse_unit(unit).kind
            except UnitError as error:
                self._problem(iri, "unit", error)
        broader = {*self._iris(iri, SKOS + "broader"), *self._broader.get(iri, ())}
        concept = Concept(
            iri=iri,
            labels=self._labels(iri),
            synonyms=self._synonyms(iri),
            datatype=self._text(iri, LEPTON + "datatype"),
            unit=unit,
            quantity_kind=kind,
            plausible_minimum=self._number(iri, LEPTON + "plausibleMinimum"),
            plausible_maximum=self._number(iri, LEPTON + "plausibleMaximum"),
            value_set=self._value_set(iri),
            broader=tuple(sorted(broader)),
            molar_mass_g_per_mol=self._number(iri, LEPTON + "molarMass"),
            notations=self._texts(iri, SKOS + "notation"),
            missing_meaning=self._text(iri, LEPTON + "missingMeaning"),
            missing_codes=self._texts(iri, LEPTON + "missingCode"),
        )
        self._check(concept)
        return concept

    def _check(self, concept: Concept) -> None:
        low, high = concept.plausible_minimum, concept.plausible_maximum
        if (low is None) != (high is None):
            self._problems.append(f"{concept.iri}: plausibleMinimum and plausibleMaximum go together")
        if low is not None and not concept.is_numeric:
            self._problems.append(f"{concept.iri}: a plausible range without a numeric datatype")
        if concept.is_numeric and concept.unit is None:
            self._problems.append(f'{concept.iri}: numeric, but without unit (dimensionless: "1")')
        if concept.value_set and (concept.is_numeric or concept.unit is not None):
            self._problems.append(f"{concept.iri}: both coded (valueSet) and measured")

    def _value_set(self, iri: str) -> tuple[Value, ...]:
        collections = self._iris(iri, LEPTON + "valueSet")
        if not collections:
            return ()
        values = []
        for member in sorted(set(self._iris(collections[0], SKOS + "member"))):
            labels = self._labels(member)
            if not labels:
                self._problems.append(f"{iri}: value {member} has no skos:prefLabel")
            values.append(Value(member, self._text(member, SKOS + "notation"), labels, self._synonyms(member)))
        notations = [value.notation for value in values if value.notation is not None]
        if len(notations) != len(set(notations)):
            self._problems.append(f"{iri}: two values with one skos:notation")
        return tuple(sorted(values, key=lambda value: (value.notation or "", value.iri)))

    def _labels(self, iri: str) -> Mapping[str, str]:
        labels: dict[str, str] = {}
        for term in self._objects(iri, SKOS + "prefLabel"):
            if isinstance(term, ox.Literal):
                if not term.language and "" in labels:
                    self._problems.append(f"{iri}: two skos:prefLabel without language")
                labels[term.language or ""] = term.value
                if not _is_plain(term.value):
                    self._problems.append(f"{iri}: a skos:prefLabel with control characters or reversed writing")
        return MappingProxyType(dict(sorted(labels.items())))

    def _synonyms(self, iri: str) -> tuple[str, ...]:
        return tuple(sorted({*self._texts(iri, SKOS + "altLabel"), *self._texts(iri, SKOS + "hiddenLabel")}))

    def _objects(self, iri: str, predicate: str) -> Iterable[Term]:
        return self._graph.objects(ox.NamedNode(iri), predicate)

    def _texts(self, iri: str, predicate: str) -> tuple[str, ...]:
        return tuple(sorted({term.value for term in self._objects(iri, predicate) if isinstance(term, ox.Literal)}))

    def _iris(self, iri: str, predicate: str) -> list[str]:
        return [term.value for term in self._objects(iri, predicate) if isinstance(term, ox.NamedNode)]

    def _text(self, iri: str, predicate: str) -> str | None:
        terms = [term for term in self._objects(iri, predicate) if not isinstance(term, ox.BlankNode)]
        if len(terms) > 1 and predicate == SKOS + "notation":
            self._problems.append(f"{iri}: a value with more than one skos:notation")
        return min(term.value for term in terms) if terms else None

    def _number(self, iri: str, predicate: str) -> float | None:
        terms = list(self._objects(iri, predicate))
        if not terms:
            return None
        try:
            number = float(terms[0].value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or not isinstance(terms[0], ox.Literal) or not is_well_typed(terms[0]):
            self._problems.append(f"{iri}: {predicate} is not a finite number")
            return None
        return number + 0.0  # -0.0 has no canonical form.

    def _problem(self, iri: str, term: str, error: LeptonError) -> None:
        self._problems.append(f"{iri}: {term}: {error.message} ({error.got})")
