"""Ranked proposals of what a column may mean, with reasons; a person approves, never this module.

Score: the name's likeness to a label or synonym in any language (1 for equality after normalisation, else rapidfuzz, or
how well it abbreviates), then small steps for what speaks for or against it: the unit in the name, the type, the range,
the value set.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import polars as pl
from rapidfuzz import fuzz

from lepton_core.errors import UnitError
from lepton_kg.cells import coded, written_in
from lepton_kg.concept import Concept, Value
from lepton_kg.formulas import DATE
from lepton_kg.mapping import DateFormat, Source
from lepton_kg.ontology import Ontology
from lepton_kg.units import conversion

#: Most candidates a column is shown.
MAX_CANDIDATES = 5
#: Candidates below this are not worth reading.
MIN_SCORE = 0.3
#: A first candidate of at least this is likely enough to be accepted after a glance.
ACCEPT_SCORE = 0.85
#: Most distinct values a profile lists; a column with more is not coded.
MAX_DISTINCT = 50

#: How far each piece of evidence moves the score.
_UNIT_FITS, _UNIT_CONTRADICTS = 0.08, -0.25
_TYPE_CONTRADICTS = -0.3
_RANGE_FITS, _RANGE_CONTRADICTS = 0.05, -0.15
_VALUES_FIT, _VALUES_CONTRADICT, _COUNT_FITS = 0.5, -0.1, 0.1
#: Fewer letters abbreviate anything.
_SHORTEST_ABBREVIATION = 3
#: Codes for "missing" and the like that a coded column may have beside its values.
_SPARE_CODES = 3


@dataclass(frozen=True)
class ColumnProfile:
    """What a column looks like; private, so it never leaves the owner."""

    name: str
    dtype: str
    #: Of the cells that are numbers; None if there are none.
    minimum: float | None = None
    maximum: float | None = None
    #: Stripped texts of a column with few different cells; empty for others.
    distinct_values: tuple[str, ...] = ()
    #: Ways to write a date in which every cell is a day.
    date_formats: tuple[DateFormat, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One concept a column may mean."""

    concept: str
    #: In [0, 1].
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Suggestion:
    """A column with its candidates, best first; empty if nothing comes near."""

    column: str
    candidates: tuple[Candidate, ...]
    #: UCUM unit read from the column's name, such as `mm2` of `area_mm2`; None if it tells none.
    unit: str | None = None


def profile_columns(frame: pl.DataFrame, source: Source) -> list[ColumnProfile]:
    """A profile of each column of the frame, which was read from that source."""
    return [_profile(frame[name], source.decimal) for name in frame.columns]


def suggest(ontology: Ontology, columns: Sequence[ColumnProfile], vocabulary: str = "") -> list[Suggestion]:
    """Candidates for each column among the ontology's observable concepts below the IRI prefix `vocabulary`."""
    concepts = [
        (concept, _names(concept))
        for iri, concept in sorted(ontology.concepts.items())
        if concept.is_observable and iri.startswith(vocabulary)
    ]
    return [_suggest_one(column, concepts) for column in columns]


def value_names(value: Value) -> tuple[str, ...]:
    """What a code of the value may be: its labels, synonyms and notation, normalised."""
    return tuple(normalized(text) for text in (*value.labels.values(), *value.synonyms, value.notation or "") if text)


