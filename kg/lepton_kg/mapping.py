"""An owner's mapping: which column of which source means which concept, in which unit and codes, approved by whom.

It stays with the owner. Strict YAML without expressions: every plain scalar is text (so `NO` stays a code and `007`
keeps its zeros), an empty or `null` one is nothing, and duplicate keys, aliases and tags are refused.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hmac
from collections import Counter
from collections.abc import Hashable
from collections.abc import Mapping as AbstractMapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from lepton_core.canonical import canonical_json
from lepton_core.errors import InputError, MappingError
from lepton_core.ids import Digest, digest_of, require_digest
from lepton_core.settings import Settings, parse_settings

#: Largest mapping that is parsed.
MAX_BYTES = 4 * 2**20
#: Deepest nesting that is parsed; a mapping needs four levels.
_MAX_DEPTH = 16

#: A source's columns, each with the name of its type there.
Schema = AbstractMapping[str, str]

Text = Annotated[str, Field(min_length=1, max_length=1_000)]


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
    """Where the owner's rows lie."""

    kind: Literal["csv", "parquet", "sqlite"]
    #: File, relative to the mapping's folder.
    path: Text
    #: Table or view of an SQLite file.
    table: Text | None = None
    #: Only for CSV.
    csv: CsvOptions | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "sqlite") != (self.table is not None):
            raise ValueError("a table is needed for sqlite, and only there")
        if self.csv is not None and self.kind != "csv":
            raise ValueError("csv options are for kind csv only")
        return self

    @property
    def decimal(self) -> str:
        """The decimal sign of numbers written as text."""
        return self.csv.decimal if self.csv is not None else "."


class Column(Settings):
    """What one column means."""

    column: Text
    #: IRI of the concept, or its local name within `vocabulary`.
    concept: Text
    #: UCUM unit the column is written in; None for a coded column.
    unit: str | None = None
    #: Raw code -> IRI or local name of the concept's value.
    codes: dict[str, Text] = Field(default_factory=dict)
    #: Raw codes that mean "no value", beside empty cells.
    missing: tuple[str, ...] = ()
    #: SKOS match of column to concept: `broad` says that the concept is broader than the column.
    predicate: Literal["exact", "broad", "narrow", "close"] = "exact"
    justification: str = Field(default="", max_length=2_000)
    #: Score of the suggestion this came from.
    score: float | None = Field(default=None, ge=0.0, le=1.0)
    status: Literal["proposed", "approved"] = "proposed"
    approver: Text | None = None
    date: dt.date | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.status == "approved" and (self.approver is None or self.date is None):
            raise ValueError("an approved column needs approver and date")
        if self.unit is not None and self.codes:
            raise ValueError("a column has a unit or codes, not both")
        both = sorted(set(self.codes) & set(self.missing))
        if both:
            raise ValueError(f"codes that are also missing: {', '.join(both)}")
        return self


class Subject(Settings):
    """Which column says whose a row is; rows of one id are one subject's."""

    column: Text
    #: Raw ids that mean "no subject", beside empty cells.
    missing: tuple[str, ...] = ()
    #: A source of one row a subject; a second row of one is refused.
    once: bool = False


class Mapping(Settings):
    """An owner's whole mapping of one source to one ontology version."""

    format: int = Field(default=1, ge=1, le=1)
    #: SHA-256 (hex) of the ontology version's canonical N-Quads.
    ontology: str
    #: IRI prefix that local concept and value names are resolved against.
    vocabulary: str = Field(default="", max_length=300)
    source: Source
    columns: tuple[Column, ...] = Field(min_length=1, max_length=10_000)
    #: Whose the rows are; without it, jobs that protect subjects are refused.
    subject: Subject | None = None
    #: The source's columns and types when it was approved, and their hash (`fingerprint`).
    source_schema: dict[str, str] | None = None
    schema_fingerprint: str | None = None

    def iri(self, name: str) -> str:
        """The full IRI of a concept or value named in this mapping."""
        return name if "://" in name else self.vocabulary + name

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            require_digest(self.ontology, "ontology hash")
        except InputError as error:
            raise ValueError(f"ontology: {error.message}") from None
        _require_once([column.column for column in self.columns], "columns mapped twice")
        _require_once([self.iri(column.concept) for column in self.columns], "concepts mapped twice")
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
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader with less, see below
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise MappingError(
            "a mapping that is not strict YAML",
            where=source + line,
            expected="plain YAML without duplicate keys, aliases or tags",
            got=str(error.problem)[:300],
        ) from None
    except yaml.YAMLError as error:
        raise MappingError("a mapping that is not YAML", where=source, got=str(error)[:300]) from None
    if not isinstance(document, dict):
        raise MappingError("a mapping without keys", where=source, expected="format, ontology, source, columns")
    return parse_settings(Mapping, document, source=source)


