"""What is wrong with a mapped source that no single row shows: columns in several ways, subjects with several rows.

A column of two decimal signs or kinds of dates would lose the rows of one without a word, or, worse, read 01/02/2020
as two different days.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from lepton_core.errors import DataError, MatchRefusal
from lepton_kg.cells import DATE_FORMATS, written_in
from lepton_kg.formulas import DATE
from lepton_kg.mapping import Column, Mapping, Source
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.source import read_batches
from lepton_kg.subjects import SubjectStep

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


def require_subjects(mapping: Mapping, base: Path) -> None:
    """Nothing, unless the mapping says that each subject has one row and a row has another's subject.

    Raises:
        DataError: SUBJECT_TWICE, with the column and both rows; or as `read_batches`.
    """
    subject = mapping.subject
    if subject is None or not subject.unique:
        return
    step = SubjectStep(subject.column, tuple(sorted({code.strip() for code in subject.missing})), unique=True)
    batches = read_batches(mapping.source, [subject.column], base)
    hashes = [step.hashes(batch, step.present(batch.schema)) for batch in batches]
    try:
        step.require_unique(np.concatenate(hashes) if hashes else np.empty(0, np.uint64))
    except MatchRefusal as refusal:
        first, second = _same_subject(step, mapping.source, base)
        raise DataError(
            refusal.message,
            where=f"{mapping.source.shown}, column {subject.column!r}, row {second}",
            expected="one row a subject, as subject.unique says",
            got=f"the subject of row {first} again",
            hint="correct the source, or take subject.unique out of the mapping",
            reason=refusal.reason,
        ) from None


def _same_subject(step: SubjectStep, source: Source, base: Path) -> tuple[int, int]:
    """The first row, from 1, whose subject has come before, after the row in which it came."""
    seen: dict[str, int] = {}
    row = 0
    for batch in read_batches(source, [step.column], base):
        for text in step.texts(batch):
            row += 1
            if text is not None and seen.setdefault(text, row) != row:
                return seen[text], row
    return row, row


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
        left = known.filter(~written_in(known, wanted))
        if len(left) and not first:
            bad = ~written_in(text, wanted) & text.is_not_null() & ~text.is_in(list(column.missing))
            first = start + int(bad.arg_max() or 0)
        for name in DATE_FORMATS:
            if name != wanted:
                matched = written_in(left, name)
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


def _texts(column: Column, source: Source, base: Path) -> Iterator[tuple[int, pl.Series]]:
    """The number of the first row of each batch, from 1, and the column's stripped text; typed columns have none."""
    row = 1
    for batch in read_batches(source, [column.column], base):
        cells = batch[column.column]
        if cells.dtype == pl.String:
            text = cells.str.strip_chars()
            yield row, pl.select(pl.when(text != "").then(text)).to_series()
        row += batch.height
