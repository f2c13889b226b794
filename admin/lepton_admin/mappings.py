"""Proposing, checking and approving a mapping, beside the data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from pathlib import Path

from lepton_admin.files import read_bytes, read_text, read_toml, require_absent, write_public
from lepton_admin.reviewing import SHOWN_CODES, Say, sample_rows
from lepton_core.errors import InputError, MappingError, UnitError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest
from lepton_core.privacy.units import UNIT_SUBJECT
from lepton_core.settings import parse_settings
from lepton_core.task import Task
from lepton_kg.approval import Renewal, renew, require_current
from lepton_kg.approval import approve as approve_columns
from lepton_kg.compiler import compile_plan
from lepton_kg.dialect import detect_dialect
from lepton_kg.examine import require_one_way, require_subjects
from lepton_kg.mapping import Column, Mapping, Source, dump_mapping, parse_mapping
from lepton_kg.mapping_check import MappingProblem
from lepton_kg.mapping_check import check_mapping as check_meaning
from lepton_kg.ontology import Ontology, parse_ontology
from lepton_kg.plan import PlanReport
from lepton_kg.rdf import require_size
from lepton_kg.source import is_mappable, read_batches, require_cells, source_schema
from lepton_kg.sssom import from_sssom, to_sssom
from lepton_kg.suggest import Suggestion, profile_columns
from lepton_kg.suggest import suggest as suggest_concepts
from lepton_kg.suggest_line import propose_line
from lepton_kg.unknown_codes import MAX_DISTINCT, CodeCount, UnknownCodes

_KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".sqlite": "sqlite", ".db": "sqlite"}


@dataclass(frozen=True)
class SourceShape:
    """Where the data lie, and what cannot be read off them; None is found out."""

    #: A file, or a database's URL.
    place: str
    table: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    #: File with a database's password.
    password_file: Path | None = None


@dataclass(frozen=True)
class Proposal:
    """A proposed mapping: how the source is written, and what each column may mean."""

    #: One line a finding.
    source: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]


@dataclass(frozen=True)
class MappingReport:
    """What `lepton mapping check` found; for the owner's eyes."""

    columns: int
    approved: int
    ontology: str
    #: The column that tells subjects apart; None: jobs that protect subjects are refused.
    subject: str | None
    #: How the rows serve a job; None without one.
    rows: PlanReport | None
    #: Columns with codes that the mapping does not name, in rows that a job asks for.
    unknown_codes: tuple[UnknownCodes, ...] = ()


def propose(
    shape: SourceShape,
    ontology_file: Path,
    format: str,
    vocabulary: str,
    file: Path,
) -> Proposal:
    """How the source is written, and what each column may mean; the best go to `file` as a proposed mapping.

    Raises:
        DataError: the source cannot be read.
        OntologyError: the ontology cannot be read.
        MappingError: no column comes near any concept.
        ConflictError: `file` exists.
    """
    ontology = load_ontology(ontology_file, format)
    require_absent(file)
    source, found = _source_of(shape, file.parent)
    base = file.resolve().parent
    like = Mapping(ontology=ontology.digest, source=source, columns=(Column(column="any", concept="any"),))
    schema = source_schema(source, base)
    left_out = [name for name, kind in schema.items() if not is_mappable(kind)]
    if left_out:
        found = (*found, f"no numbers, dates or text, so left out: {', '.join(left_out)}")
    frame = sample_rows(like, [name for name in schema if name not in left_out], base)
    profiles = {profile.name: profile for profile in profile_columns(frame, source)}
    suggestions = suggest_concepts(ontology, list(profiles.values()), vocabulary)
    columns: list[Column] = []
    taken: set[str] = set()
    for suggestion in sorted(suggestions, key=lambda s: -s.candidates[0].score if s.candidates else 0.0):
        best = next((candidate for candidate in suggestion.candidates if candidate.concept not in taken), None)
        if best is None:
            continue
        taken.add(best.concept)
        columns.append(
            propose_line(
                ontology.concept(best.concept),
                profiles[suggestion.column],
                unit=suggestion.unit,
                why="; ".join(best.reasons),
                score=round(min(1.0, max(0.0, best.score)), 3),
            )
        )
    if not columns:
        raise MappingError("no column comes near any concept", where=shape.place, hint="write the mapping by hand")
    order = {suggestion.column: place for place, suggestion in enumerate(suggestions)}
    columns.sort(key=lambda column: order[column.column])
    mapping = Mapping(ontology=ontology.digest, source=source, columns=tuple(columns))
    write_public(file, dump_mapping(mapping).encode())
    return Proposal(found, tuple(suggestions))


