"""Which columns hold codes that the mapping does not name, and how often; for the owner's own terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from lepton_kg.cells import coded
from lepton_kg.steps import CodedStep, FeatureStep, TargetStep

#: Different codes that are counted one by one; a column with more is not coded, and its cells are nobody's to list.
MAX_DISTINCT = 50


@dataclass(frozen=True)
class UnknownCodes:
    """A coded column of a plan with codes that have no meaning; shows no cell."""

    column: str
    concept: str
    #: Of the rows that filters and split let through; a row may count in several columns.
    rows: int


class CodeCount:
    """Counts the unknown codes of a plan's columns, a batch of rows at a time."""

    def __init__(self, features: Sequence[FeatureStep | CodedStep], target: TargetStep) -> None:
        steps = [step for step in features if isinstance(step, CodedStep) and step.column is not None]
        self._steps: tuple[CodedStep | TargetStep, ...] = (*steps, target)
        self._rows: Counter[tuple[str, str]] = Counter()
        #: Column -> code -> rows; None for one with too many different codes.
        self._codes: dict[str, Counter[str] | None] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Count these rows."""
        for step in self._steps:
            column = step.column or ""
            found, told = step.read(frame.schema)
            unknown = told if isinstance(step, CodedStep) else found.is_null() & ~told
            codes = frame.select(coded(column, frame.schema[column]).filter(unknown).alias("code"))["code"]
            if not len(codes):
                continue
            self._rows[column, step.concept] += len(codes)
            known = self._codes.setdefault(column, Counter())
            if known is not None:
                known.update(dict(codes.value_counts().iter_rows()))
                if len(known) > MAX_DISTINCT:
                    self._codes[column] = None

    def columns(self) -> tuple[UnknownCodes, ...]:
        """The columns in which there are some, in the plan's order."""
        return tuple(UnknownCodes(column, concept, rows) for (column, concept), rows in self._rows.items())

    def codes(self, column: str) -> Mapping[str, int] | None:
        """The column's unknown codes with their rows, most frequent first; None if there are too many to be codes."""
        known = self._codes.get(column, Counter())
        return None if known is None else dict(sorted(known.items(), key=lambda item: (-item[1], item[0])))
