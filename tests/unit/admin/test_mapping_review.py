"""Reviewing, renewing and judging a mapping from the command line; statistics stay on the terminal."""

from __future__ import annotations

import io
import json
import stat

import pytest

from lepton_admin.cli.main import run
from lepton_core.errors import DataError, MappingError
from lepton_core.identity import IdentityKey
from lepton_core.ports import SystemRandomness
from lepton_kg.approval import require_signed
from lepton_kg.mapping import parse_mapping
from lepton_kg.sssom import to_sssom
from tests.unit.kg.test_hospitals import ONTOLOGY

HOSPITALS = "https://example.org/hospitals/"


def command(verb, *words):
    return run(["mapping", verb, *map(str, words), "--output", "json"])


@pytest.fixture
def proposed(data, capsys):
    """The data folder with a proposed mapping of birken, whose file is in Windows-1252 with decimal commas."""
    file = data / "birken" / "proposed.yaml"
    source = data / "birken" / "data.csv"
    assert command("suggest", source, "--ontology", data / "ontology.ttl", "--file", file) == 0
    told = json.loads(capsys.readouterr().out)
    assert "cp1252: not utf-8, and its bytes above 127 stand alone" in told["source"]
    assert "decimal sign ','" in told["source"]
    return file


def answer(monkeypatch, *lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))


def read(file):
    return parse_mapping(file.read_text("utf-8"), source="test")


def test_a_review_accepts_changes_and_skips_and_tells_no_statistics_on_standard_output(
    data, proposed, monkeypatch, capsys
):
    before = read(proposed)
    first, second, third = (column.column for column in before.columns[:3])
    free = HOSPITALS + "mean-radius"
    taken = {before.iri(column.concept) for column in before.columns if column.column != second}
    answer(monkeypatch, "a", "no-such-concept", "1" if free in taken else free, "s", "q")
    words = (proposed, "--ontology", data / "ontology.ttl", "--approver", "Ada")
    assert command("review", *words) == 0
    told = capsys.readouterr()
    decided = json.loads(told.out)
    assert decided["accepted"][0] == first
    assert third in decided["skipped"]
    assert len(decided["accepted"]) + len(decided["changed"]) + len(decided["skipped"]) == len(before.columns)
    assert "the sample:" in told.err
    assert "the sample:" not in told.out
    after = read(proposed)
    status = {column.column: (column.status, column.approver) for column in after.columns}
    assert status[first] == ("approved", "Ada")
    assert status[third] == ("proposed", None)
    assert after.source_schema is not None


def test_a_review_whose_input_is_empty_changes_nothing(data, proposed, monkeypatch, capsys):
    before = proposed.read_bytes()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert command("review", proposed, "--ontology", data / "ontology.ttl", "--approver", "Ada") == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == []
    assert proposed.read_bytes() == before


def test_an_approval_is_signed_with_the_clients_identity(data, tmp_path, capsys):
    key = IdentityKey.generate(SystemRandomness())
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "identity.pem").write_bytes(key.to_pem())
    (tmp_path / "client" / "identity.pem").chmod(0o600)
    mapping = data / "aurora" / "mapping.yaml"
    words = ("--ontology", data / "ontology.ttl", "--approver", "Ada", "--client", tmp_path / "client")
    assert command("approve", mapping, *words) == 0
    assert json.loads(capsys.readouterr().out)["signed_by"] == key.public.hex()
    require_signed(read(mapping), key.public)


def test_a_changed_source_is_renewed_with_a_difference_and_loses_one_lines_approval(data, capsys):
    mapping, source = data / "aurora" / "mapping.yaml", data / "aurora" / "data.csv"
    source.write_text(source.read_text("utf-8").replace("radius_mean", "radius_avg", 1), encoding="utf-8")
    assert command("renew", mapping, "--ontology", data / "ontology.ttl") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["unapproved"] == ["radius_mean"]
    assert "'radius_avg' is new" in told["differences"]
    assert command("check", mapping, "--ontology", data / "ontology.ttl") == MappingError.exit_code
    fields = json.loads(capsys.readouterr().err)
    assert fields["reason"] == "MISSING_COLUMN"


