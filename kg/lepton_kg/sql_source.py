"""A table of a database, only the columns asked for, a batch of rows at a time; what it is read by: `sql_connection`.

An SQLite file is opened with `mode=ro` and `PRAGMA query_only`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from lepton_core.errors import DataError
from lepton_kg.mapping import Source
from lepton_kg.reading import BATCH_ROWS, readable, series_of
from lepton_kg.sql_connection import MYSQL, give_up, read_only


def sqlite_schema(path: Path, source: Source) -> list[tuple[str, str]]:
    """Names and declared types of the table's columns."""
    with _sqlite(path, source) as connection:
        return _sqlite_columns(connection, source)


def read_sqlite(path: Path, source: Source, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Batches of those columns."""
    with _sqlite(path, source) as connection:
        known = {name for name, _ in _sqlite_columns(connection, source)}
        # Identifiers cannot be parameters; each is one of the table's own names, quoted.
        selected = ", ".join(_quoted(column) for column in columns if column in known)
        rows = connection.execute(f"SELECT {selected} FROM {_quoted(source.table or '')}")  # noqa: S608 - see above
        while batch := rows.fetchmany(BATCH_ROWS):
            yield _frame(columns, batch, source)


def sql_schema(source: Source, base: Path) -> list[tuple[str, str]]:
    """Names and types of the table's columns, from the database's catalogue."""
    from sqlalchemy import inspect

    schema, table = _table_of(source)
    with read_only(source, base) as connection:
        if connection.dialect.name in MYSQL:
            return _mysql_columns(connection, source)
        catalogue = inspect(connection)
        if not catalogue.has_table(table, schema=schema):
            tables = [*catalogue.get_table_names(schema=schema), *catalogue.get_view_names(schema=schema)]
            raise _no_table(source, tables)
        return [(str(column["name"]), str(column["type"])) for column in catalogue.get_columns(table, schema=schema)]


def read_sql(source: Source, base: Path, columns: Sequence[str], kinds: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Batches of those columns, over one cursor of the server; `kinds` is what the schema calls their types."""
    from sqlalchemy import column, quoted_name, select
    from sqlalchemy import table as table_named

    schema, table = _table_of(source)
    named = table_named(quoted_name(table, quote=True), schema=quoted_name(schema, quote=True) if schema else None)
    wanted: Any = select(*(column(quoted_name(name, quote=True)) for name in columns)).select_from(named)
    bits = {name for name in columns if kinds[name].startswith("bit")}
    with read_only(source, base) as connection:
        rows = connection.execution_options(stream_results=True, yield_per=BATCH_ROWS).execute(wanted)
        try:
            for batch in rows.partitions():
                yield _frame(columns, batch, source, bits)
        except BaseException:
            give_up(connection)
            raise


def _mysql_columns(connection: Any, source: Source) -> list[tuple[str, str]]:
    """What its catalogue shows to this user; SHOW CREATE TABLE, which SQLAlchemy asks, needs rights on every column."""
    from sqlalchemy import text

    schema, table = _table_of(source)
    asked = """SELECT table_name, column_name, column_type FROM information_schema.columns
        WHERE table_schema = COALESCE(:schema, DATABASE()) ORDER BY ordinal_position"""
    found = connection.execute(text(asked), {"schema": schema}).all()
    # Compared here, since its own comparison takes `Ward` and `ward` for one name.
    columns = [(str(name), str(kind)) for of, name, kind in found if of == table]
    if not columns:
        raise _no_table(source, sorted({str(of) for of, _, _ in found}))
    return columns


@contextmanager
def _sqlite(path: Path, source: Source) -> Iterator[sqlite3.Connection]:
    with (
        readable(source),
        closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection,
    ):
        connection.execute("PRAGMA query_only = ON")
        yield connection


def _sqlite_columns(connection: sqlite3.Connection, source: Source) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = connection.execute(
        "SELECT name, type FROM pragma_table_info(?)", (source.table,)
    ).fetchall()
    if not rows:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
        raise _no_table(source, [name for (name,) in tables])
    return rows


def _no_table(source: Source, tables: Sequence[str]) -> DataError:
    return DataError(
        "the source has no such table",
        where=source.path or source.url or "",
        expected=source.table or "",
        got=", ".join(tables)[:1_000] or "no tables",
        hint="correct source.table in the mapping",
        reason="MISSING_TABLE",
    )


def _table_of(source: Source) -> tuple[str | None, str]:
    schema, dot, table = (source.table or "").rpartition(".")
    return (schema if dot else None), table


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _frame(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], source: Source, bits: AbstractSet[str] = frozenset()
) -> pl.DataFrame:
    """The rows as columns; the cells of MySQL's `bits` come as bytes and are numbers."""
    made = []
    for name, cells in zip(columns, zip(*rows, strict=True), strict=True):
        numbers = [int.from_bytes(cell, "big") if isinstance(cell, bytes) else cell for cell in cells if name in bits]
        made.append(series_of(name, numbers or cells, source))
    return pl.DataFrame(made)
