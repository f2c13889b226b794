"""Every kind of source gives the same columns, in batches, and is only ever read."""

from __future__ import annotations

import datetime as dt
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from lepton_core.errors import DataError
from lepton_kg import sql_connection
from lepton_kg.mapping import Source
from lepton_kg.source import read_batches, read_columns, source_schema
from lepton_kg.sql_connection import read_only

ROWS = [(1, 2.5, "x", "secret"), (2, None, None, "secret"), (3, 3.0, "y", "secret")]
MARIADB = pytest.param("sql-mariadb", marks=pytest.mark.xdist_group("mariadb"))
KINDS = ("csv", "parquet", "sqlite", "sql-sqlite", "sql-postgresql", MARIADB)


@pytest.fixture(scope="module")
def ward_url(postgres_url):
    """A database of its own on the server, whose first one is the coordinator's."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as server:
        server.execute(text("DROP DATABASE IF EXISTS ward WITH (FORCE)"))
        server.execute(text("CREATE DATABASE ward"))
    engine.dispose()
    return make_url(postgres_url).set(database="ward").render_as_string(hide_password=False)


def fill(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "mariadb":
            connection.execute(text("SET SESSION sql_mode = 'ANSI_QUOTES'"))
        connection.execute(text('DROP TABLE IF EXISTS "Ward ""A"""'))
        connection.execute(text('CREATE TABLE "Ward ""A""" (id INTEGER, "Wert" REAL, c TEXT, name TEXT)'))
        for row in ROWS:
            connection.execute(
                text('INSERT INTO "Ward ""A""" VALUES (:i, :v, :c, :n)'), dict(zip("ivcn", row, strict=True))
            )
    engine.dispose()


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    kind = request.param
    if kind == "csv":
        lines = ["id,Wert,c,name", *(",".join("" if cell is None else str(cell) for cell in row) for row in ROWS)]
        (tmp_path / "d.csv").write_text("\n".join(lines))
        return Source(kind="csv", path="d.csv")
    if kind == "parquet":
        pl.DataFrame(ROWS, schema=["id", "Wert", "c", "name"], orient="row").write_parquet(tmp_path / "d.parquet")
        return Source(kind="parquet", path="d.parquet")
    url = f"sqlite:///{tmp_path}/d.db"
    if kind == "sql-postgresql":
        url = without_password(request.getfixturevalue("ward_url"))
    if kind == "sql-mariadb":
        url = request.getfixturevalue("mariadb").url()
    fill(url)
    if kind == "sqlite":
        return Source(kind="sqlite", path="d.db", table='Ward "A"')
    return Source(kind="sql", url=url, table='Ward "A"')


def without_password(url):
    return make_url(url)._replace(password=None).render_as_string()


def test_the_columns_asked_for_come_in_that_order_with_every_row(source, tmp_path):
    assert list(source_schema(source, tmp_path)) == ["id", "Wert", "c", "name"]
    frame = read_columns(source, ["c", "Wert"], tmp_path)
    assert frame.columns == ["c", "Wert"]
    assert frame["c"].to_list() == ["x", None, "y"]
    assert frame["Wert"].cast(pl.Float64).to_list() == [2.5, None, 3.0]


def test_a_column_or_table_that_is_not_there_is_a_typed_error(source, tmp_path):
    with pytest.raises(DataError) as refused:
        read_columns(source, ["c", "gone"], tmp_path)
    assert (refused.value.reason, refused.value.expected) == ("MISSING_COLUMN", "gone")
    if source.table is not None:
        with pytest.raises(DataError) as refused:
            read_columns(source.model_copy(update={"table": "gone"}), ["c"], tmp_path)
        assert (refused.value.reason, refused.value.expected) == ("MISSING_TABLE", "gone")


def test_only_mapped_columns_are_named_in_what_is_sent_to_a_database(source, tmp_path):
    if source.kind != "sql":
        pytest.skip("not a database by URL")
    sent = []

    def note(connection, cursor, statement, *_):
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        read_columns(source, ["Wert"], tmp_path)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    selects = [statement for statement in sent if "Wert" in statement]
    assert selects in (['SELECT "Wert" \nFROM "Ward ""A"""'], ['SELECT `Wert` \nFROM `Ward "A"`'])


