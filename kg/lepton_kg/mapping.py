"""An owner's mapping: which column of which source means which concept, in which unit and codes, approved by whom.

It stays with the owner. Strict YAML without expressions: every plain scalar is text (so `NO` stays a code and `007`
keeps its zeros), an empty or `null` one is nothing, and duplicate keys, aliases and tags are refused. What ends an
approval is told in `approval`; the document's JSON Schema is made in `mapping_schema`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping as AbstractMapping
from typing import Annotated, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from lepton_core.canonical import canonical_json
from lepton_core.errors import MappingError
from lepton_core.ids import DIGEST_PATTERN, Digest, digest_of
from lepton_core.settings import Settings, parse_settings
from lepton_kg.strict_yaml import parse_strict
from lepton_kg.written import CREDENTIAL_IN_URL, DATE, NUMBER, SCORE, SWITCH, WHOLE, as_written

#: Largest mapping that is parsed.
MAX_BYTES = 4 * 2**20

#: A source's columns, each with the name of its type there.
Schema = AbstractMapping[str, str]

Text = Annotated[str, Field(min_length=1, max_length=1_000)]
Number = Annotated[float, BeforeValidator(as_written(NUMBER, "a number such as 0.1"))]
Score = Annotated[float, BeforeValidator(as_written(SCORE, "a number from 0 to 1")), Field(ge=0.0, le=1.0)]
Day = Annotated[dt.date, BeforeValidator(as_written(DATE, "a date such as 2025-01-31"))]
Switch = Annotated[bool, BeforeValidator(as_written(SWITCH, "true or false"))]

#: How a date may be written in text; one column has one way.
DateFormat = Literal["YYYY-MM-DD", "DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY", "YYYYMMDD"]


class CsvOptions(Settings):
    """How a CSV file is written; the first line names the columns."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    #: Text encoding; `utf-8` accepts a byte order mark.
    encoding: Literal["utf-8", "cp1252", "latin-1", "utf-16", "gb18030"] = "utf-8"
    decimal: Literal[".", ","] = "."

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise ValueError("delimiter must be an ASCII character other than a quote or a line end")
        if self.delimiter == self.decimal:
            raise ValueError("delimiter and decimal are the same")
        return self


class Source(Settings):
    """Where the owner's rows lie: a file, or a table of a database."""

    kind: Literal["csv", "parquet", "sqlite", "sql"]
    #: File, relative to the mapping's folder.
    path: Text | None = None
    #: SQLAlchemy URL of a database, without a password.
    url: Text | None = None
    #: File with the database's password, relative to the mapping's folder; only its owner may read it.
    password_file: Text | None = None
    #: Table or view of an SQLite file or a database; `schema.table` in a database.
    table: Text | None = None
    #: Only for CSV.
    csv: CsvOptions | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind in {"sqlite", "sql"}) != (self.table is not None):
            raise ValueError("a table is needed for sqlite and sql, and only there")
        if (self.kind == "sql") != (self.url is not None) or (self.kind == "sql") == (self.path is not None):
            raise ValueError("kind sql needs a url and no path, the others a path and no url")
        if self.url is not None and re.search(CREDENTIAL_IN_URL, self.url):
            raise ValueError("url holds a password; write it into a file of mode 600 and name that in password_file")
        if self.password_file is not None and self.kind != "sql":
            raise ValueError("password_file is for kind sql only")
        if self.csv is not None and self.kind != "csv":
            raise ValueError("csv options are for kind csv only")
        return self

    def in_file(self, name: str) -> Source:
        """The same kind of source, written in the same way, in a file of that name.

        Raises:
            MappingError: it is a database, and no file is read in its place.
        """
        if self.path is None:
            raise MappingError(
                "a mapping of a database, which cannot read a file",
                where=self.shown,
                expected="a mapping whose source.kind is csv, parquet or sqlite",
                got=self.kind,
                hint=f"export the rows and map the file, as {name} would have to be",
            )
        return self.model_copy(update={"path": name})

    @property
    def decimal(self) -> str:
        """The decimal sign of numbers written as text."""
        return self.csv.decimal if self.csv is not None else "."

    @property
    def shown(self) -> str:
        """What errors call it."""
        place = self.path or self.url or ""
        return place if self.table is None else f"{place}, table {self.table}"


class Line(Settings):
    """A unit conversion as it is stored: value in the concept's canonical unit = raw value * a + b."""

    a: Number
    b: Number = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.a == 0.0:
            raise ValueError("a is 0, which gives every row the same value")
        return self


