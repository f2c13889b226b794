"""An ontology version: concepts with their units, public ranges and value sets, addressed by the hash of their meaning.

Read from SKOS (labels, broader, collections as value sets), Lepton's own few terms and node shapes, see
docs/ontology.md. Statements of other vocabularies are kept, hashed and left alone.
"""

from __future__ import annotations

import difflib
import hmac
import unicodedata
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lepton_core.errors import OntologyError
from lepton_core.ids import Digest, digest_of
from lepton_kg.concept import MISSING_MEANINGS, NUMERIC_DATATYPES, Concept, Value
from lepton_kg.concept_reader import LEPTON, TERMS, examine, read_concepts
from lepton_kg.rdf import canonicalize, parse_quads, require_size
from lepton_kg.shacl.shapes import NodeShape
from lepton_kg.statements import Statements

__all__ = [
    "LEPTON",
    "MISSING_MEANINGS",
    "NUMERIC_DATATYPES",
    "TERMS",
    "Concept",
    "Ontology",
    "Value",
    "check_ontology",
    "fold",
    "load_canonical",
    "parse_ontology",
]


@dataclass(frozen=True)
class Ontology:
    """One immutable version; equal digests mean equal statements."""

    #: SHA-256 of `canonical`.
    digest: Digest
    #: RDFC-1.0 canonical N-Quads, sorted.
    canonical: bytes = field(repr=False)
    #: By IRI.
    concepts: Mapping[str, Concept] = field(repr=False)
    #: Node shapes that the document brings along, by IRI.
    shapes: tuple[NodeShape, ...] = field(default=(), repr=False)

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
        return _reach(iri, self._broader)

    def descendants(self, iri: str) -> Mapping[str, int]:
        """Every narrower concept in the closure with its distance in steps; without the concept itself."""
        return _reach(iri, self._narrower)

    def resolve(self, text: str) -> tuple[Concept, ...]:
        """The concepts of that IRI, code (skos:notation), label or synonym in any language, by IRI.

        Codes and IRIs count as they are written, labels whatever their case, width and spaces.
        """
        found = {*self._codes.get(text, ()), *self._names.get(fold(text), ())}
        return tuple(self.concepts[iri] for iri in sorted(found))

    @cached_property
    def _broader(self) -> Mapping[str, Sequence[str]]:
        return {iri: concept.broader for iri, concept in self.concepts.items()}

    @cached_property
    def _narrower(self) -> Mapping[str, Sequence[str]]:
        narrower: defaultdict[str, list[str]] = defaultdict(list)
        for iri, concept in self.concepts.items():
            for broader in concept.broader:
                narrower[broader].append(iri)
        return narrower

    @cached_property
    def _codes(self) -> Mapping[str, Sequence[str]]:
        codes: defaultdict[str, list[str]] = defaultdict(list)
        for iri, concept in self.concepts.items():
            for code in (iri, *concept.notations):
                codes[code].append(iri)
        return codes

    @cached_property
    def _names(self) -> Mapping[str, Sequence[str]]:
        names: defaultdict[str, list[str]] = defaultdict(list)
        for iri, concept in self.concepts.items():
            for name in (*concept.labels.values(), *concept.synonyms):
                names[fold(name)].append(iri)
        return names


def parse_ontology(data: bytes, *, format: str, source: str) -> Ontology:
    """The ontology in the document; `format` is one of `rdf.FORMATS` or "obo", `source` names it in errors.

    The digest is the same for the same statements in any syntax, order and blank-node naming.

    Raises:
        OntologyError: not parseable (with line and column), or concepts that contradict themselves (all told at once).
    """
    quads = parse_quads(data, format=format, source=source)
    canonical = canonicalize(quads, source=source)
    require_size(len(canonical), f"{source}, as canonical N-Quads")
    concepts, shapes = read_concepts(quads, source)
    return Ontology(digest_of(canonical), canonical, concepts, shapes)


def check_ontology(data: bytes, *, format: str, source: str) -> tuple[str, ...]:
    """Every problem of a document that parses, one line each; none means that it can be published.

    Raises:
        OntologyError: it does not parse, or has blank nodes that cannot be named canonically.
    """
    quads = parse_quads(data, format=format, source=source)
    canonicalize(quads, source=source)
    _, _, problems = examine(Statements(quads))
    return tuple(problems)


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
    concepts, shapes = read_concepts(quads, source)
    return Ontology(digest, nquads, concepts, shapes)


def fold(text: str) -> str:
    """The text as labels are compared: whatever the case, the width of letters, and the spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _reach(iri: str, edges: Mapping[str, Sequence[str]]) -> Mapping[str, int]:
    """Breadth first: everything reachable with its distance, without the start."""
    distances = {iri: 0}
    frontier = deque([iri])
    while frontier:
        near = frontier.popleft()
        for name in edges.get(near, ()):
            if name not in distances:
                distances[name] = distances[near] + 1
                frontier.append(name)
    del distances[iri]
    return distances
