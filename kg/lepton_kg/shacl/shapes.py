"""Node shapes as data, read from a graph: the subset of SHACL Core that graphs and tables are checked against.

A constraint that is not in the subset is refused, since leaving it out would pass what its author meant to stop.
Source: SHACL, W3C Recommendation 2017, sections 2 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pyoxigraph as ox

from lepton_kg.statements import XSD, Node, Statements, Term

SH = "http://www.w3.org/ns/shacl#"

#: Datatypes whose values are numbers.
NUMERIC = frozenset(XSD + name for name in ("decimal", "double", "float", "integer"))
#: Longest pattern that is compiled.
_MAX_PATTERN = 300
_COUNTS = ("minCount", "maxCount", "minLength", "maxLength")
_BOUNDS = ("minInclusive", "maxInclusive", "minExclusive", "maxExclusive")
_IRIS = ("datatype", "nodeKind", "class", "lessThan", "lessThanOrEquals")
#: Local names of a property shape's constraint parameters.
CONSTRAINTS = (*_COUNTS, *_BOUNDS, *_IRIS, "in", "pattern", "uniqueLang")
#: What a property shape may say besides.
_TALK = ("path", "message", "name", "description", "order", "severity", "flags", "deactivated")
_TARGETS = ("targetClass", "targetNode", "targetSubjectsOf", "targetObjectsOf")
_NODE_TALK = ("property", "message", "name", "description", "severity", "deactivated")


@dataclass(frozen=True)
class Constraint:
    """One parameter of a property shape, such as minInclusive 3."""

    #: One of `CONSTRAINTS`.
    name: str
    #: int for counts and lengths; Literal for bounds; IRI for datatype, nodeKind, class, lessThan; terms for `in`;
    #: the expression for a pattern; None for uniqueLang.
    value: int | str | Term | tuple[Term, ...] | None

    @property
    def component(self) -> str:
        """IRI of the constraint component that a report names, section 4."""
        return f"{SH}{self.name[0].upper()}{self.name[1:]}ConstraintComponent"

    def __str__(self) -> str:
        """The parameter as the shape writes it."""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return f"{self.name} {', '.join(_shown(value) for value in values)}".rstrip()


@dataclass(frozen=True)
class PropertyShape:
    """What must hold for the values of one property."""

    #: The property's IRI; for tables, the concept's.
    path: str
    constraints: tuple[Constraint, ...]
    message: str = ""

    def value_of(self, name: str) -> int | str | Term | tuple[Term, ...] | None:
        """The constraint's parameter, if the shape has it."""
        return next((found.value for found in self.constraints if found.name == name), None)


@dataclass(frozen=True)
class NodeShape:
    """What must hold for the nodes, or the rows, of a kind."""

    iri: str
    properties: tuple[PropertyShape, ...]
    #: (local name of the target predicate, IRI) of what it is for, section 2.1.3.
    targets: tuple[tuple[str, str], ...] = field(default=())


def read_shapes(graph: Statements, problems: list[str]) -> tuple[NodeShape, ...]:
    """The node shapes in the graph, by IRI; what is not of the subset is told in `problems`."""
    shapes = []
    for node in graph.of_type(SH + "NodeShape"):
        if not isinstance(node, ox.NamedNode):
            problems.append("a sh:NodeShape without an IRI")
        elif not _is_deactivated(graph, node):
            shapes.append(_node_shape(graph, node, problems))
    return tuple(sorted(shapes, key=lambda shape: shape.iri))


def _node_shape(graph: Statements, node: ox.NamedNode, problems: list[str]) -> NodeShape:
    _refuse_unknown(graph, node, (*_TARGETS, *_NODE_TALK), problems)
    targets = []
    for name in _TARGETS:
        for target in graph.objects(node, SH + name):
            if isinstance(target, ox.NamedNode):
                targets.append((name, target.value))
            else:
                problems.append(f"{node.value}: sh:{name} must name an IRI")
    properties = []
    for shape in graph.objects(node, SH + "property"):
        if isinstance(shape, ox.Literal):
            problems.append(f"{node.value}: sh:property must name a shape")
        elif not _is_deactivated(graph, shape):
            found = _property_shape(graph, node.value, shape, problems)
            properties += [found] if found is not None else []
    return NodeShape(node.value, tuple(sorted(properties, key=_order)), tuple(sorted(targets)))


