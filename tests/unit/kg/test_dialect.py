"""A CSV file's encoding, delimiter and decimal sign are found out, told, and read back right."""

from __future__ import annotations

import pytest

from lepton_core.errors import DataError
from lepton_kg.dialect import detect_dialect
from lepton_kg.mapping import Source
from lepton_kg.source import read_columns

GERMAN = "Größe;Befund\n1,5;bösartig\n2,25;gutartig\n"
CHINESE = "半径,诊断\n1.5,恶性\n2.25,良性\n"


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (GERMAN, "cp1252", ("cp1252", ";", ",")),
        (GERMAN, "utf-8", ("utf-8", ";", ",")),
        (GERMAN, "utf-8-sig", ("utf-8", ";", ",")),
        (GERMAN, "utf-16", ("utf-16", ";", ",")),
        (CHINESE, "gb18030", ("gb18030", ",", ".")),
        (CHINESE, "utf-8", ("utf-8", ",", ".")),
        ("a\tb\n1\t2\n", "ascii", ("utf-8", "\t", ".")),
        ('"a|b";c\n"1;2";3\n', "ascii", ("utf-8", ";", ".")),
        ("a\n1\n", "ascii", ("utf-8", ",", ".")),
    ],
)
def test_a_file_is_read_as_it_is_written(tmp_path, text, encoding, found):
    (tmp_path / "d.csv").write_bytes(text.encode(encoding))
    dialect = detect_dialect(tmp_path / "d.csv")
    options = dialect.options
    assert (options.encoding, options.delimiter, options.decimal) == found
    header = [name.strip('"') for name in text.split("\n", 1)[0].split(options.delimiter)]
    frame = read_columns(Source(kind="csv", path="d.csv", csv=options), header, tmp_path)
    assert frame.height == text.count("\n") - 1
    assert any(options.encoding in reason for reason in dialect.reasons)


def test_a_utf8_character_across_two_blocks_is_no_other_encoding(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"a,b\n" + b"x,1\n" * (2**18 - 2) + "xxxü,1\n".encode())
    assert detect_dialect(tmp_path / "d.csv").options.encoding == "utf-8"


def test_mixed_decimal_signs_are_told_and_the_more_frequent_one_is_taken(tmp_path):
    (tmp_path / "d.csv").write_text("a;b\n1,5;2,5\n1.5;3,5\n")
    dialect = detect_dialect(tmp_path / "d.csv")
    assert dialect.options.decimal == ","
    assert dialect.reasons[-1] == "decimal signs are mixed: 3 cells of the sample have ',' and 1 have '.'"


def test_what_a_person_says_is_believed(tmp_path):
    (tmp_path / "d.csv").write_text("a;b,c\n1;2,3\n")
    assert detect_dialect(tmp_path / "d.csv", delimiter=",", decimal=".").options.delimiter == ","


@pytest.mark.parametrize("text", ["", "a,b\n1\n1,2,3\n"])
def test_a_file_that_no_delimiter_parts_is_refused(tmp_path, text):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        detect_dialect(tmp_path / "d.csv")
    assert refused.value.reason == "UNREADABLE"
    with pytest.raises(DataError) as refused:
        detect_dialect(tmp_path / "gone.csv")
    assert refused.value.reason == "MISSING_FILE"
