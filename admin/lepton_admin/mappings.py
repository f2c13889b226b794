"""Proposing, checking and approving a mapping, beside the data."""

from __future__ import annotations

import datetime as dt
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lepton_admin.files import read_bytes, read_text, write_public
from lepton_core.errors import InputError, LeptonError, MappingError
from lepton_core.ids import Digest
from lepton_core.job import Task
from lepton_core.settings import parse_settings
from lepton_kg.mapping import Column, CsvOptions, Mapping, Source, dump_mapping, parse_mapping, require_current
from lepton_kg.mapping import approve as approve_columns
from lepton_kg.ontology import Ontology, parse_ontology
from lepton_kg.plan import PlanReport, compile_plan
from lepton_kg.source import read_columns, source_schema
from lepton_kg.suggest import Suggestion, profile_columns
from lepton_kg.suggest import suggest as suggest_concepts
from lepton_kg.units import conversion

_KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".sqlite": "sqlite", ".db": "sqlite"}


@dataclass(frozen=True)
class SourceShape:
    """A data file and what cannot be read off it."""

    path: Path
    table: str | None
    delimiter: str
    decimal: str


@dataclass(frozen=True)
class MappingReport:
    """What `lepton mapping check` found; for the owner's eyes."""

    columns: int
    approved: int
    ontology: str
    #: How the rows serve a job; None without one.
    rows: PlanReport | None


def propose(
    shape: SourceShape,
    ontology_file: Path,
    format: str,
    vocabulary: str,
    file: Path,
) -> list[Suggestion]:
    """The candidates for each column; the best ones are written to `file` as a proposed mapping.

    Raises:
        DataError: the source cannot be read.
        OntologyError: the ontology cannot be read.
        MappingError: no column comes near any concept.
        ConflictError: `file` exists.
    """
    ontology = _load_ontology(ontology_file, format)
    source = _source_of(shape, file.parent)
    base = file.resolve().parent
    frame = read_columns(source, list(source_schema(source, base)), base)
    suggestions = suggest_concepts(ontology, profile_columns(frame, source), vocabulary)
    columns: list[Column] = []
    taken: set[str] = set()
    for suggestion in sorted(suggestions, key=lambda s: -s.candidates[0].score if s.candidates else 0.0):
        best = next((candidate for candidate in suggestion.candidates if candidate.concept not in taken), None)
        if best is None:
            continue
        taken.add(best.concept)
        concept = ontology.concept(best.concept)
        codes = {} if concept.is_numeric else {v.notation: v.iri for v in concept.value_set if v.notation is not None}
        columns.append(
            Column(
                column=suggestion.column,
                concept=best.concept,
                unit=(suggestion.unit or concept.unit) if concept.is_numeric else None,
                codes=codes,
                justification="; ".join(best.reasons)[:2_000],
                score=round(min(1.0, max(0.0, best.score)), 3),
            )
        )
    if not columns:
        raise MappingError("no column comes near any concept", where=str(shape.path), hint="write the mapping by hand")
    order = {suggestion.column: place for place, suggestion in enumerate(suggestions)}
    columns.sort(key=lambda column: order[column.column])
    mapping = Mapping(ontology=ontology.digest, source=source, columns=tuple(columns))
    write_public(file, dump_mapping(mapping).encode())
    return suggestions


def check_mapping(
    mapping_file: Path,
    ontology_file: Path,
    format: str,
    job_file: Path | None,
) -> MappingReport:
    """What holds of a mapping; raises if it does not hold.

    Raises:
        MappingError, UnitError, OntologyError, DataError: what is wrong, and where.
        MatchRefusal: the mapping cannot serve the job.
    """
    ontology = _load_ontology(ontology_file, format)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    base = mapping_file.resolve().parent
    schema = source_schema(mapping.source, base)
    approved = sum(column.status == "approved" for column in mapping.columns)
    _require_meaning(mapping, ontology, mapping_file, schema)
    if approved == len(mapping.columns):
        require_current(mapping, Digest(ontology.digest), schema)
    rows = None
    if job_file is not None:
        plan = compile_plan(_task_of(job_file, ontology), mapping, ontology)
        rows = plan.check(read_columns(mapping.source, plan.columns, base))
    return MappingReport(len(mapping.columns), approved, ontology.digest, rows)