def check_mapping(
    mapping_file: Path,
    ontology_file: Path,
    format: str,
    job_file: Path | None,
    say: Say,
) -> MappingReport:
    """What holds of a mapping; raises if it does not hold. Unknown codes themselves go to `say` alone.

    Raises:
        MappingError, UnitError, OntologyError, DataError: what is wrong, and where.
        MatchRefusal: the mapping cannot serve the job.
    """
    ontology = load_ontology(ontology_file, format)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    base = mapping_file.resolve().parent
    schema = source_schema(mapping.source, base)
    approved = sum(column.status == "approved" for column in mapping.columns)
    _require_sound(mapping, ontology, mapping_file, schema)
    if approved == len(mapping.columns):
        require_current(mapping, Digest(ontology.digest), schema)
    rows: PlanReport | None = None
    unknown: tuple[UnknownCodes, ...] = ()
    if job_file is not None:
        task, subjects = _asked(job_file, ontology)
        plan = compile_plan(task, mapping, ontology, subjects=subjects)
        codes = CodeCount(plan.features, plan.target)
        rows = plan.check(read_batches(mapping.source, plan.columns, base), codes=codes)
        unknown = codes.columns()
        for one in unknown:
            say(f"{one.column!r} ({one.concept}): {one.rows} rows with codes that the mapping does not name")
            say(f"    {_shown(codes.codes(one.column))}")
    subject = mapping.subject.column if mapping.subject is not None else None
    return MappingReport(len(mapping.columns), approved, ontology.digest, subject, rows, unknown)


def _shown(codes: AbstractMapping[str, int] | None) -> str:
    if codes is None:
        return f"more than {MAX_DISTINCT} different ones: perhaps the column is not coded"
    shown = [f"{code!r} in {rows}" for code, rows in list(codes.items())[:SHOWN_CODES]]
    more = f", and {len(codes) - SHOWN_CODES} more codes" if len(codes) > SHOWN_CODES else ""
    return f"{', '.join(shown)}{more}: name their values under codes, or list them under missing"


def approve_mapping(
    mapping_file: Path, ontology_file: Path, format: str, approver: str, *, key: IdentityKey | None = None
) -> Mapping:
    """The mapping with every line approved, signed with the owner's key if one is given; the file is replaced.

    Raises:
        MappingError, UnitError, OntologyError, DataError: it must be correct before it can be approved.
    """
    ontology = load_ontology(ontology_file, format)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    base = mapping_file.resolve().parent
    schema = source_schema(mapping.source, base)
    _require_sound(mapping, ontology, mapping_file, schema)
    today = dt.datetime.now(dt.UTC).date()
    approved = approve_columns(mapping, approver=approver, date=today, schema=schema, ontology=ontology, key=key)
    write_public(mapping_file, dump_mapping(approved).encode(), replace=True)
    return approved


def renew_mapping(mapping_file: Path, ontology_file: Path, format: str) -> Renewal:
    """The mapping taken to this ontology version and to the source as it is now; the file is replaced if it changed.

    Raises:
        MappingError, OntologyError, DataError: a file that cannot be read.
    """
    ontology = load_ontology(ontology_file, format)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    renewed = renew(mapping, ontology, source_schema(mapping.source, mapping_file.resolve().parent))
    if renewed.mapping != mapping:
        write_public(mapping_file, dump_mapping(renewed.mapping).encode(), replace=True)
    return renewed


def export_sssom(mapping_file: Path, ontology_file: Path, format: str, file: Path) -> int:
    """Write the mapping's concept level as SSSOM TSV; gives the number of lines.

    Raises:
        MappingError, OntologyError: a file that cannot be read.
        ConflictError: `file` exists.
    """
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    write_public(file, to_sssom(mapping, load_ontology(ontology_file, format)).encode())
    return len(mapping.columns)


def import_sssom(table: Path, mapping_file: Path) -> Mapping:
    """The mapping with the concept level of an SSSOM table; the file is replaced.

    Raises:
        MappingError, SettingsError: a file that is not what it should be; the mapping is left as it is.
    """
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    merged = from_sssom(read_text(table, "SSSOM table"), source=str(table), like=mapping)
    write_public(mapping_file, dump_mapping(merged).encode(), replace=True)
    return merged


