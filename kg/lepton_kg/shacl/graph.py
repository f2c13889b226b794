"""Node shapes against a graph: which nodes break which constraint, in words that people can act on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyoxigraph as ox

from lepton_kg.shacl.shapes import (
    NODE_KINDS,
    SH,
    Constraint,
    NodeShape,
    PropertyShape,
    is_well_typed,
    number_of,
)
from lepton_kg.statements import Node, Statements, Term


@dataclass(frozen=True)
class Violation:
    """One value, or one absence, that a shape forbids."""

    #: The node it is about.
    focus: str
    path: str
    constraint: Constraint
    #: The value; None where it is about how many there are.
    value: Term | None = None
    message: str = ""

    def __str__(self) -> str:
        """One line: what is wrong with which node's property, and what was expected."""
        got = "" if self.value is None else f", got {str(self.value)[:200]}"
        return f"{self.focus}: {self.message or _local(self.path)} (expected {self.constraint}{got})"


def check_graph(shapes: Sequence[NodeShape], graph: Statements) -> tuple[Violation, ...]:
    """Every violation, sorted by node and property; none means that the graph conforms."""
    found: list[Violation] = []
    for shape in shapes:
        for focus in _focus_nodes(shape, graph):
            for property_shape in shape.properties:
                found += _check_property(property_shape, focus, graph)
    return tuple(sorted(found, key=lambda one: (one.focus, one.path, str(one.constraint), str(one.value))))


def _focus_nodes(shape: NodeShape, graph: Statements) -> tuple[Node, ...]:
    """Section 2.1.3."""
    nodes: dict[Node, None] = {}
    for kind, iri in shape.targets:
        if kind == "targetNode":
            nodes[ox.NamedNode(iri)] = None
        elif kind == "targetClass":
            nodes.update(dict.fromkeys(graph.instances(iri)))
        else:
            for subject, value in graph.with_predicate(iri):
                node = subject if kind == "targetSubjectsOf" else value
                if not isinstance(node, ox.Literal):
                    nodes[node] = None
    return tuple(nodes)


def _check_property(shape: PropertyShape, focus: Node, graph: Statements) -> Iterator[Violation]:
    values = list(dict.fromkeys(graph.objects(focus, shape.path)))
    name = focus.value if isinstance(focus, ox.NamedNode) else str(focus)
    for constraint in shape.constraints:
        for value in _violating(constraint, values, focus, graph):
            yield Violation(name, shape.path, constraint, value, shape.message)


def _violating(constraint: Constraint, values: list[Term], focus: Node, graph: Statements) -> Iterator[Term | None]:
    """Each value that violates, or None once where the constraint is about all of them."""
    limit = constraint.value
    if constraint.name == "minCount" and isinstance(limit, int):
        yield from [None] if len(values) < limit else []
    elif constraint.name == "maxCount" and isinstance(limit, int):
        yield from [None] if len(values) > limit else []
    elif constraint.name == "uniqueLang":
        languages = [value.language.lower() for value in values if isinstance(value, ox.Literal) and value.language]
        yield from [None for language in dict.fromkeys(languages) if languages.count(language) > 1]
    elif constraint.name in {"lessThan", "lessThanOrEquals"} and isinstance(limit, ox.NamedNode):
        for value in values:
            for other in graph.objects(focus, limit.value):
                if not _is_below(value, other, or_equal=constraint.name.endswith("Equals")):
                    yield value
    else:
        yield from (value for value in values if not _is_allowed(constraint, value, graph))


def _is_allowed(constraint: Constraint, value: Term, graph: Statements) -> bool:
    name, limit = constraint.name, constraint.value
    if isinstance(limit, ox.NamedNode):
        if name == "datatype":
            return isinstance(value, ox.Literal) and value.datatype == limit and is_well_typed(value)
        if name == "nodeKind":
            return isinstance(value, NODE_KINDS[limit.value.removeprefix(SH)])
        return not isinstance(value, ox.Literal) and value in graph.instances(limit.value)
    if isinstance(limit, tuple):
        return value in limit
    if isinstance(limit, ox.Literal):
        number, bound = number_of(value), number_of(limit)
        return number is not None and bound is not None and _COMPARE[name](number, bound)
    if isinstance(value, ox.BlankNode):
        return False
    if isinstance(limit, int):
        return len(value.value) >= limit if name == "minLength" else len(value.value) <= limit
    return isinstance(limit, str) and _matches(value.value, limit)


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "minInclusive": lambda number, bound: number >= bound,
    "maxInclusive": lambda number, bound: number <= bound,
    "minExclusive": lambda number, bound: number > bound,
    "maxExclusive": lambda number, bound: number < bound,
}


def _is_below(value: Term, other: Term, *, or_equal: bool) -> bool:
    number, bound = number_of(value), number_of(other)
    if number is None or bound is None:
        return False
    return number <= bound if or_equal else number < bound


def _matches(text: str, pattern: str) -> bool:
    """By the triple store's engine, whose time is linear in the text whatever the pattern."""
    found = ox.Store().query(f"ASK {{ FILTER(REGEX({ox.Literal(text)}, {ox.Literal(pattern)})) }}")
    return bool(found)


def _local(iri: str) -> str:
    return re.split(r"[/#]", iri)[-1] or iri