def approve_mapping(mapping_file: Path, ontology_file: Path, format: str, approver: str) -> Mapping:
    """The mapping with every line approved; the file is replaced.

    Raises:
        MappingError, UnitError, OntologyError, DataError: it must be correct before it can be approved.
    """
    ontology = _load_ontology(ontology_file, format)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    schema = source_schema(mapping.source, mapping_file.resolve().parent)
    _require_meaning(mapping, ontology, mapping_file, schema)
    today = dt.datetime.now(dt.UTC).date()
    approved = approve_columns(mapping, approver=approver, date=today, schema=schema)
    write_public(mapping_file, dump_mapping(approved).encode(), replace=True)
    return approved


def _load_ontology(file: Path, format: str) -> Ontology:
    return parse_ontology(read_bytes(file, "ontology"), format=format, source=str(file))


def _source_of(shape: SourceShape, folder: Path) -> Source:
    kind = _KINDS.get(shape.path.suffix.lower())
    if kind is None:
        raise InputError(
            "a source of an unknown kind",
            where=str(shape.path),
            expected=f"a file ending in {', '.join(_KINDS)}",
            got=shape.path.suffix or "no ending",
        )
    path = shape.path.resolve()
    try:
        relative = path.relative_to(folder.resolve())
    except ValueError:
        relative = path
    document: dict[str, object] = {"kind": kind, "path": str(relative)}
    if shape.table is not None:
        document["table"] = shape.table
    if kind == "csv":
        document["csv"] = CsvOptions.model_validate({"delimiter": shape.delimiter, "decimal": shape.decimal})
    return parse_settings(Source, document, source="command line")


def _require_meaning(mapping: Mapping, ontology: Ontology, file: Path, schema: dict[str, str]) -> None:
    """Refuse a mapping for another ontology, with absent columns, unknown concepts, or units that cannot convert."""
    if mapping.ontology != ontology.digest:
        raise MappingError(
            "the mapping is for another ontology version",
            where=f"{file}: ontology",
            expected=ontology.digest,
            got=mapping.ontology,
            hint="check it against the new version, write the new hash, and approve it again",
            reason="ONTOLOGY_MISMATCH",
        )
    for column in mapping.columns:
        where = f"{file}: column {column.column!r}"
        if column.column not in schema:
            raise MappingError(
                "a mapped column that the source does not have",
                where=where,
                expected=", ".join(schema),
                got=column.column,
                hint="correct the mapping, or the file",
                reason="MISSING_COLUMN",
            )
        concept = ontology.concept(mapping.iri(column.concept))
        if column.unit is not None and concept.unit is not None:
            _require_convertible(column.unit, concept.unit, concept.molar_mass_g_per_mol, where)


def _require_convertible(unit: str, wanted: str, molar_mass: float | None, where: str) -> None:
    try:
        conversion(unit, wanted, molar_mass_g_per_mol=molar_mass)
    except LeptonError as error:
        raise type(error)(
            error.message,
            where=where,
            expected=error.expected or wanted,
            got=error.got or unit,
            hint=error.hint or "correct the unit in the mapping",
            reason=error.reason,
        ) from None


def _task_of(job_file: Path, ontology: Ontology) -> Task:
    """The task of a job file; an ontology named by label is taken to be this one."""
    try:
        document = tomllib.loads(read_text(job_file, "job file")).get("task")
    except tomllib.TOMLDecodeError as error:
        raise InputError("the job file is not TOML", where=str(job_file), got=str(error)) from None
    if not isinstance(document, dict):
        raise InputError("the job file has no task", where=str(job_file), expected="a [task] table")
    if "://" not in str(document.get("ontology")) and len(str(document.get("ontology"))) != 64:
        document["ontology"] = ontology.digest
    return parse_settings(Task, document, source=str(job_file))