def normalized(text: str) -> str:
    """Words in lower case without accents, one blank between; camelCase and punctuation part words."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFKC", plain))
    return " ".join(re.findall(r"\w+", text.replace("_", " ").casefold()))


@dataclass(frozen=True)
class _Name:
    """One thing that a column of a concept may be called."""

    #: Normalised.
    text: str
    #: What it is of the concept, for people: `label (de)`, `synonym`, `value`.
    kind: str


def _names(concept: Concept) -> tuple[_Name, ...]:
    """What a column of the concept may be called; a coded one is often called after a value, as in `malignant_yn`."""
    told = {
        normalized(label): f"label ({language})" if language else "label" for language, label in concept.labels.items()
    }
    named = [(name, "synonym") for name in concept.synonyms]
    named += [(name, "value") for value in concept.value_set for name in (*value.labels.values(), *value.synonyms)]
    for name, kind in named:
        told.setdefault(normalized(name), kind)
    return tuple(_Name(text, kind) for text, kind in sorted(told.items()) if text)


def _profile(cells: pl.Series, decimal: str) -> ColumnProfile:
    text = cells.cast(pl.String).str.strip_chars()
    numbers = cells
    if not cells.dtype.is_numeric():
        numbers = text.str.replace(decimal, ".", literal=True)
    values = numbers.cast(pl.Float64, strict=False).drop_nulls().drop_nans()
    # As the plan reads them: 1.0 of a column of floats is the code 1.
    distinct = cells.to_frame().select(coded(cells.name, cells.dtype))[cells.name].drop_nulls().unique().sort()
    low, high = values.min(), values.max()
    return ColumnProfile(
        name=cells.name,
        dtype="number" if len(values) > len(text) / 2 else "text",
        minimum=float(low) if isinstance(low, float) else None,
        maximum=float(high) if isinstance(high, float) else None,
        distinct_values=tuple(distinct) if len(distinct) <= MAX_DISTINCT else (),
        date_formats=_ways(cells, distinct),
    )


def _ways(cells: pl.Series, distinct: pl.Series) -> tuple[DateFormat, ...]:
    """In which ways all the different cells are days; a column of dates needs none but the first."""
    ways: tuple[DateFormat, ...] = get_args(DateFormat)
    if cells.dtype == pl.Date or isinstance(cells.dtype, pl.Datetime):
        return ways[:1]
    return tuple(way for way in ways if len(distinct) and bool(written_in(distinct, way).all()))


def _suggest_one(column: ColumnProfile, concepts: Sequence[tuple[Concept, tuple[_Name, ...]]]) -> Suggestion:
    name, unit = _split_unit(column.name)
    names = tuple({normalized(column.name), name})
    candidates = []
    for concept, labels in concepts:
        score, reasons = _likeness(names, labels)
        # The last word may be no unit but a part of the name, as `hr` of `max_hr`.
        spoken = unit if unit is None or score <= _likeness((name,), labels)[0] else None
        for step, reason in _evidence(column, spoken, concept):
            score += step
            reasons = (*reasons, reason)
        score = round(min(max(score, 0.0), 1.0), 4)
        if score >= MIN_SCORE:
            candidates.append(Candidate(concept.iri, score, reasons))
    candidates.sort(key=lambda candidate: (-candidate.score, candidate.concept))
    return Suggestion(column.name, tuple(candidates[:MAX_CANDIDATES]), unit)


def _likeness(names: Sequence[str], known: Sequence[_Name]) -> tuple[float, tuple[str, ...]]:
    best, why = 0.0, ""
    for name in names:
        for one in known:
            if name == one.text:
                return 0.95, (f"name equals the {one.kind} {one.text!r}",)
            # token_set alone calls "radius" equal to "mean radius"; token_sort holds it to account.
            score = (fuzz.token_set_ratio(name, one.text) + fuzz.token_sort_ratio(name, one.text)) / 200
            short = _abbreviation(name, one.text)
            if score > best and score >= short:
                best, why = score, f"name resembles the {one.kind} {one.text!r} ({score:.0%})"
            elif short > best:
                best, why = short, f"name abbreviates the {one.kind} {one.text!r}"
    return 0.85 * best, (why,) if why else ()


def _abbreviation(name: str, label: str) -> float:
    """In [0, 1]: how well the name's words stand for the label's, in order; 0 if they do not.

    `max hr` stands for `maximum heart rate` and `chol` for `cholesterol`: each word begins a word and goes on with
    letters of it, in order, or is the first letters of several. The more of the label it leaves out, the less.
    """
    words, parts = name.split(), label.split()
    if not words or not parts or len(name) >= len(label) or not name.replace(" ", "").isascii():
        return 0.0
    place = used = 0
    for word in words:
        while place < len(parts):
            initials = "".join(part[0] for part in parts[place : place + len(word)])
            if len(word) > 1 and initials == word:
                used, place = used + len(word), place + len(word)
                break
            if _cut_of(word, parts[place]):
                used, place = used + 1, place + 1
                break
            place += 1
        else:
            return 0.0
    letters = len(name.replace(" ", ""))
    if letters < _SHORTEST_ABBREVIATION and letters != used:
        return 0.0
    return used / len(parts) * (0.7 + 0.25 * min(1.0, letters / (3 * len(parts))))


def _cut_of(word: str, whole: str) -> bool:
    """True if the word begins as the whole does and its letters come in the whole's order."""
    if len(word) < 2 or not whole.startswith(word[0]) or len(word) > len(whole):
        return False
    rest = iter(whole)
    return all(letter in rest for letter in word)


