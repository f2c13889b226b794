"""What every reader of sources shares: errors that quote no cell, and cells of a database as columns of one type."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import polars as pl

from lepton_core.errors import DataError
from lepton_kg.mapping import CsvOptions, Source

#: Rows that are in memory at once, beside what is made of them.
BATCH_ROWS = 65_536


@contextmanager
def readable(source: Source) -> Iterator[None]:
    """Turns what libraries raise over a broken file into a DataError that quotes no cell."""
    try:
        yield
    except UnicodeError as error:
        raise DataError(
            "the file is not in the encoding that the mapping says",
            where=source.shown,
            expected=(source.csv or CsvOptions()).encoding,
            got=type(error).__name__,
            hint="set source.csv.encoding; `lepton mapping suggest` tells which it finds",
            reason="BAD_ENCODING",
        ) from None
    except (pl.exceptions.PolarsError, sqlite3.Error, OSError) as error:
        raise DataError(
            f"the source cannot be read as {source.kind}",
            where=source.shown,
            expected=f"a {source.kind} source as the mapping describes it",
            got=type(error).__name__,
            hint="correct source in the mapping, or the file",
            reason="UNREADABLE",
        ) from None


def series_of(name: str, cells: Sequence[Any], source: Source) -> pl.Series:
    """A database's cells as numbers where all are, as dates where all are, or else as text.

    A number or a day among texts is written as it is among its like, so that a batch of rows reads alike whatever else
    is in it. Whole numbers beyond what a float holds are text.

    Raises:
        DataError: a binary cell.
    """
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds & {bytes, bytearray, memoryview}:
        raise DataError(
            "a column of binary cells cannot be mapped",
            where=f"{source.shown}, column {name}",
            expected="numbers, dates or text",
            got="binary",
            reason="UNREADABLE",
        )
    if kinds == {int} and max(abs(cell) for cell in cells if cell is not None) < 2**63:
        return pl.Series(name, cells, dtype=pl.Int64)
    if kinds == {bool}:
        return pl.Series(name, cells, dtype=pl.Boolean)
    if kinds and kinds <= {int, float, Decimal} and not any(_is_long(cell) for cell in cells):
        return pl.Series(name, [None if cell is None else float(cell) for cell in cells], dtype=pl.Float64)
    if kinds and kinds <= {dt.date, dt.datetime}:
        return pl.Series(name, [None if cell is None else _day(cell) for cell in cells], dtype=pl.Date)
    return pl.Series(name, [None if cell is None else _written(cell) for cell in cells], dtype=pl.String)


def _day(cell: dt.date) -> dt.date:
    return cell.date() if isinstance(cell, dt.datetime) else cell


def _is_long(cell: Any) -> bool:
    """True for a whole number that a float would round; as text it stays what it is, such as somebody's number."""
    if not isinstance(cell, int | Decimal) or not math.isfinite(cell) or -(2**53) <= cell <= 2**53:
        return False
    return cell == int(cell)


def _written(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, dt.date):
        return _day(cell).isoformat()
    if isinstance(cell, float | Decimal) and math.isfinite(cell):
        return str(int(cell)) if cell == int(cell) else str(float(cell))
    return str(cell)