@pytest.mark.parametrize("kind", ["sqlite", "sql"])
def test_no_cell_of_an_unmapped_column_of_sqlite_is_ever_computed(tmp_path, kind):
    fill(f"sqlite:///{tmp_path}/d.db")
    # Whoever reads `name` of the view has SQLite take the absolute value of the least integer, which is an error.
    view = """CREATE VIEW ward AS
        SELECT id, "Wert", c, abs(CASE WHEN id > 0 THEN -9223372036854775807 - 1 END) AS name FROM "Ward ""A""\""""
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection, connection:
        connection.execute(view)
        with pytest.raises(sqlite3.OperationalError, match="integer overflow"):
            connection.execute("SELECT name FROM ward").fetchall()
    place = {"path": "d.db"} if kind == "sqlite" else {"url": f"sqlite:///{tmp_path}/d.db"}
    source = Source(kind=kind, table="ward", **place)
    assert list(source_schema(source, tmp_path)) == ["id", "Wert", "c", "name"]
    frame = read_columns(source, ["c", "id"], tmp_path)
    assert frame.to_dict(as_series=False) == {"c": ["x", None, "y"], "id": [1, 2, 3]}
    with pytest.raises(DataError) as refused:
        read_columns(source, ["c", "name"], tmp_path)
    assert refused.value.reason == "UNREADABLE"


def test_a_database_reads_with_rights_on_the_mapped_columns_alone_and_cannot_write(ward_url, tmp_path):
    url = without_password(ward_url)
    fill(url)
    owner = create_engine(url)
    with owner.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS reader"))
        connection.execute(text("CREATE ROLE reader LOGIN PASSWORD 'geheim'"))
        connection.execute(text('GRANT SELECT (id, "Wert") ON "Ward ""A""" TO reader'))
    (tmp_path / "password").write_text("geheim\n")
    (tmp_path / "password").chmod(0o600)
    limited = make_url(url).set(username="reader").render_as_string()
    source = Source(kind="sql", url=limited, table='public.Ward "A"', password_file="password")
    assert read_columns(source, ["Wert", "id"], tmp_path)["id"].to_list() == [1, 2, 3]
    with pytest.raises(DataError) as refused:
        read_columns(source, ["name"], tmp_path)
    assert (refused.value.reason, refused.value.got) == ("ACCESS_DENIED", "ProgrammingError 42501")
    assert "geheim" not in str(refused.value)
    with owner.begin() as connection:
        connection.execute(text("DROP OWNED BY reader"))
        connection.execute(text("DROP ROLE reader"))
    # The table's owner may write; the transaction may not.
    with (
        pytest.raises(DataError) as refused,
        read_only(Source(kind="sql", url=url, table="t"), tmp_path) as connection,
    ):
        connection.execute(text('INSERT INTO "Ward ""A""" VALUES (9, 9, NULL, NULL)'))
    assert refused.value.got == "InternalError 25006"
    owner.dispose()


def test_a_database_by_sqlite_url_cannot_be_written(tmp_path):
    fill(f"sqlite:///{tmp_path}/d.db")
    source = Source(kind="sql", url=f"sqlite:///{tmp_path}/d.db", table="t")
    with pytest.raises(DataError), read_only(source, tmp_path) as connection:
        connection.execute(text('DELETE FROM "Ward ""A"""'))
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection:
        assert connection.execute('SELECT count(*) FROM "Ward ""A"""').fetchone() == (3,)