def load_signing_key(client: Path | None) -> IdentityKey | None:
    """The identity key in a client's folder; None without one.

    Raises:
        InputError, IdentityError: the folder is no client's.
    """
    if client is None:
        return None
    from lepton_client.home import Home, load_identity

    return load_identity(Home(client))


def load_ontology(file: Path, format: str) -> Ontology:
    """The ontology in a document; nothing is read of one that is too large.

    Raises:
        InputError, OntologyError: it is missing, or cannot be read.
    """
    if file.is_file():
        require_size(file.stat().st_size, str(file))
    return parse_ontology(read_bytes(file, "ontology"), format=format, source=str(file))


def _source_of(shape: SourceShape, folder: Path) -> tuple[Source, tuple[str, ...]]:
    """The source, and what was found out about it."""
    if "://" in shape.place:
        document: dict[str, object] = {"kind": "sql", "url": shape.place, "table": shape.table}
        if shape.password_file is not None:
            document["password_file"] = _relative(shape.password_file, folder)
        return parse_settings(Source, document, source="command line"), ("a database, read in read-only transactions",)
    path = Path(shape.place)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            "a source of an unknown kind",
            where=shape.place,
            expected=f"a database's URL, or a file ending in {', '.join(_KINDS)}",
            got=path.suffix or "no ending",
        )
    document = {"kind": kind, "path": _relative(path, folder)}
    if shape.table is not None:
        document["table"] = shape.table
    found: tuple[str, ...] = (f"a {kind} file",)
    if kind == "csv":
        dialect = detect_dialect(path, delimiter=shape.delimiter, decimal=shape.decimal)
        document["csv"] = dialect.options
        found = dialect.reasons
    return parse_settings(Source, document, source="command line"), found


def _relative(path: Path, folder: Path) -> str:
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return str(path.resolve())


def _require_sound(mapping: Mapping, ontology: Ontology, file: Path, schema: dict[str, str]) -> None:
    """Refuse a mapping that means nothing, or a source that is not written as it says."""
    base = file.resolve().parent
    _require_meaning(mapping, ontology, file, schema)
    require_cells(mapping.source, schema, [column.column for column in mapping.columns])
    require_one_way(mapping, ontology, base)
    require_subjects(mapping, base)


def _require_meaning(mapping: Mapping, ontology: Ontology, file: Path, schema: dict[str, str]) -> None:
    """Refuse a mapping for another ontology, with absent columns, unknown concepts or codes, or units that do not fit.

    The first thing that is wrong is told whole, and how many others are.
    """
    problems = check_meaning(mapping, ontology)
    named = [column.column for column in mapping.columns]
    absent = [
        MappingProblem(
            column,
            "MISSING_COLUMN",
            "a mapped column that the source does not have",
            expected=", ".join(schema),
            got=column,
            hint="correct the mapping, or the file",
        )
        for column in (*named, *((mapping.subject.column,) if mapping.subject is not None else ()))
        if column not in schema
    ]
    every = [*absent, *problems]
    if not every:
        return
    first = next((one for one in problems if one.reason == "ONTOLOGY_MISMATCH"), every[0])
    more = f"; {len(every) - 1} more" if len(every) > 1 else ""
    kind = UnitError if first.reason == "UNIT_MISMATCH" else MappingError
    raise kind(
        f"{first.message}{more}",
        where=f"{file}: " + (first.place or "ontology"),
        expected=first.expected,
        got=first.got,
        hint=first.hint,
        reason=first.reason,
    )


def _asked(job_file: Path, ontology: Ontology) -> tuple[Task, bool]:
    """The task of a job file, whose ontology by label is taken to be this one; and whether it protects subjects."""
    job = read_toml(job_file, "job file")
    document, privacy = job.get("task"), job.get("privacy")
    if not isinstance(document, dict):
        raise InputError("the job file has no task", where=str(job_file), expected="a [task] table")
    if "://" not in str(document.get("ontology")) and len(str(document.get("ontology"))) != 64:
        document["ontology"] = ontology.digest
    subjects = isinstance(privacy, dict) and privacy.get("unit") == UNIT_SUBJECT
    return parse_settings(Task, document, source=str(job_file)), subjects