def _evidence(column: ColumnProfile, unit: str | None, concept: Concept) -> list[tuple[float, str]]:
    if concept.value_set:
        return _coded_evidence(column, concept)
    if concept.datatype == DATE:
        return _dated_evidence(column)
    found: list[tuple[float, str]] = []
    if column.dtype == "text" and column.minimum is None:
        told = "is numeric, the column is not" if concept.is_numeric else "has no value set, so that no job can use it"
        found.append((_TYPE_CONTRADICTS, f"the concept {told}"))
    elif len(column.distinct_values) in {1, 2}:
        found.append((_TYPE_CONTRADICTS, "the concept is measured, the column has hardly any different values"))
    line = None
    if concept.unit is not None:
        try:
            line = conversion(unit or concept.unit, concept.unit, molar_mass_g_per_mol=concept.molar_mass_g_per_mol)
        except UnitError:
            return [*found, (_UNIT_CONTRADICTS, f"{unit} is no unit of {concept.quantity_kind}")]
        if unit is not None:
            found.append((_UNIT_FITS, f"{unit} is a unit of {concept.quantity_kind}"))
    low, high = concept.plausible_minimum, concept.plausible_maximum
    if None not in {column.minimum, column.maximum, low, high} and line is not None:
        inside = line(column.minimum or 0.0) >= (low or 0.0) and line(column.maximum or 0.0) <= (high or 0.0)
        assumed = "" if unit else f" if written in {concept.unit}"
        found.append(
            (_RANGE_FITS, f"values lie in the plausible range{assumed}")
            if inside
            else (_RANGE_CONTRADICTS, f"values lie outside the plausible range{assumed}")
        )
    return found


def _dated_evidence(column: ColumnProfile) -> list[tuple[float, str]]:
    if not column.date_formats:
        return [(_TYPE_CONTRADICTS, "the concept is a date, the column is not written in one way as dates")]
    return [(_RANGE_FITS, f"every cell is a date written {' or '.join(column.date_formats)}")]


def _coded_evidence(column: ColumnProfile, concept: Concept) -> list[tuple[float, str]]:
    if not column.distinct_values:
        return [(_TYPE_CONTRADICTS, "the concept is coded, the column has many different values")]
    known = {name for value in concept.value_set for name in value_names(value)}
    found: list[tuple[float, str]] = []
    hits = sum(normalized(value) in known for value in column.distinct_values)
    if hits:
        step = _VALUES_FIT * hits / len(column.distinct_values)
        found.append((step, f"{hits} of {len(column.distinct_values)} codes are of the value set"))
    if len(column.distinct_values) == len(concept.value_set):
        found.append((_COUNT_FITS, "as many codes as the value set has values"))
    elif len(column.distinct_values) > len(concept.value_set) + _SPARE_CODES:
        found.append((_VALUES_CONTRADICT, "many more codes than the value set has values"))
    return found


def _split_unit(name: str) -> tuple[str, str | None]:
    """The normalised name without its unit, and the unit: `Fläche (mm²)`, `area_mm2`, `radius [um]`."""
    found = re.fullmatch(r"(?P<name>.*?)\s*[\[(（](?P<unit>[^\])）]+)[\])）]\s*", name)
    if found is None:
        found = re.fullmatch(r"(?P<name>.*[^_\s])[_\s]+(?P<unit>[^_\s]+)", name)
    if found is None:
        return normalized(name), None
    unit = found["unit"].strip()
    try:
        conversion(unit, unit)
    except UnitError:
        return normalized(name), None
    return (normalized(found["name"]), unit) if not unit.isdigit() else (normalized(name), None)
