import datetime as dt
import pathlib
import sqlite3
import stat
from contextlib import closing

import polars as pl
import pytest

from lepton_core.errors import DataError
from lepton_kg.mapping import CsvOptions, Source
from lepton_kg.source import read_columns, source_schema

CSV = Source(kind="csv", path="d.csv")
TABLE = Source(kind="sqlite", path="d.db", table='odd "name"')


def make_table(path, rows, columns='"a" INTEGER, "b ""x""" REAL, "c" TEXT'):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f'CREATE TABLE "odd ""name""" ({columns})')
        connection.executemany('INSERT INTO "odd ""name""" VALUES (?, ?, ?)', rows)


def test_csv_cells_stay_as_they_are_written(tmp_path):
    (tmp_path / "d.csv").write_bytes('\ufeffid,a,"b,c"\n007,-9,"x ""y"""\n008,,NA\n'.encode())
    assert source_schema(CSV, tmp_path) == {"id": "text", "a": "text", "b,c": "text"}
    frame = read_columns(CSV, ["b,c", "id"], tmp_path)
    assert frame.to_dict(as_series=False) == {"b,c": ['x "y"', "NA"], "id": ["007", "008"]}
    assert read_columns(CSV, ["a"], tmp_path)["a"].to_list() == ["-9", None]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "latin-1"])
def test_csv_of_another_encoding_and_delimiter_is_read(tmp_path, encoding):
    (tmp_path / "d.csv").write_bytes("Größe;Fläche (cm²)\n1,5;x\n".encode(encoding))
    source = Source(kind="csv", path="d.csv", csv=CsvOptions(delimiter=";", encoding=encoding, decimal=","))
    assert list(source_schema(source, tmp_path)) == ["Größe", "Fläche (cm²)"]
    assert read_columns(source, ["Fläche (cm²)", "Größe"], tmp_path).row(0) == ("x", "1,5")


@pytest.mark.parametrize("cells", [b"a,b\n\xe4,1\n", b"a,b\n1,\xff\n"])
def test_a_wrong_encoding_is_a_data_error_without_cells(tmp_path, cells):
    (tmp_path / "d.csv").write_bytes(cells)
    with pytest.raises(DataError):
        read_columns(CSV, ["a", "b"], tmp_path)
    (tmp_path / "d.csv").write_bytes(b"\xe4,b\n1,2\n")
    with pytest.raises(DataError) as refused:
        source_schema(CSV, tmp_path)
    assert refused.value.reason == "BAD_ENCODING"


@pytest.mark.parametrize(
    ("encoding", "good", "bad", "line", "offset"),
    [
        ("utf-8", "a,b\n\nü,2\n", b"x,\xff\n", 4, 12),
        ("utf-8", "\ufeffa,b\n", b"\xc3", 2, 7),
        ("cp1252", "a,b\nü,2\n", b"x,\x81\n", 3, 10),
        ("utf-16", "a,b\n1,2\n", b"\x00\xdc", 3, 18),
    ],
)
def test_a_byte_of_another_encoding_is_told_with_its_line_wherever_it_is(tmp_path, encoding, good, bad, line, offset):
    source = Source(kind="csv", path="d.csv", csv=CsvOptions(encoding=encoding))
    many = "1,2\n" * 3_000_000  # of more bytes than are decoded at once
    for more in ("", many):
        before = (good + more).encode(encoding)
        (tmp_path / "d.csv").write_bytes(before + bad)
        with pytest.raises(DataError) as refused:
            read_columns(source, ["a"], tmp_path)
        at = offset + len(before) - len(good.encode(encoding))
        assert refused.value.reason == "BAD_ENCODING"
        assert refused.value.where == f"d.csv, line {line + more.count(chr(10))}"
        assert (refused.value.expected, refused.value.got) == (encoding, f"an invalid byte at offset {at}")


def test_a_quote_that_is_not_closed_is_told_with_the_line_that_opens_it(tmp_path):
    (tmp_path / "d.csv").write_text('a,b\n"1\n",2\n3,"secret\n5,6\n7,8\n')
    with pytest.raises(DataError, match="not closed") as refused:
        read_columns(CSV, ["a"], tmp_path)
    assert (refused.value.where, refused.value.reason) == ("d.csv, line 4", "UNREADABLE")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "cells", [[[1]], [{"a": 1}], [b"x"], [dt.timedelta(1)]], ids=["list", "struct", "bytes", "span"]
)
def test_a_parquet_column_of_other_things_than_cells_is_refused_by_name(tmp_path, cells):
    pl.DataFrame({"a": [1], "b": cells}).write_parquet(tmp_path / "d.parquet")
    source = Source(kind="parquet", path="d.parquet")
    assert read_columns(source, ["a"], tmp_path)["a"].to_list() == [1]
    with pytest.raises(DataError) as refused:
        read_columns(source, ["a", "b"], tmp_path)
    assert refused.value.where == "d.parquet, column 'b'"
    assert refused.value.got == str(pl.DataFrame({"b": cells}).schema["b"])


@pytest.mark.parametrize("text", ["a,a\n1,2\n", "a,\n1,2\n", ""])
def test_columns_without_a_name_of_their_own_are_refused(tmp_path, text):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        source_schema(CSV, tmp_path)
    assert refused.value.reason == "BAD_HEADER"