def _property_shape(graph: Statements, owner: str, node: Node, problems: list[str]) -> PropertyShape | None:
    paths = graph.objects(node, SH + "path")
    if len(paths) != 1 or not isinstance(paths[0], ox.NamedNode):
        problems.append(f"{owner}: a property shape needs one sh:path, an IRI; other paths are not supported")
        return None
    where = f"{owner}, {paths[0].value}"
    _refuse_unknown(graph, node, (*CONSTRAINTS, *_TALK), problems, where)
    constraints = []
    for name in CONSTRAINTS:
        values = graph.objects(node, SH + name)
        if len(values) > 1 and name != "class":
            problems.append(f"{where}: sh:{name} more than once")
        for value in values:
            try:
                constraints.append(_constraint(graph, node, name, value))
            except ValueError as error:
                problems.append(f"{where}: sh:{name}: {error}")
    messages = [text.value for text in graph.objects(node, SH + "message") if isinstance(text, ox.Literal)]
    kept = [found for found in constraints if found.name != "uniqueLang" or found.value is None]
    return PropertyShape(paths[0].value, tuple(kept), min(messages, default=""))


def _constraint(graph: Statements, node: Node, name: str, value: Term) -> Constraint:
    if name in _COUNTS:
        if not isinstance(value, ox.Literal) or not re.fullmatch(r"[0-9]{1,9}", value.value):
            raise ValueError("not a whole number of at least 0")
        return Constraint(name, int(value.value))
    if name in _BOUNDS:
        if not isinstance(value, ox.Literal) or number_of(value) is None:
            raise ValueError("not a number; other values are not compared")
        return Constraint(name, value)
    if name in _IRIS:
        if not isinstance(value, ox.NamedNode):
            raise ValueError("not an IRI")
        if name == "nodeKind" and value.value.removeprefix(SH) not in NODE_KINDS:
            raise ValueError(f"expected one of {', '.join('sh:' + kind for kind in NODE_KINDS)}")
        return Constraint(name, value)
    if name == "in":
        members = graph.items(value)
        if not members:
            raise ValueError("not a list of values")
        return Constraint(name, members)
    if name == "uniqueLang":
        return Constraint(name, None if _text_of(value) in {"true", "1"} else "off")
    if graph.objects(node, SH + "flags"):
        raise ValueError("sh:flags are not supported")
    return Constraint(name, _checked_pattern(_text_of(value)))


def _text_of(value: Term) -> str:
    if isinstance(value, ox.Literal):
        return value.value
    raise ValueError("not a literal")


def _checked_pattern(pattern: str) -> str:
    """The pattern, if every engine reads it alike: no groups that look around or back."""
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"longer than {_MAX_PATTERN} characters")
    if re.search(r"\(\?|\\[1-9kpPcCiI]|[*+?}][*+{]", pattern):
        raise ValueError("groups with ?, back references, classes such as \\p and repeated repeats are not supported")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error.msg})") from None
    return pattern


#: Kinds of node -> the classes of terms they allow, section 4.1.3.
NODE_KINDS: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "IRI": (ox.NamedNode,),
        "BlankNode": (ox.BlankNode,),
        "Literal": (ox.Literal,),
        "BlankNodeOrIRI": (ox.BlankNode, ox.NamedNode),
        "BlankNodeOrLiteral": (ox.BlankNode, ox.Literal),
        "IRIOrLiteral": (ox.NamedNode, ox.Literal),
    }
)


def number_of(term: Term) -> float | None:
    """The number a literal stands for; None for anything else, and for ill-typed ones."""
    if not isinstance(term, ox.Literal) or not is_well_typed(term) or term.datatype.value not in NUMERIC:
        return None
    return float(term.value.replace("INF", "inf"))


_LEXICAL: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        XSD + "integer": re.compile(r"[+-]?[0-9]+"),
        XSD + "decimal": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)"),
        XSD + "double": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?INF|NaN"),
        XSD + "float": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?INF|NaN"),
        XSD + "boolean": re.compile(r"true|false|0|1"),
        XSD + "date": re.compile(r"-?[0-9]{4,}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(Z|[+-][0-9]{2}:[0-9]{2})?"),
    }
)


def lexical_pattern(datatype: str) -> str | None:
    """The regular expression of a datatype's texts, as XML Schema 1.1 part 2 gives it; None where any will do."""
    found = _LEXICAL.get(datatype)
    return None if found is None else found.pattern


def is_well_typed(literal: ox.Literal) -> bool:
    """True if the literal's text is one of its datatype."""
    pattern = _LEXICAL.get(literal.datatype.value)
    return pattern is None or pattern.fullmatch(literal.value) is not None


def _refuse_unknown(
    graph: Statements, node: Node, known: Iterable[str], problems: list[str], where: str | None = None
) -> None:
    for predicate in graph.predicates(node):
        name = predicate.removeprefix(SH)
        if predicate.startswith(SH) and name not in known:
            problems.append(f"{where or str(node)}: sh:{name} is not in the subset of SHACL; see docs/ontology.md")


def _is_deactivated(graph: Statements, node: Node) -> bool:
    return any(term.value in {"true", "1"} for term in graph.objects(node, SH + "deactivated"))


def _order(shape: PropertyShape) -> tuple[str, str]:
    return shape.path, "; ".join(str(constraint) for constraint in shape.constraints)


def _shown(value: object) -> str:
    return "" if value is None else str(getattr(value, "value", value))
