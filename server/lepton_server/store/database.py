"""Engines for SQLite (WAL, synchronous=FULL) and PostgreSQL, and their errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DataError, NoSuchModuleError, SQLAlchemyError

from lepton_core.errors import FaultError, InputError

#: How long a writer waits for another process before the database counts as busy.
BUSY_TIMEOUT_S = 10
#: PostgreSQL advisory lock of the one writer: "lepton" in ASCII.
WRITER_LOCK = int.from_bytes(b"lepton", "big")


def parse_url(url: str) -> URL:
    """The database URL, if it is one that Lepton works with.

    Raises:
        InputError: not a URL, or neither SQLite nor PostgreSQL; the message never shows the password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InputError("not a database URL", where="database", expected=_EXPECTED) from None
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise InputError("not a database Lepton works with", where="database", expected=_EXPECTED, got=describe(parsed))
    if parsed.drivername == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise InputError("an SQLite database needs a file", where="database", expected=_EXPECTED, got=describe(parsed))
    return parsed


_EXPECTED = "sqlite:////path/to/file.db or postgresql+psycopg://user@host/name"


def describe(url: URL) -> str:
    """The database's kind and place, without credentials."""
    if url.drivername == "sqlite":
        return f"sqlite {url.database}"
    host = url.host or str(url.query.get("host", "local socket"))
    return f"{url.get_backend_name()} {host}/{url.database or ''}"


def open_engine(url: str) -> Engine:
    """An engine whose transactions are those of the database, one writer at a time.

    Raises:
        InputError: not a URL of a database Lepton works with.
        FaultError: SQLite's folder cannot be made.
    """
    parsed = parse_url(url)
    try:
        if parsed.drivername == "sqlite":
            return _open_sqlite(parsed)
        return create_engine(parsed, pool_pre_ping=True, pool_size=4, connect_args={"connect_timeout": BUSY_TIMEOUT_S})
    except NoSuchModuleError:  # pragma: no cover - both drivers are dependencies of the server
        raise InputError("the database's driver is not installed", where="database", got=describe(parsed)) from None


def _open_sqlite(url: URL) -> Engine:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FaultError("the database's folder cannot be made", where=str(folder), got=error.strerror or "") from None
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own BEGIN comes too late and takes the lock too late; `_begin` opens transactions instead.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def become_writer(connection: Connection) -> None:
    """Wait until this transaction is the only writing one; SQLite's BEGIN IMMEDIATE has done so already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})


@contextmanager
def typed_errors(place: str) -> Iterator[None]:
    """Turn the database's errors into ours.

    Raises:
        InputError: a value the database cannot hold.
        FaultError: the database is full, busy, read-only or gone.
    """
    try:
        yield
    except DataError as error:
        raise InputError("a value that the database cannot hold", where=place, got=type(error.orig).__name__) from None
    except SQLAlchemyError as error:
        raise FaultError(
            "the database does not answer as it should",
            where=place,
            expected="a database that can be written to",
            got=_cause(error),
            hint="check that it runs, that the disk has room, and that the coordinator may write to it",
            reason="DATABASE",
        ) from None


def _cause(error: SQLAlchemyError) -> str:
    """The driver's first line, which names no values: statements and parameters stay out."""
    cause = getattr(error, "orig", None)
    if cause is None:
        return type(error).__name__
    lines = str(cause).splitlines()
    return f"{type(cause).__name__}: {lines[0][:200] if lines else ''}"
