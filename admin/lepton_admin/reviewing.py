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
from lepton_kg.concept import Concept
from lepton_kg.mapping import Column, Mapping, dump_mapping, parse_mapping
from lepton_kg.ontology import Ontology
from lepton_kg.source import in_one, read_batches, source_schema
from lepton_kg.suggest import ColumnProfile, Suggestion, profile_columns, suggest
from lepton_kg.suggest_line import open_codes, propose_line, suggest_codes

#: Rows that the statistics are of.
SAMPLE_ROWS = 200_000
#: Codes of a line that are shown.
SHOWN_CODES = 12

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
    codes = f", codes {', '.join(profile.distinct_values[:SHOWN_CODES])}" if profile.distinct_values else ""
    say(f"    the sample: {profile.dtype}{ends}{codes}")
    if concept.value_set:
        named = {value.iri: value.labels.get("en") or next(iter(value.labels.values())) for value in concept.value_set}
        meant = [f"{raw} = {named.get(mapping.iri(name), name)}" for raw, name in column.codes.items()]
        say(f"    codes: {', '.join(meant[:SHOWN_CODES]) or 'none'}{_left_open(line)}")
    for number, candidate in enumerate(line.suggestion.candidates, 1):
        label = ontology.concept(candidate.concept).label
        say(f"    {number}. {label} ({candidate.score:.2f}): {'; '.join(candidate.reasons)}")


def _left_open(line: _Line) -> str:
    left = open_codes(line.column, line.profile)
    return f"; left open, so that their rows are refused: {', '.join(left[:SHOWN_CODES])}" if left else ""


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
        elif not _has_codes(line, concept, chosen=concept.iri != mapping.iri(line.column.concept)):
            say(f"    no code of the column is known to mean a value of {concept.label}: {_values(concept)}")
            say("    write under codes which means which, and review again; or skip")
        else:
            return concept.iri


def _has_codes(line: _Line, concept: Concept, *, chosen: bool) -> bool:
    """True unless the concept is coded and the line would have no code for any of its values."""
    return not concept.value_set or bool(suggest_codes(concept, line.profile) if chosen else line.column.codes)


def _values(concept: Concept) -> str:
    return ", ".join(value.iri for value in concept.value_set[:SHOWN_CODES])


def _changed(line: _Line, iri: str, ontology: Ontology) -> Column:
    """The line with another concept, its unit and codes; what "no value" is called stays."""
    made = propose_line(
        ontology.concept(iri), line.profile, unit=line.suggestion.unit, why="chosen in review", score=None
    )
    missing = line.column.missing
    codes = {raw: value for raw, value in made.codes.items() if raw not in missing}
    return made.model_copy(update={"missing": missing, "codes": codes})