@pytest.mark.parametrize("line", ["secret,2,3", "secret", 'secret,"2'])
def test_a_line_with_more_or_fewer_cells_is_refused_without_quoting_them(tmp_path, line):
    (tmp_path / "d.csv").write_text(f'a,b\n1,"2\n3"\n{line}\n')
    with pytest.raises(DataError) as refused:
        read_columns(CSV, ["a"], tmp_path)
    assert refused.value.reason == "UNREADABLE"
    assert "secret" not in str(refused.value)


def test_a_ragged_line_is_told_by_its_number(tmp_path):
    (tmp_path / "d.csv").write_text("a,b\n1,2\n1,5,2\n")
    with pytest.raises(DataError) as refused:
        read_columns(CSV, ["a"], tmp_path)
    assert (refused.value.where, refused.value.got) == ("d.csv, line 3", "3 cells")


def test_parquet_keeps_its_types_and_reads_only_the_columns_asked_for(tmp_path):
    pl.DataFrame({"a": [1, 2], "半径": [0.5, None], "c": ["x", "y"]}).write_parquet(tmp_path / "d.parquet")
    source = Source(kind="parquet", path="d.parquet")
    assert source_schema(source, tmp_path) == {"a": "Int64", "半径": "Float64", "c": "String"}
    frame = read_columns(source, ["半径"], tmp_path)
    assert frame.schema == {"半径": pl.Float64}
    assert frame["半径"].to_list() == [0.5, None]


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "d.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError) as refused:
        source_schema(Source(kind="parquet", path="d.parquet"), tmp_path)
    assert refused.value.reason == "UNREADABLE"


def test_sqlite_columns_are_numbers_where_all_cells_are(tmp_path):
    make_table(tmp_path / "d.db", [(1, 2.5, "x"), (None, 3, None), (3, "NA", "y")])
    assert source_schema(TABLE, tmp_path) == {"a": "integer", 'b "x"': "real", "c": "text"}
    frame = read_columns(TABLE, ["a", 'b "x"'], tmp_path)
    assert frame.schema == {"a": pl.Int64, 'b "x"': pl.String}
    assert frame['b "x"'].to_list() == ["2.5", "3", "NA"]


def test_an_empty_sqlite_table_has_columns_and_no_rows(tmp_path):
    make_table(tmp_path / "d.db", [])
    assert read_columns(TABLE, ["c", "a"], tmp_path).shape == (0, 2)


def test_sqlite_is_opened_read_only_and_left_as_it_was(tmp_path):
    path = tmp_path / "d.db"
    make_table(path, [(1, 2.0, "x")])
    before = path.read_bytes()
    pathlib.Path(path).chmod(stat.S_IRUSR)
    assert read_columns(TABLE, ["a"], tmp_path)["a"].to_list() == [1]
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["d.db"]


def test_sqlite_names_are_never_run_as_sql(tmp_path):
    make_table(tmp_path / "d.db", [(1, 2.0, "x")])
    with pytest.raises(DataError) as refused:
        read_columns(TABLE, ['a" FROM sqlite_master --'], tmp_path)
    assert refused.value.reason == "MISSING_COLUMN"
    with pytest.raises(DataError) as refused:
        source_schema(Source(kind="sqlite", path="d.db", table="x; DROP TABLE y"), tmp_path)
    assert (refused.value.reason, refused.value.got) == ("MISSING_TABLE", 'odd "name"')


def test_binary_cells_and_files_that_are_no_database_are_refused(tmp_path):
    make_table(tmp_path / "d.db", [(1, 2.0, b"\x00")])
    with pytest.raises(DataError, match="binary"):
        read_columns(TABLE, ["c"], tmp_path)
    (tmp_path / "d.db").write_bytes(b"x" * 4096)
    with pytest.raises(DataError) as refused:
        read_columns(TABLE, ["c"], tmp_path)
    assert refused.value.reason == "UNREADABLE"


@pytest.mark.parametrize("path", ["gone.csv", "."])
def test_a_missing_file_tells_where_it_was_sought(tmp_path, path):
    with pytest.raises(DataError) as refused:
        read_columns(Source(kind="csv", path=path), ["a"], tmp_path)
    assert refused.value.reason == "MISSING_FILE"
    assert str(tmp_path) in refused.value.expected


def test_a_missing_column_tells_the_ones_there_are(tmp_path):
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError) as refused:
        read_columns(CSV, ["a", "c"], tmp_path)
    assert (refused.value.expected, refused.value.got) == ("c", "a, b")


@pytest.mark.parametrize("body", [b"a\r1\r2\r", b"a,b\r1,2\r3,4\r"])
def test_a_file_whose_lines_end_with_carriage_returns_alone_is_refused_and_not_empty(tmp_path, body):
    (tmp_path / "d.csv").write_bytes(body)
    with pytest.raises(DataError) as refused:
        read_columns(Source(kind="csv", path="d.csv"), ["a"], tmp_path)
    assert refused.value.where == "d.csv, line 1"
    assert "line ends" in refused.value.hint


def test_a_quoted_name_or_cell_may_hold_a_carriage_return(tmp_path):
    (tmp_path / "d.csv").write_bytes(b'"a\rb",c\r\n"1\r2",3\r\n')
    assert read_columns(Source(kind="csv", path="d.csv"), ["a\rb", "c"], tmp_path).rows() == [("1\r2", "3")]
