"""A cell of text is missing, a number, or unreadable: one of the three, whatever is in it and around it."""

from __future__ import annotations

import polars as pl
import pytest

from lepton_kg.cells import is_missing, numeric, unreadable

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
