from __future__ import annotations

import datetime as dt
import json

import polars as pl
import pytest

from lepton_admin.cli.main import run
from lepton_core.errors import ConflictError, DataError, InputError, MappingError, UnitError
from lepton_kg.mapping import parse_mapping


def mapping_command(verb, *words):
    return run(["mapping", verb, *map(str, words), "--output", "json"])


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_an_approved_mapping_holds_and_its_rows_are_counted(data, capsys):
    code = mapping_command(
        "check", data / "aurora" / "mapping.yaml", "--ontology", data / "ontology.ttl", "--job", data / "job.toml"
    )
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["columns"] == told["approved"] == 31
    assert told["rows"]["rows_mapped"] + told["rows"]["rows_refused"] == 100
    assert told["rows"]["refused_by"] == {"OUT_OF_RANGE": 2, "MISSING_VALUE": 1}


def test_unknown_codes_are_counted_by_column_and_shown_beside_the_answer_alone(data, capsys):
    file = data / "aurora" / "data.csv"
    lines = file.read_text("utf-8").splitlines()
    place = lines[0].split(",").index("diagnosis")
    for row, code in ((1, "suspicious"), (2, "suspicious"), (3, "?")):
        cells = lines[row].split(",")
        cells[place] = code
        lines[row] = ",".join(cells)
    file.write_text("\n".join(lines))
    words = (data / "aurora" / "mapping.yaml", "--ontology", data / "ontology.ttl", "--job", data / "job.toml")
    assert mapping_command("check", *words) == 0
    told = capsys.readouterr()
    (unknown,) = json.loads(told.out)["unknown_codes"]
    assert (unknown["column"], unknown["rows"]) == ("diagnosis", 3)
    assert unknown["concept"].endswith("/diagnosis")
    assert "'suspicious' in 2, '?' in 1" in told.err
    assert "suspicious" not in told.out


def test_a_mapping_that_lacks_a_required_concept_is_refused_by_name(data, capsys):
    code = mapping_command(
        "check", data / "fjord" / "mapping.yaml", "--ontology", data / "ontology.ttl", "--job", data / "job.toml"
    )
    fields = json.loads(capsys.readouterr().err)
    assert code == 4
    assert fields["reason"] == "MISSING_CONCEPT"
    assert fields["where"].endswith("worst-concave-points")


def test_a_unit_that_cannot_convert_is_told_with_its_column(data, capsys):
    edit(data / "aurora" / "mapping.yaml", "unit: mm2", "unit: mg/dL")
    code = mapping_command("check", data / "aurora" / "mapping.yaml", "--ontology", data / "ontology.ttl")
    fields = json.loads(capsys.readouterr().err)
    assert code == UnitError.exit_code
    assert fields["code"] == "unit"
    assert "area_mean" in fields["where"]
    assert {"message", "expected", "got", "hint"} <= set(fields)


def test_a_mapping_for_another_ontology_version_is_refused(data, capsys):
    with (data / "ontology.ttl").open("a", encoding="utf-8") as file:
        file.write("\n<https://example.org/hospitals/new> a <http://www.w3.org/2004/02/skos/core#Concept> ;\n")
        file.write('  <http://www.w3.org/2004/02/skos/core#prefLabel> "new"@en .\n')
    code = mapping_command("check", data / "aurora" / "mapping.yaml", "--ontology", data / "ontology.ttl")
    fields = json.loads(capsys.readouterr().err)
    assert (code, fields["reason"]) == (MappingError.exit_code, "ONTOLOGY_MISMATCH")


def test_a_source_whose_columns_changed_needs_a_new_approval(data, capsys):
    source, mapping = data / "aurora" / "data.csv", data / "aurora" / "mapping.yaml"
    lines = source.read_text("utf-8").splitlines()
    source.write_text("\n".join([lines[0] + ",note", *(line + ",x" for line in lines[1:])]) + "\n", encoding="utf-8")
    ontology = ("--ontology", data / "ontology.ttl")
    assert mapping_command("check", mapping, *ontology) == MappingError.exit_code
    assert json.loads(capsys.readouterr().err)["reason"] == "SCHEMA_CHANGED"

    assert mapping_command("approve", mapping, *ontology, "--approver", "Dr. Ada Berg") == 0
    capsys.readouterr()
    assert mapping_command("check", mapping, *ontology) == 0
    approved = parse_mapping(mapping.read_text("utf-8"), source="test")
    assert {column.approver for column in approved.columns} == {"Dr. Ada Berg"}


def test_a_mapping_with_an_absent_column_is_not_approved(data, capsys):
    mapping = data / "aurora" / "mapping.yaml"
    edit(mapping, "radius_mean", "radius_meen")
    code = mapping_command("approve", mapping, "--ontology", data / "ontology.ttl", "--approver", "Dr. Ada Berg")
    assert code == MappingError.exit_code
    assert json.loads(capsys.readouterr().err)["code"] == "mapping"


