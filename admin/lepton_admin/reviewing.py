"""Going through a proposed mapping with a person: accept, change or skip each line; nothing is approved by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lepton_admin.files import read_text, write_public
from lepton_core.errors import LeptonError
from lepton_core.identity import IdentityKey
from lepton_kg.approval import approve
from lepton_kg.mapping import Column, Mapping, dump_mapping, parse_mapping
from lepton_kg.ontology import Ontology
from lepton_kg.source import in_one, read_batches, source_schema
from lepton_kg.suggest import ColumnProfile, Suggestion, profile_columns, suggest, suggest_codes

#: Rows that the statistics are of.
SAMPLE_ROWS = 200_000

#: Asks one question and gives the answer; None at the end of the input.
Ask = Callable[[str], str | None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Review:
    """What a person decided; no statistics."""

    accepted: tuple[str, ...]
    #: Column -> the concept chosen in place of the proposed one.
    changed: dict[str, str]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    """A line under review, with what a person needs to decide about it."""

    column: Column
    suggestion: Suggestion
    profile: ColumnProfile


def review_mapping(
    file: Path, ontology: Ontology, *, approver: str, key: IdentityKey | None, ask: Ask, say: Say
) -> Review:
    """Go through the proposed lines; what was decided is written at the end, or when the input ends.

    Statistics of the sample go to `say` alone. An accepted or changed line is approved by the approver, today; a
    skipped one stays proposed.

    Raises:
        MappingError, DataError: the mapping or its source cannot be read; the file is left as it is.
    """
    mapping = parse_mapping(read_text(file, "mapping"), source=str(file))
    base = file.resolve().parent
    schema = source_schema(mapping.source, base)
    accepted: list[str] = []
    changed: dict[str, str] = {}
    skipped: list[str] = []
    rows = list(mapping.columns)
    open_lines = [place for place, column in enumerate(rows) if column.status == "proposed"]
    sample = sample_rows(mapping, [rows[place].column for place in open_lines], base)
    profiles = {profile.name: profile for profile in profile_columns(sample, mapping.source)}
    found = {one.column: one for one in suggest(ontology, list(profiles.values()), mapping.vocabulary)}
    ended = False
    for number, place in enumerate(open_lines, 1):
        column = rows[place]
        if ended:
            skipped.append(column.column)
            continue
        line = _Line(column, found[column.column], profiles[column.column])
        _show(line, f"{number} of {len(open_lines)}", mapping, ontology, say)
        taken = {mapping.iri(row.concept) for other, row in enumerate(rows) if other != place}
        answer = _decide(line, ontology, taken, mapping, ask=ask, say=say)
        if answer is None:
            ended = True
        if not answer:
            skipped.append(column.column)
        elif answer == mapping.iri(column.concept):
            accepted.append(column.column)
        else:
            rows[place] = _changed(line, answer, ontology)
            changed[column.column] = answer
    decided = {*accepted, *changed}
    if decided:
        document = mapping.model_copy(update={"columns": tuple(rows)})
        today = dt.datetime.now(dt.UTC).date()
        approved = approve(
            document, approver=approver, date=today, schema=schema, ontology=ontology, key=key, only=decided
        )
        write_public(file, dump_mapping(approved).encode(), replace=True)
    return Review(tuple(accepted), changed, tuple(skipped))


def sample_rows(mapping: Mapping, columns: list[str], base: Path) -> pl.DataFrame:
    """The first rows of these columns."""
    taken: list[pl.DataFrame] = []
    height = 0
    for batch in read_batches(mapping.source, columns, base):
        taken.append(batch)
        height += batch.height
        if height >= SAMPLE_ROWS:
            break
    return in_one(taken, columns)


def _show(line: _Line, place: str, mapping: Mapping, ontology: Ontology, say: Say) -> None:
    column, profile = line.column, line.profile
    concept = ontology.concept(mapping.iri(column.concept))
    say("")
    say(f"({place}) {column.column!r} is {concept.label}?  {concept.iri}")
    score = "-" if column.score is None else f"{column.score:g}"
    say(f"    unit {column.unit or '-'}; score {score}; {column.justification}")
    ends = "" if profile.minimum is None else f", {profile.minimum:g} to {profile.maximum:g}"
    codes = f", codes {', '.join(profile.distinct_values[:12])}" if profile.distinct_values else ""
    say(f"    the sample: {profile.dtype}{ends}{codes}")
    for number, candidate in enumerate(line.suggestion.candidates, 1):
        label = ontology.concept(candidate.concept).label
        say(f"    {number}. {label} ({candidate.score:.2f}): {'; '.join(candidate.reasons)}")


def _decide(line: _Line, ontology: Ontology, taken: set[str], mapping: Mapping, *, ask: Ask, say: Say) -> str | None:
    """The IRI that was chosen, empty to skip, None at the end of the input."""
    while True:
        answer = ask("accept [a], another [number or IRI], skip [s], stop [q]: ")
        word = (answer or "q").strip()
        if word in {"q", "quit"}:
            return None
        if word in {"", "s", "skip"}:
            return ""
        chosen = mapping.iri(line.column.concept) if word in {"a", "accept"} else word
        if word.isdecimal() and 1 <= int(word) <= len(line.suggestion.candidates):
            chosen = line.suggestion.candidates[int(word) - 1].concept
        try:
            concept = ontology.concept(mapping.iri(chosen))
        except LeptonError as error:
            say(f"    {error.message}: {error.got}; {error.hint}")
            continue
        if concept.iri in taken:
            say(f"    another column is {concept.label} already")
        elif not concept.is_observable:
            say(f"    {concept.label} groups other concepts; no column holds it")
        else:
            return concept.iri


def _changed(line: _Line, iri: str, ontology: Ontology) -> Column:
    """The line with another concept, its unit and codes; what "no value" is called stays."""
    concept = ontology.concept(iri)
    codes = suggest_codes(concept, line.profile)
    column, suggestion = line.column, line.suggestion
    return Column(
        column=column.column,
        concept=iri,
        unit=(suggestion.unit or concept.unit) if concept.is_numeric else None,
        codes={} if concept.is_numeric else codes,
        missing=column.missing,
        justification="chosen in review",
    )