def dump_mapping(mapping: Mapping) -> str:
    """The YAML that `parse_mapping` reads back to an equal mapping; texts that look like numbers are quoted."""
    document = mapping.model_dump(mode="json", exclude_defaults=True)
    document = {"format": mapping.format, **document}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def mapping_json_schema() -> dict[str, Any]:
    """The JSON Schema of a mapping document, for editors."""
    return Mapping.model_json_schema()


def approve(mapping: Mapping, *, approver: str, date: dt.date, schema: Schema) -> Mapping:
    """The mapping with every column approved by that person on that day, for a source of that schema.

    Raises:
        MappingError: a mapped column is not in the source.
    """
    named = [column.column for column in mapping.columns]
    if mapping.subject is not None:
        named.append(mapping.subject.column)
    absent = [column for column in named if column not in schema]
    if absent:
        raise MappingError(
            "mapped columns that the source does not have",
            where=mapping.source.path,
            expected=", ".join(sorted(schema)),
            got=", ".join(absent),
        )
    document = mapping.model_dump()
    for column in document["columns"]:
        column.update(status="approved", approver=approver, date=date)
    document.update(source_schema=dict(schema), schema_fingerprint=fingerprint(schema))
    return parse_settings(Mapping, document, source="approval")


def require_current(mapping: Mapping, ontology: Digest, schema: Schema) -> None:
    """Nothing, if the approval holds for this ontology version and for the source as it is now.

    Raises:
        MappingError: approved for another ontology version or source schema, or never; tells the difference.
    """
    if not hmac.compare_digest(mapping.ontology, ontology):
        raise MappingError(
            "a mapping for another ontology version",
            where="ontology",
            expected=ontology,
            got=mapping.ontology,
            hint="check the mapping against the new version and approve it again",
            reason="ONTOLOGY_MISMATCH",
        )
    if mapping.source_schema is None:
        raise MappingError(
            "a mapping that nobody has approved for its source",
            where="schema_fingerprint",
            hint="run `lepton mapping approve`",
            reason="UNAPPROVED_MAPPING",
        )
    if mapping.schema_fingerprint != fingerprint(schema):
        raise MappingError(
            "the source's columns have changed since the mapping was approved",
            where=mapping.source.path,
            expected="the columns that were approved",
            got="; ".join(_differences(mapping.source_schema, schema)),
            hint="check the mapping and run `lepton mapping approve` again",
            reason="SCHEMA_CHANGED",
        )


def _differences(before: Schema, now: Schema) -> list[str]:
    lines = [f"{name!r} is gone" + _rename_hint(name, before, now) for name in before if name not in now]
    lines += [f"{name!r} is new" for name in now if name not in before]
    lines += [
        f"{name!r} was {before[name]}, is {now[name]}" for name in before if name in now and now[name] != before[name]
    ]
    return lines


def _rename_hint(name: str, before: Schema, now: Schema) -> str:
    close = difflib.get_close_matches(name, [other for other in now if other not in before], n=1)
    return f" (renamed to {close[0]!r}?)" if close else ""


def _require_once(names: list[str], what: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{what}: {', '.join(twice)}")


def _refusal(what: str, place: Any) -> yaml.MarkedYAMLError:
    """What the loader raises at an event or a node."""
    return yaml.MarkedYAMLError(problem=what, problem_mark=place.start_mark)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader in which plain scalars are text or nothing, and that refuses duplicate keys, aliases and tags."""

    #: How deep the node now composed lies.
    depth = 0
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to say which plain scalars are not text
        start: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave the parser untyped
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("an alias", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"a tag {event.tag!r}", event)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _refusal("nesting too deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key that is not text", key)
            if key.value in seen:
                raise _refusal(f"the key {key.value!r} twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
