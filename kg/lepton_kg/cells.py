"""Cells of any source type as numbers and codes: the polars expressions a plan is built from.

| cell | as a number | as a code |
|---|---|---|
| null, empty or blank text, NaN of a float column | missing | missing |
| a missing code, by text or by value (`-9` in text meets `-9,0`; a day is the text `1900-01-01`) | missing | by text |
| text with blanks around it | stripped | stripped |
| a float without fraction, such as 1.0 | 1.0 | `1` |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

#: How a day is written -> the pattern of its text, and what strptime calls it.
DATE_FORMATS: Mapping[str, tuple[str, str]] = {
    "YYYY-MM-DD": (r"^\d{4}-\d{2}-\d{2}$", "%Y-%m-%d"),
    "DD.MM.YYYY": (r"^\d{2}\.\d{2}\.\d{4}$", "%d.%m.%Y"),
    "DD/MM/YYYY": (r"^\d{2}/\d{2}/\d{4}$", "%d/%m/%Y"),
    "MM/DD/YYYY": (r"^\d{2}/\d{2}/\d{4}$", "%m/%d/%Y"),
    "YYYYMMDD": (r"^\d{8}$", "%Y%m%d"),
}


def numeric(column: str, dtype: pl.DataType, *, decimal: str, missing: Sequence[str]) -> pl.Expr:
    """The column as Float64; null where it is missing or no number."""
    number = _number(column, dtype, decimal=decimal)
    if dtype.is_numeric():
        codes = _numbers(missing, decimal)
        return pl.when(~number.is_in(codes)).then(number) if codes else number
    # A cell of text that is no number is null by now, so that only codes that read as numbers are left to take out.
    codes, texts = _numbers(missing, decimal), _infinite(missing)
    if codes:
        number = pl.when(~number.is_in(codes)).then(number)
    return pl.when(~_text(column).is_in(texts)).then(number) if texts else number


def unreadable(column: str, dtype: pl.DataType, *, decimal: str, missing: Sequence[str]) -> pl.Expr:
    """True where a cell is there, is no missing code, and is no number."""
    if dtype.is_numeric() or dtype.is_temporal():
        return pl.lit(value=False)
    text = _text(column)
    # A missing code that reads as a number is a number here; whether it is missing is `numeric`'s to say.
    there = ~text.is_in([code.strip() for code in missing]).fill_null(value=True)
    return there & _number(column, dtype, decimal=decimal).is_null()


def is_missing(column: str, dtype: pl.DataType, *, decimal: str, missing: Sequence[str]) -> pl.Expr:
    """True where the cell has no value: empty, or one of the missing codes."""
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        written = pl.col(column).cast(pl.Date).cast(pl.String)
        return written.is_in([code.strip() for code in missing]).fill_null(value=True)
    if dtype.is_temporal():
        return pl.col(column).is_null()
    number = _number(column, dtype, decimal=decimal)
    by_value = number.is_in(_numbers(missing, decimal)).fill_null(value=False)
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


def days(column: str, dtype: pl.DataType, *, date_format: str | None, missing: Sequence[str]) -> pl.Expr:
    """The column as days since 1970, Float64; null where it is missing or no day written in that way."""
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        day = pl.when(~is_missing(column, dtype, decimal=".", missing=missing)).then(pl.col(column).cast(pl.Date))
        return day.cast(pl.Int32).cast(pl.Float64)
    written = DATE_FORMATS[date_format or "YYYY-MM-DD"]
    text = _text(column)
    known = pl.when(~text.is_in([code.strip() for code in missing]).fill_null(value=False)).then(text)
    # The pattern first: strptime alone would take 1.2.20 for a year of two digits.
    whole = pl.when(known.str.contains(written[0])).then(known)
    return whole.str.to_date(written[1], strict=False).cast(pl.Int32).cast(pl.Float64)


def written_in(text: pl.Series, way: str) -> pl.Series:
    """True where the text is a day of that one of `DATE_FORMATS`; 31/12/2020 is no MM/DD/YYYY."""
    pattern, code = DATE_FORMATS[way]
    whole = pl.select(pl.when(text.str.contains(pattern)).then(text)).to_series()
    return whole.str.to_date(code, strict=False).is_not_null()


def _number(column: str, dtype: pl.DataType, *, decimal: str) -> pl.Expr:
    if dtype.is_numeric():
        number = pl.col(column) if dtype == pl.Float64 else pl.col(column).cast(pl.Float64)
        return number.fill_nan(None) if dtype.is_float() else number
    text = _text(column)
    if decimal != ".":
        # A dot in such a file could group thousands; a cell that holds one is not read as a number.
        text = pl.when(~text.str.contains(".", literal=True)).then(text.str.replace(decimal, ".", literal=True, n=1))
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def _text(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def _numbers(codes: Sequence[str], decimal: str) -> list[float]:
    return [float(code) for code in (_plain(code, decimal) for code in codes) if _is_number(code)]


def _infinite(codes: Sequence[str]) -> list[str]:
    """The codes that polars reads as an infinite number, such as `inf`."""
    return [code.strip() for code in codes if code.strip().lstrip("+-").lower() in {"inf", "infinity"}]


def _plain(code: str, decimal: str) -> str:
    return code.strip().replace(decimal, ".", 1) if decimal != "." else code.strip()


def _is_number(code: str) -> bool:
    try:
        return math.isfinite(float(code))
    except ValueError:
        return False