def test_dates_of_a_database_come_as_dates(ward_url, tmp_path):
    engine = create_engine(without_password(ward_url))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS visits"))
        connection.execute(text("CREATE TABLE visits (born DATE, seen TIMESTAMP, weight NUMERIC(5, 1))"))
        connection.execute(text("INSERT INTO visits VALUES ('1950-02-03', '2020-01-01 10:00', 70.5), (NULL, NULL, 71)"))
    engine.dispose()
    source = Source(kind="sql", url=without_password(ward_url), table="visits")
    frame = read_columns(source, ["born", "seen", "weight"], tmp_path)
    assert frame["born"].to_list() == [dt.date(1950, 2, 3), None]
    assert frame["seen"].to_list() == [dt.date(2020, 1, 1), None]
    assert frame["weight"].to_list() == [70.5, 71.0]


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_password_that_others_may_read_is_refused(tmp_path, mode):
    (tmp_path / "password").write_text("geheim")
    (tmp_path / "password").chmod(mode)
    source = Source(kind="sql", url="postgresql+psycopg://reader@/ward", table="t", password_file="password")
    with pytest.raises(DataError) as refused:
        source_schema(source, tmp_path)
    assert (refused.value.expected, refused.value.got) == ("mode 600", f"{mode:o}")


@pytest.mark.parametrize(
    ("url", "reason", "told"),
    [
        ("postgresql+psycopg://reader@127.0.0.1:1/ward", "NO_SERVER", "check host"),
        ("mysql+pymysql://reader@127.0.0.1:1/ward", "NO_SERVER", "check host"),
        ("mysql+mysqldb://reader@host/ward", "NO_DRIVER", "pip install 'mysqlclient'"),
        ("oracle+oracledb://reader@host/ward", "NO_DRIVER", "pip install 'oracledb'"),
        ("mysql+aiomysql://reader@host/ward", "UNREADABLE", "asynchronous"),
        ("mysql+nosuch://reader@host/ward", "UNREADABLE", "nosuch"),
        ("mssql+pyodbc://reader@host/ward", "NOT_READ_ONLY", "Parquet"),
        ("nosuch://host/db", "NOT_READ_ONLY", "Parquet"),
        ("no url", "UNREADABLE", "no URL"),
        ("mysql+pymysql://reader@127.0.0.1/ward?nosuch=1", "UNREADABLE", "got: nosuch"),
        ("mysql+pymysql://reader@127.0.0.1/ward?connect_timeout=soon", "UNREADABLE", "got: connect_timeout"),
        ("mysql+pymysql://reader@127.0.0.1/ward?ssl_ca=/no/such/file", "UNREADABLE", "got: ssl_ca"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_with_what_to_do(url, reason, told, tmp_path):
    with pytest.raises(DataError) as refused:
        source_schema(Source(kind="sql", url=url, table="t"), tmp_path)
    assert refused.value.reason == reason
    assert told in str(refused.value)


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_server_that_takes_the_call_and_says_nothing_is_given_up(scheme, tmp_path, monkeypatch):
    monkeypatch.setattr(sql_connection, "CONNECT_S", 2)  # the least that libpq takes
    monkeypatch.setattr(sql_connection, "ANSWER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://reader@127.0.0.1:{silent.getsockname()[1]}/ward"
        with pytest.raises(DataError) as refused:
            source_schema(Source(kind="sql", url=url, table="t"), tmp_path)
    assert refused.value.reason in {"NO_ANSWER", "NO_SERVER"}


def test_no_statement_of_postgresql_waits_for_ever(ward_url, tmp_path):
    source = Source(kind="sql", url=without_password(ward_url), table="t")
    with read_only(source, tmp_path) as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "2min"


def test_large_sources_come_in_batches_that_add_up(tmp_path: Path):
    rows = 200_000
    frame = pl.DataFrame({"a": range(rows), "b": ['x,\n"y"' if row % 1000 == 0 else "z" for row in range(rows)]})
    frame.write_csv(tmp_path / "d.csv")
    frame.write_parquet(tmp_path / "d.parquet")
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection, connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", frame.iter_rows())
    for source in (
        Source(kind="csv", path="d.csv"),
        Source(kind="parquet", path="d.parquet"),
        Source(kind="sqlite", path="d.db", table="t"),
        Source(kind="sql", url=f"sqlite:///{tmp_path}/d.db", table="t"),
    ):
        heights, total = [], 0
        for batch in read_batches(source, ["b", "a"], tmp_path):
            heights.append(batch.height)
            total += int(batch["a"].cast(pl.Int64).sum())
        assert sum(heights) == rows, source.kind
        assert total == rows * (rows - 1) // 2
        assert source.kind == "csv" or max(heights) <= 65_536
