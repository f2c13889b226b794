"""Statements by subject and predicate: how concepts and shapes are read out of a graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import pyoxigraph as ox

Node = ox.NamedNode | ox.BlankNode
Term = ox.NamedNode | ox.BlankNode | ox.Literal

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDF_TYPE = RDF + "type"
SKOS = "http://www.w3.org/2004/02/skos/core#"
XSD = "http://www.w3.org/2001/XMLSchema#"


class Statements:
    """A graph, looked up by subject, or by what points at a node."""

    def __init__(self, quads: Iterable[ox.Quad]) -> None:
        self._about: dict[Node, dict[str, list[Term]]] = {}
        self._subjects: defaultdict[str, defaultdict[Term, list[Node]]] = defaultdict(lambda: defaultdict(list))
        for quad in quads:
            subject, object_ = quad.subject, quad.object
            if isinstance(subject, ox.Triple) or isinstance(object_, ox.Triple):
                continue  # refused while parsing; here for the type checker
            predicate = quad.predicate.value
            self._about.setdefault(subject, {}).setdefault(predicate, []).append(object_)
            if predicate == RDF_TYPE:
                self._subjects[predicate][object_].append(subject)

    def objects(self, subject: Node, predicate: str) -> Sequence[Term]:
        """What the subject's statements with that predicate say."""
        return self._about.get(subject, {}).get(predicate, ())

    def predicates(self, subject: Node) -> Iterator[str]:
        """The predicates of a subject's statements."""
        yield from self._about.get(subject, {})

    def subjects(self) -> Iterator[Node]:
        """Everything that something is said about."""
        yield from self._about

    def of_type(self, iri: str) -> Sequence[Node]:
        """The subjects of that rdf:type."""
        return self._subjects[RDF_TYPE].get(ox.NamedNode(iri), ())

    def with_predicate(self, predicate: str) -> Iterator[tuple[Node, Term]]:
        """Subject and object of every statement with that predicate."""
        for subject, about in self._about.items():
            for object_ in about.get(predicate, ()):
                yield subject, object_

    def items(self, head: Term) -> tuple[Term, ...] | None:
        """The members of an RDF list; None if it is none, or has no end."""
        members: list[Term] = []
        seen: set[Term] = set()
        while head != ox.NamedNode(RDF + "nil"):
            if isinstance(head, ox.Literal) or head in seen:
                return None
            seen.add(head)
            first, rest = self.objects(head, RDF + "first"), self.objects(head, RDF + "rest")
            if len(first) != 1 or len(rest) != 1:
                return None
            members.append(first[0])
            head = rest[0]
        return tuple(members)
