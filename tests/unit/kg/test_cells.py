"""A cell of text is missing, a number, or unreadable: one of the three, whatever is in it and around it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import polars as pl
import pytest

from lepton_kg.cells import coded, days, is_missing, numeric, unreadable
from lepton_kg.mapping import Source
from lepton_kg.reading import series_of

CELLS = [
    "1",
    "-9",
    "-9.0",
    "-9,0",
    " -9 ",
    "NA",
    "na",
    "",
    " ",
    "inf",
    "-inf",
    "nan",
    "1.5",
    "1,5",
    "1.000,5",
    "x",
    None,
]


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("missing", [(), ("-9",), ("NA", "-9"), ("-9,0",), ("inf",), ("nan", ""), (" -9 ", "x")])
def test_every_cell_of_text_is_missing_or_a_number_or_unreadable(decimal, missing):
    frame = pl.DataFrame({"g": CELLS}, schema={"g": pl.String})
    given = {"decimal": decimal, "missing": missing}
    found = frame.select(
        numeric("g", pl.String(), **given).is_not_null().alias("number"),
        is_missing("g", pl.String(), **given).alias("missing"),
        unreadable("g", pl.String(), **given).alias("unreadable"),
    )
    wrong = [cell for cell, row in zip(CELLS, found.rows(), strict=True) if sum(row) != 1]
    assert wrong == []


@pytest.mark.parametrize("kind", [pl.Date(), pl.Datetime(), pl.String()])
def test_a_day_that_stands_for_none_is_missing_in_dates_as_in_text(kind):
    frame = pl.DataFrame({"born": ["1900-01-01", "1950-02-03", None]})
    if kind != pl.String:
        frame = frame.with_columns(pl.col("born").str.to_date().cast(kind))
    found = frame.select(
        days("born", kind, date_format=None, missing=("1900-01-01 ",)).alias("days"),
        is_missing("born", kind, decimal=".", missing=("1900-01-01 ",)).alias("missing"),
    )
    assert found["days"].to_list() == [None, -7272.0, None]
    assert found["missing"].to_list() == [True, False, True]


@pytest.mark.parametrize(
    "cells",
    [
        [2**53 + 1, Decimal(2**53 + 2), Decimal("1.50"), Decimal(7), 3],
        [2**64, 2**64 + 1, 5],
        [dt.datetime(2020, 1, 1, 10, tzinfo=dt.UTC), dt.date(2020, 1, 2), "0000-00-00"],
        [True, False, "x"],
        [1.5, 2.0, 10.0**18, "x"],
    ],
)
def test_a_database_cell_has_the_same_code_alone_as_among_others(cells):
    source = Source(kind="sqlite", path="d.db", table="t")

    def codes(some):
        frame = series_of("c", some, source).to_frame()
        return frame.select(coded("c", frame.schema["c"]))["c"].to_list()

    assert codes(cells) == [codes([cell])[0] for cell in cells]
    assert len(set(codes(cells))) == len(cells)
