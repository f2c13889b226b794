"""A table of a database, read in a read-only transaction, only the columns asked for, a batch of rows at a time.

| database | held to reading by |
|---|---|
| SQLite file | `mode=ro` and `PRAGMA query_only` |
| PostgreSQL | BEGIN READ ONLY |
| MySQL, MariaDB, Oracle | SET TRANSACTION READ ONLY |
| others | refused |
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from lepton_core.errors import DataError
from lepton_kg.mapping import Source
from lepton_kg.reading import BATCH_ROWS, readable, series_of

#: Databases whose transactions are made read-only by the standard statement.
_BY_STATEMENT = frozenset({"mysql", "mariadb", "oracle"})


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
    with _connection(source, base) as connection:
        catalogue = inspect(connection)
        if not catalogue.has_table(table, schema=schema):
            tables = [*catalogue.get_table_names(schema=schema), *catalogue.get_view_names(schema=schema)]
            raise _no_table(source, tables)
        return [(str(column["name"]), str(column["type"])) for column in catalogue.get_columns(table, schema=schema)]


def read_sql(source: Source, base: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Batches of those columns, over one cursor of the server."""
    from sqlalchemy import column, quoted_name, select
    from sqlalchemy import table as table_named

    schema, table = _table_of(source)
    named = table_named(quoted_name(table, quote=True), schema=quoted_name(schema, quote=True) if schema else None)
    wanted: Any = select(*(column(quoted_name(name, quote=True)) for name in columns)).select_from(named)
    with _connection(source, base) as connection:
        rows = connection.execution_options(stream_results=True, yield_per=BATCH_ROWS).execute(wanted)
        for batch in rows.partitions():
            yield _frame(columns, batch, source)


@contextmanager
def _connection(source: Source, base: Path) -> Iterator[Any]:
    """A connection whose transaction can only read; whatever the library says of it is named, never quoted."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        url = make_url(source.url or "")
        if source.password_file is not None:
            url = url.set(password=_password(base / source.password_file))
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    except (ArgumentError, ImportError, SQLAlchemyError) as error:
        raise DataError(
            "a database URL that cannot be used",
            where="source.url",
            expected="a SQLAlchemy URL whose driver is installed, such as postgresql+psycopg://reader@host/database",
            got=type(error).__name__,
            hint="pip install 'lepton-fl[postgres]' brings the driver of PostgreSQL",
            reason="UNREADABLE",
        ) from None
    kind = engine.dialect.name
    options = {"postgresql_readonly": True} if kind == "postgresql" else {}
    try:
        with engine.connect().execution_options(**options) as connection:
            if kind == "sqlite":
                connection.execute(text("PRAGMA query_only = ON"))
            elif kind in _BY_STATEMENT:
                connection.execute(text("SET TRANSACTION READ ONLY"))
            elif kind != "postgresql":
                raise DataError(
                    "a database that cannot be held to reading",
                    where="source.url",
                    expected="postgresql, sqlite, " + ", ".join(sorted(_BY_STATEMENT)),
                    got=kind,
                    hint="export the table to Parquet",
                    reason="NOT_READ_ONLY",
                )
            yield connection
    except SQLAlchemyError as error:
        raise DataError(
            "the database cannot be read",
            where=source.shown,
            expected="a database that answers, and a table that this user may read",
            got=type(error).__name__,
            hint="check source.url, source.table, the password, and the user's rights on the mapped columns",
            reason="UNREADABLE",
        ) from None
    finally:
        engine.dispose()


def _password(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "the database's password cannot be read",
            where=str(path),
            expected="a file with the password alone",
            got=type(error).__name__,
            reason="MISSING_FILE",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DataError(
            "a password that others may read",
            where=str(path),
            expected="mode 600",
            got=f"{stat.S_IMODE(mode):o}",
            hint=f"chmod 600 {path}",
            reason="UNREADABLE",
        )
    return text


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


def _frame(columns: Sequence[str], rows: Sequence[Sequence[Any]], source: Source) -> pl.DataFrame:
    by_column = zip(*rows, strict=True)
    return pl.DataFrame([series_of(name, cells, source) for name, cells in zip(columns, by_column, strict=True)])
