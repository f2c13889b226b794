"""Statements by subject and predicate: how concepts and shapes are read out of a graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, KeysView, Sequence

import pyoxigraph as ox

Node = ox.NamedNode | ox.BlankNode
Term = ox.NamedNode | ox.BlankNode | ox.Literal

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDF_TYPE = RDF + "type"
SUBCLASS = "http://www.w3.org/2000/01/rdf-schema#subClassOf"
SKOS = "http://www.w3.org/2004/02/skos/core#"
XSD = "http://www.w3.org/2001/XMLSchema#"


class Statements:
    """A graph, looked up by subject, or by what points at a node."""

    def __init__(self, quads: Iterable[ox.Quad]) -> None:
        self._about: dict[Node, dict[str, list[Term]]] = {}
        self._of_type: defaultdict[Term, dict[Node, None]] = defaultdict(dict)
        self._subclasses: defaultdict[Term, list[ox.NamedNode]] = defaultdict(list)
        self._instances: dict[str, KeysView[Node]] = {}
        for quad in quads:
            subject, object_ = quad.subject, quad.object
            if isinstance(subject, ox.Triple) or isinstance(object_, ox.Triple):
                continue  # refused while parsing; here for the type checker
            predicate = quad.predicate.value
            self._about.setdefault(subject, {}).setdefault(predicate, []).append(object_)
            if predicate == RDF_TYPE:
                self._of_type[object_][subject] = None
            elif predicate == SUBCLASS and isinstance(subject, ox.NamedNode):
                self._subclasses[object_].append(subject)

    def objects(self, subject: Node, predicate: str) -> Sequence[Term]:
        """What the subject's statements with that predicate say."""
        return self._about.get(subject, {}).get(predicate, ())

    def predicates(self, subject: Node) -> Iterator[str]:
        """The predicates of a subject's statements."""
        yield from self._about.get(subject, {})

    def subjects(self) -> Iterator[Node]:
        """Everything that something is said about."""
        yield from self._about

    def of_type(self, iri: str) -> KeysView[Node]:
        """The subjects of that rdf:type, in their order; looking one up is immediate."""
        return self._of_type.get(ox.NamedNode(iri), {}).keys()

    def instances(self, iri: str) -> KeysView[Node]:
        """The subjects whose rdf:type is that class or one below it (SHACL, section 2.1.3.2); found once a class."""
        if iri not in self._instances:
            kinds = {ox.NamedNode(iri): None}
            frontier = list(kinds)
            while frontier:
                for kind in self._subclasses.get(frontier.pop(), ()):
                    if kind not in kinds:
                        kinds[kind] = None
                        frontier.append(kind)
            self._instances[iri] = dict.fromkeys(node for kind in kinds for node in self.of_type(kind.value)).keys()
        return self._instances[iri]

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
