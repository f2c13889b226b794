"""Whose each row of a source is: subject ids as numbers, for jobs that protect subjects with all their rows.

Numbers mean nothing but that equal ones are one subject's; ids themselves go no further.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass

import polars as pl

from lepton_core.errors import MatchRefusal
from lepton_kg.cells import coded
from lepton_kg.mapping import Mapping

#: Why a row without a subject is refused; beside `plan.ROW_REASONS`, in plans that have subjects.
SUBJECT_MISSING = "SUBJECT_MISSING"


@dataclass(frozen=True)
class SubjectStep:
    """How a row's subject is found."""

    column: str
    #: Raw ids that mean "no subject", sorted.
    missing: tuple[str, ...]
    #: Whether a subject has one row and no second.
    once: bool

    def expressions(self, schema: AbstractMapping[str, pl.DataType]) -> list[pl.Expr]:
        """Columns `subject` (a number or null), and `subject_again` (whether the id was seen in a row before)."""
        id_ = coded(self.column, schema[self.column])
        known = pl.when(~id_.is_in(list(self.missing))).then(id_)
        number = known.rank("dense").cast(pl.Int64) - 1
        return [number.alias("subject"), (known.is_not_null() & ~known.is_first_distinct()).alias("subject_again")]

    def require_once(self, values: pl.DataFrame) -> None:
        """Refuse a second row of a subject, if there must be none; `values` has the columns of `expressions`.

        Raises:
            MatchRefusal: SUBJECT_TWICE; neither who nor how many is told.
        """
        if self.once and bool(values["subject_again"].any()):
            raise MatchRefusal(
                "a subject has several rows in a source of one row a subject",
                expected="one row a subject, as the owner's mapping says",
                got="more",
                hint="the owner corrects the source, or takes subject.once out of the mapping",
                reason="SUBJECT_TWICE",
            )


def subject_step(mapping: Mapping) -> SubjectStep:
    """How the mapping says whose each row is.

    Raises:
        MatchRefusal: MISSING_SUBJECT, if it does not.
    """
    named = mapping.subject
    if named is None:
        raise MatchRefusal(
            "the owner's mapping does not say whose the rows are",
            expected="a column of subject ids, as the job's privacy.unit is subject",
            got="none",
            hint="the owner names the column under subject in the mapping, and approves it",
            reason="MISSING_SUBJECT",
        )
    return SubjectStep(named.column, tuple(sorted({code.strip() for code in named.missing})), named.once)
