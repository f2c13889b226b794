"""The steps of a plan, as data, and the polars expressions they stand for.

Each step gives, for every row: its values, null where there is none, and whether a cell is there that cannot be read.
Two rows with the same cells give the same values, whatever else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lepton_kg.cells import coded, days, is_missing, numeric, unreadable
from lepton_kg.formulas import FORMULAS

#: Slack at the ends of a range, as a share of its width: rounding of unit conversion, far below any measurement.
_RANGE_SLACK = 1e-9


@dataclass(frozen=True)
class InputStep:
    """One column read as a number, or as a day."""

    concept: str
    column: str
    #: Raw codes that mean "no value".
    missing: tuple[str, ...]
    #: Decimal sign of numbers written as text.
    decimal: str
    #: Value = raw * a + b; 1 and 0 for a day, which is counted from 1970.
    a: float
    b: float
    #: Steps that the column's concept lies below the one asked for; 0 is exact.
    distance: int
    is_date: bool = False
    date_format: str | None = None

    def value(self, schema: pl.Schema) -> pl.Expr:
        """Float64; null where it is missing or cannot be read."""
        kind = schema[self.column]
        if self.is_date:
            return days(self.column, kind, date_format=self.date_format, missing=self.missing)
        return numeric(self.column, kind, decimal=self.decimal, missing=self.missing) * self.a + self.b

    def unreadable(self, schema: pl.Schema) -> pl.Expr:
        """True where a cell is there, and no number or day."""
        kind = schema[self.column]
        if not self.is_date:
            return unreadable(self.column, kind, decimal=self.decimal, missing=self.missing)
        if kind.is_numeric() or kind.is_temporal():
            return pl.lit(value=False)
        absent = is_missing(self.column, kind, decimal=self.decimal, missing=self.missing)
        return ~absent & self.value(schema).is_null()


@dataclass(frozen=True)
class FeatureStep:
    """How a measured feature is computed: from one column, by a formula from several, or imputed in every row."""

    concept: str
    inputs: tuple[InputStep, ...]
    #: One of `FORMULAS`; None takes the one input as it is.
    formula: str | None
    #: From the formula's unit to the concept's.
    factor: float
    #: Public range in the canonical unit; scaled to [-1, 1].
    minimum: float
    maximum: float
    required: bool
    imputed: float

    @property
    def width(self) -> int:
        """Places in the tensor."""
        return 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Source columns it reads."""
        return tuple(step.column for step in self.inputs)

    @property
    def column(self) -> str | None:
        """The one column it reads; None if it reads none, or several."""
        return self.inputs[0].column if len(self.inputs) == 1 else None

    @property
    def distance(self) -> int:
        """Steps that it is rolled up."""
        return max((step.distance for step in self.inputs), default=0)

    def read(self, schema: pl.Schema) -> tuple[pl.Expr, pl.Expr]:
        """The value in the canonical unit, null where there is none; and whether a cell cannot be read."""
        if not self.inputs:
            return pl.lit(None, dtype=pl.Float64), pl.lit(value=False)
        values = [step.value(schema) for step in self.inputs]
        unreadable = pl.any_horizontal([step.unreadable(schema) for step in self.inputs])
        if self.formula is None:
            return values[0], unreadable
        found = FORMULAS[self.formula].compute(values) * self.factor
        return pl.when(found.is_finite()).then(found), unreadable

    def outside(self, value: pl.Expr) -> pl.Expr:
        """True where the value is outside the public range; null where there is none."""
        slack = _RANGE_SLACK * (self.maximum - self.minimum)
        return (value < self.minimum - slack) | (value > self.maximum + slack)

    def places(self, value: pl.Expr) -> list[pl.Expr]:
        """The value scaled to [-1, 1], imputed where there is none."""
        middle, half = (self.minimum + self.maximum) / 2, (self.maximum - self.minimum) / 2
        return [((value.fill_null(self.imputed) - middle) / half).clip(-1.0, 1.0)]


@dataclass(frozen=True)
class CodedStep:
    """How a coded feature is computed: 1 in the places of a code's values, -1 in the others."""

    concept: str
    column: str | None
    missing: tuple[str, ...]
    #: Raw code -> places that are yes, sorted by code; a code of the value set without a place is no in all.
    codes: tuple[tuple[str, tuple[int, ...]], ...]
    width: int
    required: bool
    #: In every place of a row without a code.
    imputed: float
    distance: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Source columns it reads."""
        return () if self.column is None else (self.column,)

    def read(self, schema: pl.Schema) -> tuple[pl.Expr, pl.Expr]:
        """The number of the code, null where there is none; and whether a cell holds an unknown one."""
        if self.column is None:
            return pl.lit(None, dtype=pl.Int32), pl.lit(value=False)
        code = coded(self.column, schema[self.column])
        absent = code.is_null() | code.is_in(list(self.missing)).fill_null(value=True)
        raw = [code for code, _ in self.codes]
        number = code.replace_strict(raw, list(range(len(raw))), default=None, return_dtype=pl.Int32)
        found = pl.when(~absent).then(number)
        return found, ~absent & number.is_null()

    def outside(self, value: pl.Expr) -> pl.Expr:
        """Never: a code has no range."""
        return value.is_null() & pl.lit(value=False)

    def places(self, value: pl.Expr) -> list[pl.Expr]:
        """One number a place."""
        made = []
        for place in range(self.width):
            yes = [number for number, (_, places) in enumerate(self.codes) if place in places]
            made.append(
                pl.when(value.is_null())
                .then(self.imputed)
                .when(value.is_in(yes))
                .then(1.0)
                .otherwise(-1.0)
                .cast(pl.Float64)
            )
        return made


@dataclass(frozen=True)
class TargetStep:
    """How the target is computed."""

    concept: str
    column: str
    missing: tuple[str, ...]
    #: Raw code -> class, sorted by code; rows of other codes are refused.
    classes: tuple[tuple[str, int], ...]

    def read(self, schema: pl.Schema) -> tuple[pl.Expr, pl.Expr]:
        """The class as Float64, null where the code is unknown; and whether there is no code."""
        target = coded(self.column, schema[self.column])
        codes = [code for code, _ in self.classes]
        numbers = [float(number) for _, number in self.classes]
        missing = target.is_null() | target.is_in(list(self.missing)).fill_null(value=True)
        return target.replace_strict(codes, numbers, default=None, return_dtype=pl.Float64), missing


@dataclass(frozen=True)
class FilterStep:
    """Whether a row serves the task: a value in a range, or one of some codes; a row without is left out."""

    concept: str
    #: The number it looks at; None for a code.
    input: InputStep | None
    column: str
    minimum: float | None
    maximum: float | None
    codes: tuple[str, ...]

    def holds(self, schema: pl.Schema) -> pl.Expr:
        """True where the row serves."""
        if self.input is None:
            return coded(self.column, schema[self.column]).is_in(list(self.codes)).fill_null(value=False)
        value = self.input.value(schema)
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return ((value >= low) & (value <= high)).fill_null(value=False)


def columns_of(*groups: Sequence[FeatureStep | CodedStep | FilterStep | TargetStep]) -> tuple[str, ...]:
    """The source columns that the steps read, sorted."""
    needed: set[str] = set()
    for group in groups:
        for step in group:
            needed.update(step.columns if isinstance(step, FeatureStep | CodedStep) else (step.column,))
    return tuple(sorted(needed))