def test_the_quality_page_is_the_owners_alone_and_loads_nothing(data, capsys):
    page = data / "quality.html"
    words = (data / "birken" / "mapping.yaml", "--ontology", data / "ontology.ttl", "--file", page)
    assert command("quality", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 90
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text("utf-8")
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "Radius Mittelwert (cm)" in text
    assert run(["mapping", "quality", *map(str, words[:3])]) == 0
    assert "quality of" in capsys.readouterr().out


def test_an_sssom_table_goes_out_and_comes_in(data, capsys):
    mapping, table = data / "aurora" / "mapping.yaml", data / "out.sssom.tsv"
    before = read(mapping)
    assert command("export", mapping, "--ontology", data / "ontology.ttl", "--file", table) == 0
    assert table.read_text("utf-8") == to_sssom(before, ONTOLOGY)
    assert command("import", table, mapping) == 0
    assert read(mapping) == before
    table.write_text(table.read_text("utf-8") + "short\n", encoding="utf-8")
    capsys.readouterr()
    assert command("import", table, mapping) == MappingError.exit_code
    assert "line" in json.loads(capsys.readouterr().err)["where"]
    assert read(mapping) == before


def test_the_schema_is_printed(capsys):
    assert command("schema") == 0
    assert json.loads(capsys.readouterr().out)["additionalProperties"] is False
    assert run(["mapping", "schema", "--output", "table"]) == 0


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "reason", "where"),
    [
        ("radius_mean", "radius_meen", "MISSING_COLUMN", "radius_meen"),
        ("concept: mean-texture", "concept: mean-radius", "", "mapping.yaml"),
        ("    M: malignant", "    M: benign-ish", "UNKNOWN_VALUE", "code 'M'"),
    ],
    ids=["missing-column", "two-for-one-concept", "value-outside"],
)
def test_bad_mappings_are_typed_errors_that_leave_the_file_as_it_was(data, capsys, old, new, reason, where):
    mapping = data / "aurora" / "mapping.yaml"
    edit(mapping, old, new)
    before = mapping.read_bytes()
    words = ("--ontology", data / "ontology.ttl", "--approver", "Ada")
    assert command("approve", mapping, *words) == 3
    fields = json.loads(capsys.readouterr().err)
    assert fields.get("reason", "") == reason
    assert where in fields["where"]
    assert fields["got"]
    assert mapping.read_bytes() == before


def test_a_source_with_mixed_decimals_or_another_encoding_is_not_approved(data, capsys):
    mapping, source = data / "birken" / "mapping.yaml", data / "birken" / "data.csv"
    lines = source.read_bytes().split(b"\n")
    cells = lines[5].split(b";")
    place = next(i for i, cell in enumerate(cells) if b"," in cell)
    cells[place] = cells[place].replace(b",", b".")
    source.write_bytes(b"\n".join([*lines[:5], b";".join(cells), *lines[6:]]))
    words = (mapping, "--ontology", data / "ontology.ttl", "--approver", "Ada")
    assert command("approve", *words) == DataError.exit_code
    fields = json.loads(capsys.readouterr().err)
    assert fields["reason"] == "MIXED_DECIMALS"
    assert "row 5" in fields["where"]
    edit(mapping, "encoding: cp1252", "encoding: utf-16")
    assert command("approve", *words) == DataError.exit_code
    assert json.loads(capsys.readouterr().err)["reason"] == "BAD_ENCODING"
    assert {column.approver for column in read(mapping).columns} == {"data steward of birken"}


def test_a_line_whose_codes_could_mean_either_is_shown_as_open_and_not_accepted_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "o.ttl").write_text("""
        @prefix : <https://example.org/c/> . @prefix lepton: <https://w3id.org/lepton/kg#> .
        @prefix skos: <http://www.w3.org/2004/02/skos/core#> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
        :finding a skos:Concept ; skos:prefLabel "finding"@en ; lepton:datatype xsd:string ; lepton:valueSet :kinds .
        :kinds a skos:Collection ; skos:member :malignant, :benign .
        :malignant a skos:Concept ; skos:prefLabel "malignant"@en ; skos:notation "M" .
        :benign a skos:Concept ; skos:prefLabel "benign"@en ; skos:notation "B" .
        :smoker a skos:Concept ; skos:prefLabel "smoker"@en ; lepton:datatype xsd:boolean ; lepton:valueSet :answers .
        :answers a skos:Collection ; skos:member :yes, :no .
        :yes a skos:Concept ; skos:prefLabel "yes"@en ; skos:notation "1" .
        :no a skos:Concept ; skos:prefLabel "no"@en ; skos:notation "0" .""")
    (tmp_path / "d.csv").write_text("finding,smoker\nJ,J\nN,N\nN,?\n")
    file = tmp_path / "m.yaml"
    assert command("suggest", tmp_path / "d.csv", "--ontology", tmp_path / "o.ttl", "--file", file) == 0
    capsys.readouterr()
    answer(monkeypatch, "a", "s", "a")
    assert command("review", file, "--ontology", tmp_path / "o.ttl", "--approver", "Ada") == 0
    told = capsys.readouterr()
    decided = json.loads(told.out)
    assert (decided["accepted"], decided["skipped"]) == (["smoker"], ["finding"])
    assert "codes: none; left open, so that their rows are refused: J, N" in told.err
    assert "write under codes which means which" in told.err
    assert "codes: J = yes, N = no; left open, so that their rows are refused: ?" in told.err
    finding, smoker = read(file).columns
    assert (finding.codes, smoker.codes) == ({}, {"J": "https://example.org/c/yes", "N": "https://example.org/c/no"})
