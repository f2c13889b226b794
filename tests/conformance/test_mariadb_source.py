"""A table of a real MariaDB: rights on the mapped columns are enough, every type is told apart, nothing is written."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from lepton_core.errors import DataError
from lepton_kg import sql_source
from lepton_kg.mapping import Source
from lepton_kg.source import read_batches, read_columns, source_schema
from lepton_kg.sql_connection import read_only

pytestmark = pytest.mark.xdist_group("mariadb")
NAMES = ("id", "select", "a%b", "p:q", "血糖 (mmol/L)", "back`tick")
TYPES = {
    "amount": ("DECIMAL(20,10)", ["1.5", None, "2"]),
    "long_id": ("DECIMAL(38,0)", ["12345678901234567890123456789012345678", None, "5"]),
    "hash": ("BIGINT UNSIGNED", ["18446744073709551615", None, "1"]),
    "flag": ("TINYINT(1)", ["1", None, "0"]),
    "bit": ("BIT(1)", ["b'1'", None, "b'0'"]),
    "born": ("DATE", ["'1950-02-03'", None, "'2001-12-31'"]),
    "seen": ("DATETIME", ["'2020-01-01 10:00:00'", None, "'2020-01-02 23:59:59'"]),
    "zero": ("DATETIME", ["'2020-01-01 10:00:00'", None, "'0000-00-00'"]),
    "note": ("TEXT", ["'größe 😀'", None, "'x'"]),
    "latin": ("VARCHAR(9) CHARACTER SET latin1", ["'größe'", None, "'x'"]),
    "stage": ("ENUM('I', 'II')", ["'I'", None, "'II'"]),
    "raw": ("BINARY(2)", ["'ab'", None, "'cd'"]),
}
READ = {
    "amount": [1.5, None, 2.0],
    "long_id": ["12345678901234567890123456789012345678", None, "5"],
    "hash": ["18446744073709551615", None, "1"],
    "flag": [1, None, 0],
    "bit": [1, None, 0],
    "born": [dt.date(1950, 2, 3), None, dt.date(2001, 12, 31)],
    "seen": [dt.date(2020, 1, 1), None, dt.date(2020, 1, 2)],
    "zero": ["2020-01-01", None, "0000-00-00 00:00:00"],
    "note": ["größe 😀", None, "x"],
    "latin": ["größe", None, "x"],
    "stage": ["I", None, "II"],
}


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


@pytest.fixture(scope="module")
def ward(mariadb):
    """The server, with a table of difficult names, one of all types, one of many rows, and a reader of some columns."""
    owner = create_engine(mariadb.url())
    with owner.begin() as connection:
        say = connection.exec_driver_sql
        columns = ", ".join(f"{quoted(name).replace('%', '%%')} VARCHAR(9)" for name in NAMES)
        table = '`Ward ``A" %%ä`'
        say(f"CREATE TABLE {table} ({columns}, secret TEXT)")
        say(f"INSERT INTO {table} VALUES ('1', 's', 'a', 'p', 'z', 't', 'geheim')")  # noqa: S608 - nobody's input
        say("CREATE TABLE types (" + ", ".join(f"`{name}` {kind}" for name, (kind, _) in TYPES.items()) + ")")
        say("SET SESSION sql_mode = ''")  # lets it store a day that is none
        for row in range(3):
            cells = ", ".join(cells[row] or "NULL" for _, cells in TYPES.values())
            say(f"INSERT INTO types VALUES ({cells})")  # noqa: S608 - nobody's input
        say("CREATE TABLE many (a INT)")
        say("INSERT INTO many SELECT seq FROM seq_1_to_20000")
        say("CREATE VIEW wide AS SELECT seq AS a, REPEAT('x', 2000) AS b FROM seq_1_to_100000")
        say("CREATE TABLE plain (a INT) ENGINE = Aria")
        say("CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'geheim'")
        readable = ", ".join(quoted(name).replace("%", "%%") for name in NAMES)
        say(f"GRANT SELECT ({readable}) ON {table} TO reader@'127.0.0.1'")
    owner.dispose()
    return mariadb


def table(ward, name, options=""):
    return Source(kind="sql", url=ward.url(options=options), table=name)


def as_reader(ward, folder, *, secret="geheim"):  # noqa: S107 - of a user of this test's server alone
    (folder / "password").write_text(secret)
    (folder / "password").chmod(0o600)
    return Source(kind="sql", url=ward.url("reader"), table='ward.Ward `A" %ä', password_file="password")


def test_a_reader_with_rights_on_the_mapped_columns_alone_reads_them_whatever_they_are_called(ward, tmp_path):
    source = as_reader(ward, tmp_path)
    assert source_schema(source, tmp_path) == dict.fromkeys(NAMES, "varchar(9)")
    assert read_columns(source, NAMES, tmp_path).rows() == [("1", "s", "a", "p", "z", "t")]
    with pytest.raises(DataError) as refused:
        read_columns(source, ["secret"], tmp_path)
    assert refused.value.reason == "MISSING_COLUMN"


def test_cells_of_every_type_are_read_as_they_are_meant(ward, tmp_path):
    source = table(ward, "types")
    assert read_columns(source, list(READ), tmp_path).to_dict(as_series=False) == READ
    with pytest.raises(DataError) as refused:
        read_columns(source, ["raw"], tmp_path)
    assert (refused.value.got, "column raw" in refused.value.where) == ("binary", True)


@pytest.mark.parametrize("statement", ["INSERT INTO plain VALUES (1)", "DELETE FROM types", "UPDATE many SET a = 0"])
def test_its_owner_cannot_write_to_it_whatever_engine_keeps_the_table(ward, tmp_path, statement):
    source = table(ward, "types")
    with pytest.raises(DataError) as refused, read_only(source, tmp_path) as connection:
        connection.execute(text(statement))
    assert refused.value.got.endswith(" 1792")
    assert [
        read_columns(table(ward, name), [column], tmp_path).height
        for name, column in (("plain", "a"), ("types", "note"))
    ] == [0, 3]


def test_what_is_wrong_with_user_password_database_or_table_is_told_and_no_secret_is(ward, tmp_path):
    unknown = Source(kind="sql", url=f"mysql+pymysql://owner@127.0.0.1:{ward.port}/nosuch", table="t")
    for source, reason, told in (
        (as_reader(ward, tmp_path, secret="falsch!"), "ACCESS_DENIED", "refuses the user or the password"),
        (unknown, "UNREADABLE", "no such database"),
        (table(ward, "Many"), "MISSING_TABLE", "many"),
        (table(ward, "many", "?ssl_ca=" + __file__), "UNREADABLE", "options of a database URL"),
        (table(ward, "many", "?ssl_verify_cert=true"), "UNREADABLE", "certificate is not trusted"),
    ):
        with pytest.raises(DataError) as refused:
            source_schema(source, tmp_path)
        assert refused.value.reason == reason, str(refused.value)
        assert told in str(refused.value)
        assert "falsch" not in str(refused.value)


def test_the_certificate_that_the_url_names_is_asked_for_and_the_session_is_encrypted(ward, tmp_path):
    with read_only(table(ward, "many", f"?ssl_ca={ward.certificate}"), tmp_path) as connection:
        assert connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]


def test_rows_come_while_the_server_still_sends_and_those_not_wanted_are_never_fetched(ward, tmp_path, monkeypatch):
    monkeypatch.setattr(sql_source, "BATCH_ROWS", 1_000)
    batches = read_batches(table(ward, "wide"), ["a", "b"], tmp_path)
    assert next(batches)["a"].to_list() == list(range(1, 1_001))
    with create_engine(ward.url()).connect() as watching:
        reading = text("SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT `a`%'")
        assert watching.execute(reading).scalar() == 1
        batches.close()
        sent = watching.execute(text("SHOW GLOBAL STATUS LIKE 'Bytes_sent'")).one()[1]
    assert int(sent) < 100_000_000  # of the view's 200 MB; sockets buffer a few
    many = pl.concat(read_batches(table(ward, "many"), ["a"], tmp_path))
    assert (many.height, many["a"].sum()) == (20_000, 20_000 * 20_001 // 2)
