"""A connection to a database by its SQLAlchemy URL that can only read, and waits for no answer without end.

| database | held to reading by |
|---|---|
| PostgreSQL | BEGIN READ ONLY |
| MySQL, MariaDB, Oracle | SET TRANSACTION READ ONLY |
| SQLite by URL | `PRAGMA query_only` |
| others | refused |
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_core.errors import DataError
from lepton_kg.mapping import Source

#: What SQLAlchemy calls databases that speak MySQL's language.
MYSQL = frozenset({"mysql", "mariadb"})
#: Databases whose transactions are made read-only by the standard statement.
_BY_STATEMENT = MYSQL | {"oracle"}
_READ_ONLY = ("postgresql", "sqlite", *sorted(_BY_STATEMENT))

#: Longest wait for a server to be reached, and for one to say something; psql waits for ever, PyMySQL as well.
CONNECT_S, ANSWER_S = 10, 120
_LIBPQ, _MYSQL_DRIVERS = frozenset({"psycopg", "psycopg2"}), frozenset({"pymysql", "mysqldb"})

#: What pip calls a driver; one that is not listed is called what its URL calls it.
_PACKAGES: Mapping[str, str] = {
    "psycopg": "lepton-fl[postgres]",
    "pymysql": "lepton-fl[mysql]",
    "psycopg2": "psycopg2-binary",
    "mysqldb": "mysqlclient",
    "mysqlconnector": "mysql-connector-python",
    "mariadbconnector": "mariadb",
}
#: The driver to name for a database, instead of SQLAlchemy's own first choice.
_DRIVERS: Mapping[str, str] = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "oracle": "oracle+oracledb",
    "sqlite": "sqlite",
}

#: What a server's or a driver's code means: the reason, the message, what to do.
_DENIED = ("ACCESS_DENIED", "the database refuses the user or the password", "check source.url and password_file")
_NO_DATABASE = ("UNREADABLE", "no such database, or none that this user may use", "correct the name in source.url")
_NO_RIGHT = ("ACCESS_DENIED", "the user may not read what is mapped", "grant SELECT on the mapped columns")
_NO_TABLE = ("MISSING_TABLE", "the source has no such table", "correct source.table in the mapping")
_NO_SERVER = ("NO_SERVER", "no database answers there", "check host and port in source.url, and that it runs")
#: psycopg gives no code for what happens before a session.
_NO_CONNECTION = (
    "NO_SERVER",
    "no connection to the database",
    "check host, port, user and database in source.url, and the password, and that it runs",
)
_FAULT = (
    "UNREADABLE",
    "the database cannot be read",
    "check source.table, and the user's rights on the mapped columns",
)
_SILENT = (
    "NO_ANSWER",
    "the database stopped answering",
    "try again; a view that takes long wants a larger read_timeout in the URL, or a table made of it",
)
_TLS = ("UNREADABLE", "the server's certificate is not trusted, or it speaks no TLS", "check ssl_ca in source.url")
_MEANINGS: Mapping[str, tuple[str, str, str]] = {
    **dict.fromkeys(("1045", "1698", "28000", "28P01", "ORA-01017"), _DENIED),
    **dict.fromkeys(("1044", "1049", "3D000"), _NO_DATABASE),
    **dict.fromkeys(("1142", "1143", "42501", "ORA-01031"), _NO_RIGHT),
    **dict.fromkeys(("1146", "42P01", "ORA-00942"), _NO_TABLE),
    **dict.fromkeys(("2002", "2003", "2005", "08001", "08006"), _NO_SERVER),
    **dict.fromkeys(("2006", "2013", "1969", "3024", "57014", "57P01"), _SILENT),
    "2026": _TLS,
}


@contextmanager
def read_only(source: Source, base: Path) -> Iterator[Any]:
    """A connection whose transaction can only read; whatever the library says of it is named, never quoted.

    Raises:
        DataError: NO_DRIVER, NO_SERVER, NO_ANSWER, ACCESS_DENIED, NOT_READ_ONLY or UNREADABLE.
    """
    from sqlalchemy.exc import SQLAlchemyError

    engine = _engine(source, base)
    kind = engine.dialect.name
    options = {"postgresql_readonly": True} if kind == "postgresql" else {}
    try:
        with _connected(engine, source).execution_options(**options) as connection:
            _hold_to_reading(connection, kind)
            yield connection
    except SQLAlchemyError as error:
        raise _fault(error, source) from None
    finally:
        engine.dispose()


def give_up(connection: Any) -> None:
    """Close it with rows still to come; in good order, PyMySQL would first fetch every one of them."""
    result = getattr(connection.connection.dbapi_connection, "_result", None)
    if result is not None and getattr(result, "unbuffered_active", False):
        result.unbuffered_active = False
    connection.invalidate()


def _engine(source: Source, base: Path) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

    try:
        url = make_url(source.url or "")
        kind = url.get_backend_name()
    except ArgumentError:
        raise _unusable("no URL of a database") from None
    if kind not in _READ_ONLY:
        raise DataError(
            "a database that cannot be held to reading",
            where="source.url",
            expected=", ".join(_READ_ONLY),
            got=kind,
            hint="export the table to Parquet",
            reason="NOT_READ_ONLY",
        )
    if source.password_file is not None:
        url = url.set(password=_password(base / source.password_file))
    driver = url.drivername.partition("+")[2]
    try:
        dialect = url.get_dialect()
        if dialect.is_async:
            raise _unusable(f"the asynchronous driver {driver}", kind)
        waits = {key: value for key, value in _deadlines(dialect.driver).items() if key not in url.query}
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=waits)
    except ArgumentError:
        raise _unusable(f"a driver {driver or kind} that SQLAlchemy does not know", kind) from None
    except ImportError as error:
        name = driver or (error.name or kind).lower()
        raise DataError(
            "the driver of the database is not installed",
            where="source.url",
            expected=f"a URL whose driver is installed, such as {_DRIVERS[kind]}://reader@host/database",
            got=f"{url.drivername}, without {error.name or 'its module'}",
            hint=f"pip install '{_PACKAGES.get(name, name)}'",
            reason="NO_DRIVER",
        ) from None
    except (TypeError, ValueError):
        raise _bad_options(source) from None


def _connected(engine: Any, source: Source) -> Any:
    """A connection; what a driver does not understand in the URL it tells in many ways."""
    from sqlalchemy.exc import DBAPIError

    try:
        return engine.connect()
    except (TypeError, ValueError, OSError):
        raise _bad_options(source) from None
    except DBAPIError as error:
        raise _fault(error, source, _NO_CONNECTION) from None


def _hold_to_reading(connection: Any, kind: str) -> None:
    from sqlalchemy import text

    if kind == "sqlite":
        connection.execute(text("PRAGMA query_only = ON"))
    elif kind in _BY_STATEMENT:
        # Refused by the server where a transaction is open already, which could still write.
        connection.execute(text("SET TRANSACTION READ ONLY"))
    elif "options" not in connection.engine.url.query:
        connection.execute(text(f"SET LOCAL statement_timeout = {ANSWER_S * 1_000}"))


def _deadlines(driver: str) -> dict[str, int]:
    """How long the driver waits, in its own words; a URL may say otherwise."""
    if driver in _LIBPQ:
        alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        return {"connect_timeout": CONNECT_S, "tcp_user_timeout": ANSWER_S * 1_000, **alive}
    if driver in _MYSQL_DRIVERS:
        return {"connect_timeout": CONNECT_S, "read_timeout": ANSWER_S, "write_timeout": ANSWER_S}
    return {}


def _unusable(got: str, kind: str = "postgresql") -> DataError:
    return DataError(
        "a database URL that cannot be used",
        where="source.url",
        expected=f"a SQLAlchemy URL, such as {_DRIVERS[kind]}://reader@host/database",
        got=got,
        hint="correct source.url in the mapping",
        reason="UNREADABLE",
    )


def _bad_options(source: Source) -> DataError:
    from sqlalchemy.engine import make_url

    url = make_url(source.url or "")
    return DataError(
        "options of a database URL that its driver cannot use",
        where="source.url",
        expected=f"options of {url.drivername}, numbers where it takes numbers, files that are there",
        got=", ".join(sorted(url.query)) or "none",
        hint="correct what stands behind the ? in source.url",
        reason="UNREADABLE",
    )


def _fault(error: Exception, source: Source, otherwise: tuple[str, str, str] = _FAULT) -> DataError:
    """What went wrong, from the code that the server or the driver gives; its text may quote cells, and stays."""
    original = getattr(error, "orig", None)
    code = _code(original)
    meaning = _MEANINGS.get(code)
    if isinstance(getattr(original, "original_exception", None), ssl.SSLError):
        meaning = _TLS
    reason, message, hint = meaning or otherwise
    return DataError(
        message,
        where=source.shown,
        expected="a database that answers, and a table that this user may read",
        got=f"{type(error).__name__} {code}".rstrip(),
        hint=hint,
        reason=reason,
    )


def _code(original: Any) -> str:
    """MySQL's number, Oracle's ORA-, or the SQLSTATE of the others; empty if there is none."""
    first = next(iter(getattr(original, "args", ())), None)
    if isinstance(first, int):
        return str(first)
    return str(getattr(first, "full_code", None) or getattr(original, "sqlstate", None) or "")


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
