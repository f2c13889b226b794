"""What is wrong with a mapped source that no single row shows: decimal signs or dates written in several ways.

Such a column would lose the rows of one way without a word, or, worse, read 01/02/2020 as two different days.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from lepton_core.errors import DataError
from lepton_kg.cells import DATE_FORMATS
from lepton_kg.formulas import DATE
from lepton_kg.mapping import Column, Mapping, Source
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.source import read_batches

_COMMA, _DOT = r"^\s*[+-]?\d+,\d+\s*$", r"^\s*[+-]?\d+\.\d+\s*$"


def require_one_way(mapping: Mapping, ontology: Ontology, base: Path) -> None:
    """Nothing, if every mapped column is written in the way that the mapping says; reads one column at a time.

    Raises:
        DataError: MIXED_DECIMALS or MIXED_DATES, with the column and the first row of the other way; or as
            `read_batches`.
    """
    for column in mapping.columns:
        concept = ontology.concept(mapping.iri(column.concept))
        if concept.datatype == DATE:
            _require_dates(column, mapping.source, base)
        elif concept.is_numeric:
            _require_decimals(column, concept, mapping.source, base)


def _require_decimals(column: Column, concept: Concept, source: Source, base: Path) -> None:
    sign, other, pattern = (",", ".", _DOT) if source.decimal == "," else (".", ",", _COMMA)
    rows, first = 0, 0
    for start, text in _texts(column, source, base):
        found = text.filter(~text.is_in(list(column.missing)))
        strange = found.str.contains(pattern).fill_null(value=False)
        if strange.any() and not first:
            whole = text.str.contains(pattern).fill_null(value=False) & ~text.is_in(list(column.missing))
            first = start + int(whole.arg_max() or 0)
        rows += int(strange.sum())
    if rows:
        raise DataError(
            "numbers with two kinds of decimal sign",
            where=f"{source.shown}, column {column.column!r}, row {first}",
            expected=f"{sign!r} in every number of {concept.label}",
            got=f"{other!r} in {rows} rows",
            hint="write the source with one sign, or set source.csv.decimal",
            reason="MIXED_DECIMALS",
        )


def _require_dates(column: Column, source: Source, base: Path) -> None:
    wanted = column.date_format or "YYYY-MM-DD"
    found: dict[str, int] = {}
    first = 0
    for start, text in _texts(column, source, base):
        known = text.filter(text.is_not_null() & ~text.is_in(list(column.missing)))
        left = known.filter(~_written_in(known, wanted))
        if len(left) and not first:
            bad = ~_written_in(text, wanted) & text.is_not_null() & ~text.is_in(list(column.missing))
            first = start + int(bad.arg_max() or 0)
        for name in DATE_FORMATS:
            if name != wanted:
                matched = _written_in(left, name)
                found[name] = found.get(name, 0) + int(matched.sum())
                left = left.filter(~matched)
        found["another way"] = found.get("another way", 0) + len(left)
    strange = {name: rows for name, rows in found.items() if rows}
    if strange:
        raise DataError(
            "dates that are not written in the way that the mapping says",
            where=f"{source.shown}, column {column.column!r}, row {first}",
            expected=f"{wanted} in every row",
            got=", ".join(f"{name} in {rows} rows" for name, rows in strange.items()),
            hint="write the source in one way and name it in date_format, or list placeholders under missing",
            reason="MIXED_DATES",
        )


def _written_in(text: pl.Series, name: str) -> pl.Series:
    """True where the text is a day of that way; 31/12/2020 is no MM/DD/YYYY."""
    pattern, code = DATE_FORMATS[name]
    whole = pl.select(pl.when(text.str.contains(pattern)).then(text)).to_series()
    return whole.str.to_date(code, strict=False).is_not_null()


def _texts(column: Column, source: Source, base: Path) -> Iterator[tuple[int, pl.Series]]:
    """The number of the first row of each batch, from 1, and the column's stripped text; typed columns have none."""
    row = 1
    for batch in read_batches(source, [column.column], base):
        cells = batch[column.column]
        if cells.dtype == pl.String:
            text = cells.str.strip_chars()
            yield row, pl.select(pl.when(text != "").then(text)).to_series()
        row += batch.height
