"""An owner's source, read-only and only the columns asked for: CSV, Parquet, or a table of a database.

CSV cells stay text, so that the plan sees codes as they are written and the schema does not hang on the values.
Batches hold as many rows as fit in some MiB, so that a source may be larger than memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from lepton_core.errors import DataError
from lepton_kg.csv_source import csv_header, read_csv
from lepton_kg.mapping import Schema, Source
from lepton_kg.reading import BATCH_ROWS, readable
from lepton_kg.sql_source import read_sql, read_sqlite, sql_schema, sqlite_schema

#: Type name of every CSV column in a schema.
TEXT = "text"
_BLOBS = ("blob", "tinyblob", "mediumblob", "longblob")
#: How the names of types begin whose cells are no numbers, dates, truth values or text.
_NO_CELLS = ("list", "array", "struct", "object", "duration", "binary", "varbinary", "bytea", *_BLOBS)


def read_columns(source: Source, columns: Sequence[str], base: Path) -> pl.DataFrame:
    """Those columns of the source, in that order, every row in memory; `base` is what its paths are relative to.

    Raises:
        DataError: the file, table or a column is missing, or the file is not what the mapping says it is.
    """
    return in_one(list(read_batches(source, columns, base)), columns)


def in_one(batches: Sequence[pl.DataFrame], columns: Sequence[str]) -> pl.DataFrame:
    """The batches' rows in one frame of these columns, numbers where all are and else text."""
    if not batches:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return pl.concat(_alike(batches)) if len(batches) > 1 else batches[0]


def read_batches(source: Source, columns: Sequence[str], base: Path) -> Iterator[pl.DataFrame]:
    """The same rows, a batch at a time; a database's column may have another type in another batch.

    Raises:
        DataError: as `read_columns`; of a fault further down, after the batches before it.
    """
    schema = source_schema(source, base)
    absent = [column for column in columns if column not in schema]
    if absent:
        raise DataError(
            "the source lacks mapped columns",
            where=source.shown,
            expected=", ".join(absent),
            got=", ".join(schema),
            hint="correct the mapping, or the file; `lepton mapping check` compares them",
            reason="MISSING_COLUMN",
        )
    require_cells(source, schema, columns)
    if source.kind == "sql":
        yield from read_sql(source, base, columns, schema)
        return
    path = _require_file(source, base)
    if source.kind == "csv":
        yield from read_csv(path, source, columns, list(schema))
    elif source.kind == "sqlite":
        yield from read_sqlite(path, source, columns)
    else:
        with readable(source):
            scanned = pl.scan_parquet(path, glob=False).select(columns)
            yield from scanned.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)


def require_cells(source: Source, schema: Schema, columns: Sequence[str]) -> None:
    """Nothing, if the types of those columns can be mapped; a database tells with each cell, whatever it declares.

    Raises:
        DataError: one cannot, by name.
    """
    strange = [column for column in columns if not is_mappable(schema[column])] if source.kind == "parquet" else []
    if strange:
        raise DataError(
            "a column whose cells cannot be mapped",
            where=f"{source.shown}, column {strange[0]!r}",
            expected="numbers, dates, truth values or text",
            got=schema[strange[0]],
            hint="leave the column out of the mapping, or write the source with a column of what it tells",
            reason="UNREADABLE",
        )


def is_mappable(kind: str) -> bool:
    """True if cells of a type of that name in a schema can be numbers, dates, truth values or text."""
    return not kind.lower().startswith(_NO_CELLS)


def source_schema(source: Source, base: Path) -> dict[str, str]:
    """The source's columns in order, each with the name of its type; reads no rows.

    Raises:
        DataError: the file or table is missing, not what the mapping says, or names a column twice or not at all.
    """
    if source.kind == "sql":
        found = sql_schema(source, base)
    else:
        path = _require_file(source, base)
        if source.kind == "csv":
            found = [(name, TEXT) for name in csv_header(path, source)]
        elif source.kind == "sqlite":
            found = sqlite_schema(path, source)
        else:
            with readable(source):
                found = [(name, str(kind)) for name, kind in pl.scan_parquet(path, glob=False).collect_schema().items()]
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1 or not name]
    if twice or not found:
        raise DataError(
            "the source's columns need names, each its own",
            where=source.shown,
            expected="one name a column",
            got=", ".join(repr(name) for name in twice) or "no columns",
            hint="name each column once" + (", in the first line" if source.kind == "csv" else ""),
            reason="BAD_HEADER",
        )
    return {name: kind if source.kind == "parquet" else kind.lower() or "any" for name, kind in found}


def _alike(frames: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """Batches whose columns have one type each: numbers where all are, else text."""
    from lepton_kg.cells import coded

    made = list(frames)
    for name in frames[0].columns:
        kinds = {frame.schema[name] for frame in frames}
        if len(kinds) == 1:
            continue
        if all(kind.is_numeric() for kind in kinds):
            made = [frame.with_columns(pl.col(name).cast(pl.Float64)) for frame in made]
        else:
            made = [frame.with_columns(coded(name, frame.schema[name]).alias(name)) for frame in made]
    return made


def _require_file(source: Source, base: Path) -> Path:
    path = base / (source.path or "")
    if not path.is_file():
        raise DataError(
            "the source file is missing",
            where=source.path or "",
            expected=f"a {source.kind} file below {base}",
            got="a folder" if path.is_dir() else "nothing",
            hint="correct source.path in the mapping; it is relative to the mapping's folder",
            reason="MISSING_FILE",
        )
    return path