class Column(Settings):
    """What one column means."""

    column: Text
    #: IRI of the concept, or its local name within `vocabulary`.
    concept: Text
    #: UCUM unit the column is written in; None for a coded column, a date, or with a `conversion` alone.
    unit: Text | None = None
    #: To the concept's canonical unit; approval writes it from `unit`. Both must agree.
    conversion: Line | None = None
    #: Raw code -> IRI or local name of the concept's value.
    codes: dict[str, Text] = Field(default_factory=dict)
    #: How the dates of a text column are written.
    date_format: DateFormat | None = None
    #: Raw codes that mean "no value", beside empty cells.
    missing: tuple[str, ...] = ()
    #: SKOS match of column to concept: `broad` says that the concept is broader than the column.
    predicate: Literal["exact", "broad", "narrow", "close"] = "exact"
    justification: str = Field(default="", max_length=2_000)
    #: Score of the suggestion this came from.
    score: Score | None = None
    status: Literal["proposed", "approved"] = "proposed"
    approver: Text | None = None
    date: Day | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.status == "approved" and (self.approver is None or self.date is None):
            raise ValueError("an approved column needs approver and date")
        kinds = (self.unit is not None or self.conversion is not None, bool(self.codes), self.date_format is not None)
        if sum(kinds) > 1:
            raise ValueError("a column has a unit or codes, not both, and neither with date_format")
        both = sorted(set(self.codes) & set(self.missing))
        if both:
            raise ValueError(f"codes that are also missing: {', '.join(both)}")
        return self


class Subject(Settings):
    """Which column says whose record a row is; its cells number the subjects and never leave."""

    column: Text
    #: Raw ids that mean "no subject", beside empty cells.
    missing: tuple[str, ...] = ()
    #: Each subject has one row; a second is refused.
    unique: Switch = False


class Signature(Settings):
    """The owner's identity key over the approved mapping."""

    #: Ed25519 public key, hex.
    identity: str = Field(pattern=DIGEST_PATTERN)
    #: Ed25519 signature over `signed_bytes`, hex.
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")


class Mapping(Settings):
    """An owner's whole mapping of one source to one ontology version."""

    format: Annotated[int, BeforeValidator(as_written(WHOLE, "1"))] = Field(default=1, ge=1, le=1)
    #: SHA-256 (hex) of the ontology version's canonical N-Quads.
    ontology: str = Field(pattern=DIGEST_PATTERN)
    #: IRI prefix that local concept and value names are resolved against.
    vocabulary: str = Field(default="", max_length=300)
    source: Source
    #: None where no column tells subjects apart: jobs that protect subjects, or hold them out, are refused.
    subject: Subject | None = None
    columns: tuple[Column, ...] = Field(min_length=1, max_length=10_000)
    #: The source's columns and types when it was approved, and their hash (`fingerprint`).
    source_schema: dict[str, str] | None = None
    schema_fingerprint: str | None = Field(default=None, pattern=DIGEST_PATTERN)
    #: What each mapped concept meant when it was approved, in one line, by IRI.
    meanings: dict[str, Text] | None = None
    signature: Signature | None = None

    def iri(self, name: str) -> str:
        """The full IRI of a concept or value named in this mapping."""
        return name if "://" in name else self.vocabulary + name

    def signed_bytes(self) -> bytes:
        """What the owner's identity signs: a label and all of it but the signature."""
        return b"lepton/mapping/v1" + canonical_json(self.model_dump(mode="json", exclude={"signature"}))

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_once([column.column for column in self.columns], "columns mapped twice")
        by_concept: dict[str, list[str]] = {}
        for column in self.columns:
            by_concept.setdefault(self.iri(column.concept), []).append(repr(column.column))
        twice = [f"{iri} by columns {' and '.join(names)}" for iri, names in by_concept.items() if len(names) > 1]
        if twice:
            raise ValueError(f"concepts mapped twice: {', '.join(twice)}; keep one line of each")
        if (self.source_schema is None) != (self.schema_fingerprint is None):
            raise ValueError("source_schema and schema_fingerprint go together")
        if self.source_schema is not None and fingerprint(self.source_schema) != self.schema_fingerprint:
            raise ValueError("schema_fingerprint is not that of source_schema; approve the mapping again")
        return self


def fingerprint(schema: Schema) -> Digest:
    """SHA-256 of the columns' names and types, whatever their order."""
    return digest_of(b"lepton/source-schema/v1" + canonical_json(dict(schema)))


def parse_mapping(text: str, *, source: str) -> Mapping:
    """The mapping written in YAML; `source` names the document in errors.

    Raises:
        MappingError: not the strict YAML that a mapping is written in (with the line).
        SettingsError: keys or values a mapping must not have, all told at once.
    """
    if len(text) > MAX_BYTES:
        raise MappingError(
            "a mapping this large is refused",
            where=source,
            expected=f"at most {MAX_BYTES} characters",
            got=str(len(text)),
        )
    return parse_settings(Mapping, parse_strict(text, source=source), source=source)


def dump_mapping(mapping: Mapping) -> str:
    """The YAML that `parse_mapping` reads back to an equal mapping; texts that look like numbers are quoted."""
    document = mapping.model_dump(mode="json", exclude_defaults=True)
    document = {"format": mapping.format, **document}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _require_once(names: list[str], what: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{what}: {', '.join(twice)}")
