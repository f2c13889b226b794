"""Cells of any source type as numbers and codes: the polars expressions a plan is built from.

| cell | as a number | as a code |
|---|---|---|
| null, empty or blank text, NaN of a float column | missing | missing |
| a missing code, by text or by value (`-9` in text meets `-9,0`) | missing | by text |
| text with blanks around it | stripped | stripped |
| a float without fraction, such as 1.0 | 1.0 | `1` |
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl


def numeric(column: str, dtype: pl.DataType, *, decimal: str, missing: Sequence[str]) -> pl.Expr:
    """The column as Float64; null where it is missing or no number."""
    absent = is_missing(column, dtype, decimal=decimal, missing=missing)
    return pl.when(~absent).then(_number(column, dtype, decimal=decimal))


def is_missing(column: str, dtype: pl.DataType, *, decimal: str, missing: Sequence[str]) -> pl.Expr:
    """True where the cell has no value: empty, or one of the missing codes."""
    number = _number(column, dtype, decimal=decimal)
    codes = [float(code) for code in (_plain(code, decimal) for code in missing) if _is_number(code)]
    by_value = number.is_in(codes).fill_null(value=False)
    if dtype.is_numeric():
        return pl.col(column).is_null() | number.is_null() | by_value
    text = _text(column)
    return text.is_null() | text.is_in([code.strip() for code in missing]).fill_null(value=False) | by_value


def coded(column: str, dtype: pl.DataType) -> pl.Expr:
    """The column as stripped text; null where it is empty."""
    if dtype.is_float() or dtype.is_decimal():
        value = pl.col(column).cast(pl.Float64).fill_nan(None)
        whole = value.cast(pl.Int64, strict=False)
        return pl.when(whole.cast(pl.Float64) == value).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
    return _text(column)


def _number(column: str, dtype: pl.DataType, *, decimal: str) -> pl.Expr:
    if dtype.is_numeric():
        return pl.col(column).cast(pl.Float64).fill_nan(None)
    text = _text(column)
    if decimal != ".":
        # A dot in such a file could group thousands; a cell that holds one is not read as a number.
        text = pl.when(~text.str.contains(".", literal=True)).then(text.str.replace(decimal, ".", literal=True, n=1))
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def _text(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def _plain(code: str, decimal: str) -> str:
    return code.strip().replace(decimal, ".", 1) if decimal != "." else code.strip()


def _is_number(code: str) -> bool:
    try:
        return math.isfinite(float(code))
    except ValueError:
        return False