def test_a_proposal_is_right_for_english_columns_and_approves_nothing(data, tmp_path, capsys):
    file = data / "aurora" / "proposed.yaml"
    words = (data / "aurora" / "data.csv", "--ontology", data / "ontology.ttl", "--file", file)
    assert mapping_command("suggest", *words) == 0
    proposed = parse_mapping(file.read_text("utf-8"), source="test")
    truth = parse_mapping((data / "aurora" / "mapping.yaml").read_text("utf-8"), source="test")
    wanted = {column.column: truth.iri(column.concept) for column in truth.columns}
    right = [column for column in proposed.columns if wanted[column.column] == proposed.iri(column.concept)]
    assert len(right) >= 0.9 * len(wanted)
    assert {column.status for column in proposed.columns} == {"proposed"}
    assert proposed.source.path == "data.csv"
    capsys.readouterr()
    assert mapping_command("suggest", *words) == ConflictError.exit_code


@pytest.mark.parametrize(
    ("source", "kind"), [("nothing.csv", DataError), ("data.xlsx", InputError)], ids=["missing", "unknown-kind"]
)
def test_a_source_that_cannot_be_read_is_a_typed_error(data, source, kind, capsys):
    words = (data / "aurora" / source, "--ontology", data / "ontology.ttl", "--file", data / "aurora" / "new.yaml")
    assert mapping_command("suggest", *words) == kind.exit_code
    assert json.loads(capsys.readouterr().err)["code"] == kind.code
    assert not (data / "aurora" / "new.yaml").exists()


def test_a_subject_with_two_rows_is_told_with_both_where_the_mapping_says_that_each_has_one(data, capsys):
    source, mapping = data / "aurora" / "data.csv", data / "aurora" / "mapping.yaml"
    names, *lines = source.read_text("utf-8").splitlines()
    ids = ["", *(f"p{number}" for number in range(len(lines) - 2)), " p3 "]
    rows = [f"{one},{line}" for one, line in zip(ids, lines, strict=True)]
    source.write_text("\n".join([f"patient,{names}", *rows]) + "\n", encoding="utf-8")
    before = mapping.read_bytes()
    words = (mapping, "--ontology", data / "ontology.ttl")
    for verb, more in (("check", ()), ("approve", ("--approver", "Dr. Ada Berg"))):
        for subject, reason, place in (
            ("{column: patient, unique: true}", "SUBJECT_TWICE", "data.csv, column 'patient', row 100"),
            ("{column: patent}", "MISSING_COLUMN", f"{mapping}: column 'patent'"),
        ):
            mapping.write_bytes(before + f"subject: {subject}\n".encode())
            written = mapping.read_bytes()
            assert mapping_command(verb, *words, *more) in {DataError.exit_code, MappingError.exit_code}
            told = json.loads(capsys.readouterr().err)
            assert (told["reason"], told["where"]) == (reason, place)
            assert told["got"] == ("the subject of row 5 again" if reason == "SUBJECT_TWICE" else "patent")
            assert mapping.read_bytes() == written
    mapping.write_bytes(before + b"subject: {column: patient}\n")
    assert mapping_command("approve", *words, "--approver", "Dr. Ada Berg") == 0


def test_dates_are_proposed_in_the_one_way_they_are_written_and_columns_of_no_cells_are_left_out(tmp_path, capsys):
    ontology, source, file = tmp_path / "o.ttl", tmp_path / "d.parquet", tmp_path / "proposed.yaml"
    concept = "<urn:{0}> a skos:Concept ; skos:prefLabel '{0}' ; lepton:datatype xsd:date .\n"
    prefixes = (
        "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n@prefix lepton: <https://w3id.org/lepton/kg#> .\n"
        "@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .\n"
    )
    ontology.write_text(prefixes + "".join(map(concept.format, ("born", "seen", "sent", "paid"))), "utf-8")
    frame = pl.DataFrame(
        {
            "born": ["17.03.1950", None, "01.02.1960"],
            "seen": [dt.date(2020, 5, 1)] * 3,
            "sent": ["01/02/2020", "03/04/2020", ""],
            "paid": ["01.02.2020", "2020-01-01", "x"],
            "scan": [b"x", b"y", None],
            "codes": [[1], [2], []],
        }
    )
    frame.write_parquet(source)
    assert mapping_command("suggest", source, "--ontology", ontology, "--file", file) == 0
    told = json.loads(capsys.readouterr().out)
    assert "no numbers, dates or text, so left out: scan, codes" in told["source"]
    why = {one["column"]: one["candidates"][0]["reasons"] for one in told["suggestions"]}
    assert "every cell is a date written DD.MM.YYYY" in why["born"]
    assert "every cell is a date written DD/MM/YYYY or MM/DD/YYYY" in why["sent"]
    assert "the concept is a date, the column is not written in one way as dates" in why["paid"]
    proposed = parse_mapping(file.read_text("utf-8"), source="test")
    assert {one.column: one.date_format for one in proposed.columns} == {
        "born": "DD.MM.YYYY",
        "seen": None,
        "sent": None,
        "paid": None,
    }
    edit(file, "column: paid", "column: codes")
    before = file.read_bytes()
    for words in (("check", file), ("approve", file, "--approver", "Dr. Ada Berg")):
        assert mapping_command(*words, "--ontology", ontology) == DataError.exit_code
        assert json.loads(capsys.readouterr().err)["where"] == "d.parquet, column 'codes'"
    assert file.read_bytes() == before
