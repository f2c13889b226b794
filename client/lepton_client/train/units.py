"""Which rows are drawn and clipped together: each by itself (unit `record`), or all of one subject (unit `subject`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some drawn units' rows, unit after unit."""

    #: Places of rows, (rows,).
    rows: Indices
    #: Rows of each unit, (units,), each at least 1; None if every row is a unit.
    sizes: Indices | None


class Units:
    """How so many rows fall into units; units are numbered from 0."""

    def __init__(self, rows: int, subjects: Indices | None = None) -> None:
        """`subjects` says whose each row is, (rows,), as any numbers; None makes every row a unit."""
        #: Number of units; as secret as the number of rows.
        self.count = rows
        self._order: Indices | None = None
        if subjects is not None:
            #: Rows, subject after subject and of each in the order given; unit u's lie from `_starts[u]` on.
            self._order = np.argsort(subjects, kind="stable")
            ordered = subjects[self._order]
            begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[:rows])
            self.count = len(begins)
            self._starts = np.append(begins, rows)

    def __repr__(self) -> str:
        return "Units(<private>)"

    def parts(self, drawn: Indices, most_rows: int) -> Iterator[Part]:
        """The rows of the drawn units, (drawn,), a part after another.

        A part has at most `most_rows` rows, except that a unit is never divided: one with more is a part by itself.
        """
        if self._order is None:
            for start in range(0, len(drawn), most_rows):
                yield Part(drawn[start : start + most_rows], None)
            return
        begins, sizes = self._starts[drawn], np.diff(self._starts)[drawn]
        ends = np.cumsum(sizes)
        first = 0
        while first < len(drawn):
            before = ends[first] - sizes[first]
            last = max(first + 1, int(np.searchsorted(ends, before + most_rows, side="right")))
            part = slice(first, last)
            # Within the part, unit u's rows lie at `ends[u] - sizes[u] - before` and on.
            shifts = begins[part] - (ends[part] - sizes[part] - before)
            places = np.repeat(shifts, sizes[part]) + np.arange(ends[last - 1] - before)
            yield Part(self._order[places], sizes[part])
            first = last
