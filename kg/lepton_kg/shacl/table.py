"""Node shapes as polars expressions: which rows of a table of mapped values break which constraint.

A row is a node, a column is a property named by its concept's IRI, and an empty cell is no value. A cell is the
literal that its shape's datatype makes of it: the number 7 is "7"^^xsd:decimal where the shape says xsd:decimal, and
the text "many" is then an ill-typed literal. `cell_term` is that reading, one cell at a time; the expressions give
the same violations as a SHACL processor on the rows' graph, which a test compares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyoxigraph as ox

from lepton_core.errors import InputError
from lepton_kg.ontology import Ontology
from lepton_kg.shacl.shapes import (
    NODE_KINDS,
    NUMERIC,
    SH,
    Constraint,
    NodeShape,
    PropertyShape,
    lexical_pattern,
    number_of,
)
from lepton_kg.statements import XSD, Term


@dataclass(frozen=True)
class CheckedConstraint:
    """One constraint on one column, as an expression."""

    path: str
    constraint: Constraint
    #: True in each row that violates it.
    violated: pl.Expr = field(repr=False)


@dataclass(frozen=True)
class TableCheck:
    """A node shape compiled for tables of one schema; pure, deterministic, without user code."""

    shape: NodeShape
    constraints: tuple[CheckedConstraint, ...]

    def run(self, table: pl.DataFrame) -> TableReport:
        """What the table violates. Never leaves the site: it names rows."""
        flags = table.select(check.violated.alias(str(index)) for index, check in enumerate(self.constraints))
        rows = tuple(tuple(flags.to_series(index).arg_true().to_list()) for index in range(flags.width))
        return TableReport(self.constraints, rows, table.height)


@dataclass(frozen=True)
class TableReport:
    """The rows that violate each constraint."""

    constraints: tuple[CheckedConstraint, ...]
    #: Row numbers from 0, a tuple for each constraint.
    rows: tuple[tuple[int, ...], ...] = field(repr=False)
    height: int

    @property
    def violations(self) -> int:
        """How many pairs of row and constraint there are."""
        return sum(len(rows) for rows in self.rows)

    @property
    def violating_rows(self) -> int:
        """How many rows violate anything."""
        return len(set().union(*self.rows))

    def __str__(self) -> str:
        """One line a constraint that is violated: how often, never by which values."""
        lines = [
            f"{check.path}: {len(rows)} of {self.height} rows violate {check.constraint}"
            for check, rows in zip(self.constraints, self.rows, strict=True)
            if rows
        ]
        return "\n".join(lines) or f"{self.height} rows conform"


def implied_shape(ontology: Ontology, concepts: Sequence[str], *, iri: str = "urn:lepton:implied-shape") -> NodeShape:
    """What the concepts themselves say of their values: at most one, in the plausible range, in the value set.

    Raises:
        OntologyError: no such concept.
    """
    properties = []
    for name in concepts:
        concept = ontology.concept(name)
        found = [Constraint("maxCount", 1)]
        if concept.datatype is not None and not concept.value_set:
            found.append(Constraint("datatype", ox.NamedNode(concept.datatype)))
        decimal = ox.NamedNode(XSD + "decimal")
        for bound, limit in (
            ("minInclusive", concept.plausible_minimum),
            ("maxInclusive", concept.plausible_maximum),
        ):
            if limit is not None:
                found.append(Constraint(bound, ox.Literal(f"{limit:f}", datatype=decimal)))
        if concept.value_set:
            found.append(Constraint("in", tuple(ox.NamedNode(value.iri) for value in concept.value_set)))
        properties.append(PropertyShape(name, tuple(found)))
    return NodeShape(iri, tuple(properties))


def compile_shape(shape: NodeShape, schema: Mapping[str, pl.DataType]) -> TableCheck:
    """The shape's constraints over columns named by concept IRIs; a column that is not there has no values.

    Raises:
        InputError: a column of a type that is no number, text, truth value or date, or a constraint on the text of
            what is no text.
    """
    for path, kind in schema.items():
        if not (kind.is_numeric() or kind in {pl.String, pl.Boolean, pl.Date, pl.Null}):
            raise InputError(
                "a column that constraints cannot be checked on",
                where=path,
                expected="numbers, text, truth values or dates",
                got=str(kind),
            )
    checks = []
    for property_shape in shape.properties:
        column = _Column(property_shape, schema)
        checks += [
            CheckedConstraint(property_shape.path, constraint, column.violated(constraint))
            for constraint in property_shape.constraints
        ]
    return TableCheck(shape, tuple(checks))


def cell_term(value: object, shape: PropertyShape) -> Term | None:
    """The RDF term that a cell stands for under its shape; None for an empty cell."""
    if value is None:
        return None
    if isinstance(value, str) and _holds_iris(shape):
        return ox.NamedNode(value)
    wanted = shape.value_of("datatype")
    datatype = wanted.value if isinstance(wanted, ox.NamedNode) else ""
    if isinstance(value, bool):
        return ox.Literal(value)
    if isinstance(value, (int, float)):
        whole = float(value).is_integer()
        if (datatype == XSD + "integer" and whole) or (not datatype and isinstance(value, int)):
            return ox.Literal(str(int(value)), datatype=ox.NamedNode(XSD + "integer"))
        if datatype in {XSD + "double", XSD + "float"} or not math.isfinite(value):
            text = str(float(value)).replace("inf", "INF").replace("nan", "NaN")
            return ox.Literal(text, datatype=ox.NamedNode(datatype or XSD + "double"))
        return ox.Literal(f"{value:.17f}" if isinstance(value, float) else str(value), datatype=_DECIMAL)
    if datatype in NUMERIC or not isinstance(value, str):
        return ox.Literal(str(value), datatype=ox.NamedNode(datatype if datatype in NUMERIC else XSD + "date"))
    return ox.Literal(value)


_DECIMAL = ox.NamedNode(XSD + "decimal")


def _holds_iris(shape: PropertyShape) -> bool:
    members, kind = shape.value_of("in"), shape.value_of("nodeKind")
    if isinstance(kind, ox.NamedNode) and kind.value == SH + "IRI":
        return True
    return isinstance(members, tuple) and any(isinstance(member, ox.NamedNode) for member in members)


class _Column:
    """One property's column, and the expressions that say which of its cells violate a constraint."""

    def __init__(self, shape: PropertyShape, schema: Mapping[str, pl.DataType]) -> None:
        self._schema = schema
        self._path = shape.path
        self._kind = schema.get(shape.path, pl.Null())
        there = shape.path in schema
        self._cell: pl.Expr = pl.col(shape.path) if there else pl.lit(None)
        self._is_text = self._kind == pl.String
        self._is_iri = self._is_text and _holds_iris(shape)
        wanted = shape.value_of("datatype")
        #: The datatype that cells take on.
        self._wanted = wanted.value if isinstance(wanted, ox.NamedNode) else ""
        self._there = there and self._kind != pl.Null

    def violated(self, constraint: Constraint) -> pl.Expr:
        """True where the row violates it; never null."""
        name, limit = constraint.name, constraint.value
        if isinstance(limit, int) and name in {"minCount", "maxCount"}:
            return self._count(name, limit)
        if not self._there or name == "uniqueLang":
            return _everywhere(value=False)
        return (self._cell.is_not_null() & self._bad(constraint)).fill_null(value=False)

    def _count(self, name: str, limit: int) -> pl.Expr:
        """A cell is one value, an empty one none."""
        if not self._there:
            return _everywhere(value=name == "minCount" and limit > 0)
        if name == "minCount":
            return self._cell.is_null() if limit == 1 else _everywhere(value=limit > 1)
        return self._cell.is_not_null() if limit == 0 else _everywhere(value=False)

    def _bad(self, constraint: Constraint) -> pl.Expr:
        """True where a cell that holds a value violates it."""
        name, limit = constraint.name, constraint.value
        if name == "datatype":
            return self._bad_datatype()
        if name == "nodeKind" and isinstance(limit, ox.NamedNode):
            kind = ox.NamedNode if self._is_iri else ox.Literal
            return pl.lit(value=kind not in NODE_KINDS[limit.value.removeprefix(SH)])
        if isinstance(limit, tuple):
            return self._not_in(limit)
        if isinstance(limit, ox.Literal):
            bound = number_of(limit)
            return ~_compared(name, self._number(), bound if bound is not None else math.nan)
        if name in {"lessThan", "lessThanOrEquals"} and isinstance(limit, ox.NamedNode):
            return self._not_below(limit.value, or_equal=name.endswith("Equals"))
        if isinstance(limit, int):
            length = self._text(constraint).str.len_chars()
            return length < limit if name == "minLength" else length > limit
        if name == "pattern" and isinstance(limit, str):
            return ~self._text(constraint).str.contains(limit)
        return pl.lit(value=True)  # sh:class: a row says nothing of a value's class

    def _bad_datatype(self) -> pl.Expr:
        wanted = self._wanted
        if self._is_iri:
            return pl.lit(value=True)
        if self._kind.is_numeric():
            if wanted == XSD + "integer":
                return self._cell.cast(pl.Float64) % 1 != 0
            if wanted == _DECIMAL.value and self._kind.is_float():
                return ~self._cell.is_finite()
            return pl.lit(value=wanted not in NUMERIC)
        if self._is_text:
            pattern = lexical_pattern(wanted)
            if wanted in NUMERIC and pattern is not None:
                return ~self._cell.str.contains(f"^(?:{pattern})$")
            return pl.lit(value=wanted != XSD + "string")
        return pl.lit(value=wanted != XSD + ("boolean" if self._kind == pl.Boolean else "date"))

    def _not_in(self, members: tuple[Term, ...]) -> pl.Expr:
        if self._is_iri:
            return ~self._cell.is_in([member.value for member in members if isinstance(member, ox.NamedNode)])
        literals = [member for member in members if isinstance(member, ox.Literal)]
        if self._kind.is_numeric():
            numbers = [number_of(literal) for literal in literals]
            return ~self._cell.cast(pl.Float64).is_in([number for number in numbers if number is not None])
        wanted = self._wanted if self._wanted in NUMERIC else XSD + "string"
        if self._is_text:
            return ~self._cell.is_in([one.value for one in literals if one.datatype.value == wanted])
        kind = XSD + ("boolean" if self._kind == pl.Boolean else "date")
        return ~self._cell.cast(pl.String).is_in([one.value for one in literals if one.datatype.value == kind])

    def _not_below(self, other: str, *, or_equal: bool) -> pl.Expr:
        """Section 4.5.3: nothing to compare with is no violation; what cannot be compared is one."""
        kind = self._schema.get(other, pl.Null())
        if kind == pl.Null:
            return pl.lit(value=False)
        mine = self._number()
        theirs = pl.col(other).cast(pl.Float64, strict=False) if kind.is_numeric() or kind == pl.String else None
        if theirs is None:
            return pl.col(other).is_not_null()
        below = (mine <= theirs) if or_equal else (mine < theirs)
        comparable = mine.is_not_null() & theirs.is_not_null() & ~mine.is_nan() & ~theirs.is_nan()
        return pl.col(other).is_not_null() & ~(comparable & below).fill_null(value=False)

    def _number(self) -> pl.Expr:
        """The cell as a number; null where it is none."""
        if self._kind.is_numeric():
            return self._cell.cast(pl.Float64)
        if self._is_text and not self._is_iri and self._wanted in NUMERIC:
            pattern = lexical_pattern(self._wanted)
            typed = pl.when(self._cell.str.contains(f"^(?:{pattern})$")).then(self._cell)
            return typed.str.replace("INF", "inf").cast(pl.Float64, strict=False)
        return pl.lit(None, dtype=pl.Float64)

    def _text(self, constraint: Constraint) -> pl.Expr:
        if not self._is_text:
            raise InputError(
                "a constraint on text over a column that holds none",
                where=self._path,
                expected="a column of text",
                got=f"{self._kind} and {constraint}",
            )
        return self._cell


def _everywhere(*, value: bool) -> pl.Expr:
    return pl.repeat(value, pl.len(), dtype=pl.Boolean)


def _compared(name: str, number: pl.Expr, bound: float) -> pl.Expr:
    """True where the number keeps the bound; false for no number and for NaN, of which polars thinks as the largest."""
    kept = {
        "minInclusive": number >= bound,
        "maxInclusive": number <= bound,
        "minExclusive": number > bound,
        "maxExclusive": number < bound,
    }[name]
    return (kept & ~number.is_nan()).fill_null(value=False)
