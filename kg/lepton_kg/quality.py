"""What an owner should know of its own columns before they serve a job; for the owner's eyes, it never leaves the site.

Of each mapped column: what is missing or cannot be read, how the values lie before and after the mapping, how many are
out of the public range, and whether they look like another unit than the one declared. Hashes prove that all owners
mean the same by a word, not that a column holds it: a site that declares mg/dL over mmol/L passes every other check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lepton_core.errors import UnitError
from lepton_kg.approval import line_of
from lepton_kg.cells import coded, days, is_missing, numeric
from lepton_kg.formulas import DATE
from lepton_kg.mapping import Column, Mapping
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.source import read_batches
from lepton_kg.units import conversion

_BINS = 12
_QUANTILES = (0.05, 0.5, 0.95)
#: Values that fill less of the public range than this lie in a corner of it; another unit must fill more than twice it.
_CORNER = 0.04
#: Units in which hospitals write the same kind of quantity.
_UNITS = (
    ("mg/dL", "g/L", "g/dL", "mg/L", "ug/L", "mmol/L", "umol/L", "nmol/L"),
    ("Cel", "[degF]", "K"),
    ("m", "cm", "mm", "um", "[in_i]"),
    ("m2", "cm2", "mm2", "um2"),
    ("kg", "g", "mg", "[lb_av]"),
    ("mm[Hg]", "kPa"),
    ("a", "mo", "wk", "d", "h", "min", "s"),
    ("1", "%"),
)


@dataclass(frozen=True)
class Spread:
    """How numbers lie."""

    minimum: float
    low: float
    median: float
    high: float
    maximum: float
    #: Rows in equal parts between minimum and maximum.
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class ColumnQuality:
    """One mapped column."""

    column: str
    concept: str
    label: str
    rows: int
    missing: int
    #: Cells that are there, and no number, day or known code.
    unreadable: int
    #: Values outside the concept's public range, after the mapping.
    out_of_range: int
    #: As the source has it; None for a code.
    before: Spread | None
    #: In the concept's unit; None for a code, or if nothing can be read.
    after: Spread | None
    unit: str
    canonical_unit: str
    #: Value's name -> rows, after the mapping; empty for a number.
    values: dict[str, int]
    #: What to look at, in words; empty if nothing stands out.
    suspicions: tuple[str, ...]


@dataclass(frozen=True)
class QualityReport:
    """A mapped source."""

    mapping: str
    rows: int
    columns: tuple[ColumnQuality, ...]


def examine_quality(mapping: Mapping, ontology: Ontology, base: Path, *, name: str) -> QualityReport:
    """The report of every mapped column; reads one column at a time, so that memory holds one.

    Raises:
        DataError: the source cannot be read.
        OntologyError, UnitError: the mapping makes no sense in the ontology.
    """
    columns = tuple(
        _column(column, ontology.concept(mapping.iri(column.concept)), mapping, base) for column in mapping.columns
    )
    return QualityReport(name, max((column.rows for column in columns), default=0), columns)


def suspect_unit(column: Column, concept: Concept, raw: pl.Series) -> str:
    """Which unit the raw numbers look like, if not the declared one; empty if the declared one fits, or none does.

    A unit fits if nearly all values lie in the public range and fill some of it. 5.5 read as mg/dL of glucose lies in
    the range, in its lowest corner; read as mmol/L it lies where people's glucose lies.
    """
    low, high = concept.plausible_minimum, concept.plausible_maximum
    if column.unit is None or concept.unit is None or low is None or high is None or len(raw) < 3:
        return ""
    declared = _fit(raw, column.unit, concept)
    if declared is None or declared >= _CORNER:
        return ""
    group = next((units for units in _UNITS if _same(column.unit, units)), ())
    found = [(fit, unit) for unit in group if (fit := _fit(raw, unit, concept)) is not None and fit > 2 * _CORNER]
    if not found:
        return ""
    return f"declared as {column.unit}, the values look like {max(found)[1]}"


def _same(unit: str, units: Sequence[str]) -> bool:
    for other in units:
        try:
            if conversion(unit, other) is not None:
                return True
        except UnitError:
            continue
    return False


def _fit(raw: pl.Series, unit: str, concept: Concept) -> float | None:
    """The share of the public range that the middle nine tenths fill; 0 if many lie outside; None if it cannot be."""
    low, high = concept.plausible_minimum or 0.0, concept.plausible_maximum or 0.0
    try:
        line = conversion(unit, concept.unit or "1", molar_mass_g_per_mol=concept.molar_mass_g_per_mol)
    except UnitError:
        return None
    values = raw * line.a + line.b
    if float(((values < low) | (values > high)).mean() or 0.0) > 0.1:  # type: ignore[arg-type]  # a mean of booleans
        return 0.0
    start, stop = float(values.quantile(0.05) or 0.0), float(values.quantile(0.95) or 0.0)
    return (stop - start) / (high - low)


def _column(column: Column, concept: Concept, mapping: Mapping, base: Path) -> ColumnQuality:
    rows = missing = unreadable = 0
    numbers: list[pl.Series] = []
    counts: dict[str, int] = {}
    is_code = bool(concept.value_set)
    for batch in read_batches(mapping.source, [column.column], base):
        kind = batch.schema[column.column]
        absent_expr = is_missing(column.column, kind, decimal=mapping.source.decimal, missing=column.missing)
        if is_code:
            value = coded(column.column, kind)
        elif concept.datatype == DATE:
            value = days(column.column, kind, date_format=column.date_format, missing=column.missing)
        else:
            value = numeric(column.column, kind, decimal=mapping.source.decimal, missing=column.missing)
        found = batch.select(absent_expr.alias("absent"), value.alias("value"))
        present = found.filter(~found["absent"])["value"]
        rows += batch.height
        missing += batch.height - len(present)
        if is_code:
            for code, count in present.value_counts().iter_rows():
                counts[str(code)] = counts.get(str(code), 0) + count
        else:
            unreadable += present.null_count()
            numbers.append(present.drop_nulls())
    if is_code:
        values, unreadable, told = _coded(counts, column, concept, mapping)
        return _quality(column, concept, (rows, missing, unreadable, 0), (None, None), values, told)
    raw = pl.concat(numbers).cast(pl.Float64) if numbers else pl.Series([], dtype=pl.Float64)
    line = None if concept.datatype == DATE else line_of(column, concept)
    after = raw if line is None else raw * line.a + line.b
    low, high = concept.plausible_minimum, concept.plausible_maximum
    outside = 0 if low is None or high is None else int(((after < low) | (after > high)).sum())
    told = [suspect_unit(column, concept, raw)]
    if len(raw) and outside > 0.1 * len(raw):
        told.append(f"{outside / len(raw):.0%} of the values are out of the public range {low:g} to {high:g}")
    told += _usual(rows, missing, unreadable, len(set(raw.head(10_000))) == 1 and len(raw) > 1)
    return _quality(column, concept, (rows, missing, unreadable, outside), (_spread(raw), _spread(after)), {}, told)


def _quality(
    column: Column,
    concept: Concept,
    counts: tuple[int, int, int, int],
    spreads: tuple[Spread | None, Spread | None],
    values: dict[str, int],
    *told: Sequence[str],
) -> ColumnQuality:
    rows, missing, unreadable, outside = counts
    return ColumnQuality(
        column=column.column,
        concept=concept.iri,
        label=concept.label,
        rows=rows,
        missing=missing,
        unreadable=unreadable,
        out_of_range=outside,
        before=spreads[0],
        after=spreads[1],
        unit=column.unit or "",
        canonical_unit=concept.unit or "",
        values=values,
        suspicions=tuple(line for lines in told for line in lines if line),
    )


def _coded(
    counts: dict[str, int], column: Column, concept: Concept, mapping: Mapping
) -> tuple[dict[str, int], int, list[str]]:
    labels = {value.iri: next(iter(value.labels.values()), value.iri) for value in concept.value_set}
    values: dict[str, int] = {}
    unknown = rows = 0
    for code, count in counts.items():
        rows += count
        name = column.codes.get(code)
        if name is None:
            unknown += count
            continue
        iri = mapping.iri(name)
        label = labels.get(iri, iri)
        values[label] = values.get(label, 0) + count
    told = [f"{unknown} cells hold codes that the mapping does not name"] if unknown else []
    never = sorted(code for code in column.codes if code not in counts)
    told += [f"codes that no row has: {', '.join(never)}"[:500]] if never else []
    return dict(sorted(values.items())), unknown, told


def _usual(rows: int, missing: int, unreadable: int, constant: bool) -> list[str]:  # noqa: FBT001 - private
    told = [f"{missing / rows:.0%} of the cells are missing"] if rows and missing > 0.2 * rows else []
    told += [f"{unreadable} cells are no number or day"] if unreadable else []
    return [*told, *(["every value is the same: perhaps it means that nothing was measured"] if constant else [])]


def _spread(values: pl.Series) -> Spread | None:
    if len(values) == 0:
        return None
    low, high = float(values.min() or 0.0), float(values.max() or 0.0)  # type: ignore[arg-type]  # numbers
    start, middle, stop = (float(values.quantile(share) or 0.0) for share in _QUANTILES)
    width = (high - low) / _BINS or 1.0
    places = ((values - low) / width).floor().clip(0, _BINS - 1).cast(pl.Int64)
    counts = dict(places.value_counts().iter_rows())
    histogram = tuple(int(counts.get(place, 0)) for place in range(_BINS))
    return Spread(low, start, middle, stop, high, histogram)
