"""An owner's source, read-only and only the columns asked for: CSV, Parquet, or a table of an SQLite file.

CSV cells stay text, so that the plan sees codes as they are written and the schema does not hang on the values.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from lepton_core.errors import DataError
from lepton_kg.mapping import CsvOptions, Source

#: Type name of every CSV column in a schema.
TEXT = "text"


def read_columns(source: Source, columns: Sequence[str], base: Path) -> pl.DataFrame:
    """Those columns of the source, in that order, every row; `base` is the folder that its path is relative to.

    Raises:
        DataError: the file, table or a column is missing, or the file is not what the mapping says it is.
    """
    path = _require_file(source, base)
    schema = source_schema(source, base)
    absent = [column for column in columns if column not in schema]
    if absent:
        raise DataError(
            "the source lacks mapped columns",
            where=_where(source),
            expected=", ".join(absent),
            got=", ".join(schema),
            hint="correct the mapping, or the file; `lepton mapping check` compares them",
            reason="MISSING_COLUMN",
        )
    if source.kind == "csv":
        return _read_csv(path, source, list(columns), list(schema))
    if source.kind == "parquet":
        with _readable(source):
            return pl.scan_parquet(path, glob=False).select(columns).collect()
    return _read_sqlite(path, source, list(columns))


def source_schema(source: Source, base: Path) -> dict[str, str]:
    """The source's columns in order, each with the name of its type; reads no rows.

    Raises:
        DataError: the file or table is missing, not what the mapping says, or names a column twice or not at all.
    """
    path = _require_file(source, base)
    if source.kind == "csv":
        names = _csv_header(path, source)
        schema = dict.fromkeys(names, TEXT)
    elif source.kind == "parquet":
        with _readable(source):
            found = pl.scan_parquet(path, glob=False).collect_schema()
        names = found.names()
        schema = {name: str(dtype) for name, dtype in found.items()}
    else:
        with _connection(path, source) as connection:
            rows = _table_columns(connection, source)
        names = [name for name, _ in rows]
        schema = {name: kind.lower() or "any" for name, kind in rows}
    twice = [name for name, count in Counter(names).items() if count > 1 or not name]
    if twice or not names:
        raise DataError(
            "the source's columns need names, each its own",
            where=_where(source),
            expected="one name a column",
            got=", ".join(repr(name) for name in twice) or "no columns",
            reason="BAD_HEADER",
        )
    return schema


def _require_file(source: Source, base: Path) -> Path:
    path = base / source.path
    if not path.is_file():
        raise DataError(
            "the source file is missing",
            where=source.path,
            expected=f"a {source.kind} file below {base}",
            got="a folder" if path.is_dir() else "nothing",
            hint="correct source.path in the mapping; it is relative to the mapping's folder",
            reason="MISSING_FILE",
        )
    return path


def _where(source: Source) -> str:
    return source.path if source.table is None else f"{source.path}, table {source.table}"


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turns what libraries raise over a broken file into a DataError that quotes no cell."""
    try:
        yield
    except UnicodeError as error:
        encoding = (source.csv or CsvOptions()).encoding
        raise DataError(
            "the file is not in the encoding that the mapping says",
            where=_where(source),
            expected=encoding,
            got=type(error).__name__,
            hint="set source.csv.encoding",
            reason="BAD_ENCODING",
        ) from None
    except (pl.exceptions.PolarsError, sqlite3.Error, csv.Error, OSError) as error:
        raise DataError(
            f"the file cannot be read as {source.kind}",
            where=_where(source),
            expected=f"a {source.kind} file as the mapping describes it",
            got=type(error).__name__,
            hint="correct source in the mapping, or the file",
            reason="UNREADABLE",
        ) from None


def _codec(options: CsvOptions) -> str:
    return "utf-8-sig" if options.encoding == "utf-8" else options.encoding


def _csv_header(path: Path, source: Source) -> list[str]:
    options = source.csv or CsvOptions()
    with _readable(source), path.open(encoding=_codec(options), newline="") as lines:
        return next(csv.reader(lines, delimiter=options.delimiter), [])


def _require_even(path: Path, source: Source, width: int) -> None:
    """Nothing, if every line has as many cells as the header.

    polars pads short lines and, asked for some columns, drops the end of long ones: a decimal comma in a file that is
    parted by commas would shift every later cell into the wrong concept without a word.
    """
    options = source.csv or CsvOptions()
    with path.open(encoding=_codec(options), newline="") as lines:
        reader = csv.reader(lines, delimiter=options.delimiter, strict=True)
        for cells in reader:
            if cells and len(cells) != width:
                raise DataError(
                    "a line with another number of cells than the header",
                    where=f"{_where(source)}, line {reader.line_num}",
                    expected=f"{width} cells",
                    got=f"{len(cells)} cells",
                    hint="check source.csv.delimiter and decimal, or quote cells that hold the delimiter",
                    reason="UNREADABLE",
                )


def _read_csv(path: Path, source: Source, columns: list[str], names: list[str]) -> pl.DataFrame:
    options = source.csv or CsvOptions()
    with _readable(source):
        _require_even(path, source, len(names))
        data: Path | io.BytesIO = path
        if options.encoding != "utf-8":
            data = io.BytesIO(path.read_text(encoding=options.encoding).encode())
        return pl.read_csv(
            data,
            columns=[names.index(column) for column in columns],
            separator=options.delimiter,
            infer_schema=False,
            glob=False,
        ).select(columns)


@contextmanager
def _connection(path: Path, source: Source) -> Iterator[sqlite3.Connection]:
    with (
        _readable(source),
        closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection,
    ):
        yield connection


def _table_columns(connection: sqlite3.Connection, source: Source) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = connection.execute(
        "SELECT name, type FROM pragma_table_info(?)", (source.table,)
    ).fetchall()
    if not rows:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
        raise DataError(
            "the file has no such table",
            where=source.path,
            expected=source.table or "",
            got=", ".join(name for (name,) in tables) or "no tables",
            hint="correct source.table in the mapping",
            reason="MISSING_TABLE",
        )
    return rows


def _read_sqlite(path: Path, source: Source, columns: list[str]) -> pl.DataFrame:
    with _connection(path, source) as connection:
        known = {name for name, _ in _table_columns(connection, source)}
        # Identifiers cannot be parameters; each is one of the table's own names, quoted.
        selected = ", ".join(_quoted(column) for column in columns if column in known)
        rows = connection.execute(f"SELECT {selected} FROM {_quoted(source.table or '')}").fetchall()  # noqa: S608 - see above
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pl.DataFrame(
        [_series(name, cells, source) for name, cells in zip(columns, by_column, strict=True)],
    )


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _series(name: str, cells: Sequence[Any], source: Source) -> pl.Series:
    """SQLite types cells, not columns: all whole numbers, all numbers, or else all text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if bytes in kinds:
        raise DataError(
            "a column of binary cells cannot be mapped",
            where=f"{_where(source)}, column {name}",
            expected="numbers or text",
            got="BLOB",
            reason="UNREADABLE",
        )
    if kinds == {int}:
        return pl.Series(name, cells, dtype=pl.Int64)
    if kinds <= {int, float} and kinds:
        return pl.Series(name, [None if cell is None else float(cell) for cell in cells], dtype=pl.Float64)
    return pl.Series(name, [None if cell is None else str(cell) for cell in cells], dtype=pl.String)
