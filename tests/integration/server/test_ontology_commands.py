"""`lepton ontology`: a version published, looked up, compared, vouched for and taken out of use by a person."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lepton_admin.cli.main import run
from lepton_core import errors
from lepton_core.ids import digest_of
from tests.integration.server.running import ONTOLOGY, running

T = "https://example.org/t#"


async def test_the_life_of_a_version_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.ttl", tmp_path / "second.ttl"
    first.write_bytes(ONTOLOGY)
    second.write_bytes(ONTOLOGY.replace(b'kg:unit "mm"', b'kg:unit "cm"') + b":mass kg:unit 'g' .")
    async with running(tmp_path / "home"):

        async def lepton(*words: str, fails: int = 0) -> Any:
            capsys.readouterr()
            profile = ["--profile", str(tmp_path / "home" / "operator"), "--output", "json"]
            code = await asyncio.to_thread(run, ["ontology", *words, *profile])
            told = capsys.readouterr()
            assert code == fails, told.err
            return json.loads(told.err if fails else told.out)

        old = (await lepton("publish", str(first), "--label", "t"))["digest"]
        new = (await lepton("publish", str(second), "--label", "t"))["digest"]
        found = await lepton("diff", old, "t")
        assert found["changed"] == [{"iri": T + "size", "fields": [["unit", "mm", "cm"]]}]
        assert (found["statements_added"], found["statements_removed"]) == (2, 1)

        concepts = await lepton("resolve", old, "SIZE", T + "age", "nothing")
        assert [(one["text"], one["iri"], one["unit"]) for one in concepts] == [
            ("SIZE", T + "size", "mm"),
            (T + "age", T + "age", "a"),
        ]
        assert await lepton("closure", old, T + "size", "--broader") == []
        assert (await lepton("closure", old, T + "sise", fails=3))["hint"] == f"did you mean {T}size?"

        await lepton("approve", new, "--note", "read against the codebook")
        gone = await lepton("deprecate", new, "--reason", "wrong unit", "--replaced-by", old)
        assert (gone["replaced_by"], gone["approvers"]) == (old, ["operator"])
        await lepton("get", "t", str(tmp_path / "kept.nq"))  # the label leads to the version in use
        assert digest_of((tmp_path / "kept.nq").read_bytes()) == old
        await lepton("deprecate", old, "--reason", "old")
        refused = await lepton("show", "t", fails=errors.ConflictError.exit_code)
        assert (refused["reason"], refused["got"]) == ("DEPRECATED", "wrong unit")
        assert len((await lepton("show", old))["concepts"]) == 5
        listed = await lepton("list")
        assert [(version["digest"], version["deprecation_reason"]) for version in listed] == [
            (old, "old"),
            (new, "wrong unit"),
        ]


def test_a_document_is_checked_without_a_coordinator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.ttl", tmp_path / "bad.ttl"
    good.write_bytes(ONTOLOGY)
    bad.write_bytes(ONTOLOGY.replace(b'"mm"', b'"parsec"').replace(b'"bad" .', b'"good" .'))
    assert run(["ontology", "check", str(good), "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    assert run(["ontology", "check", str(bad), "--output", "json"]) == errors.OntologyError.exit_code
    told = capsys.readouterr()
    problems = json.loads(told.out)["problems"]
    assert any("parsec" in problem for problem in problems)
    assert any("two values with one skos:notation" in problem for problem in problems)
    assert json.loads(told.err)["got"] == problems[0]


def test_a_file_too_large_to_be_published_is_not_even_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "huge.ttl").open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    assert run(["ontology", "check", str(tmp_path / "huge.ttl"), "--output", "json"]) == errors.OntologyError.exit_code
    assert json.loads(capsys.readouterr().err)["reason"] == "TOO_LARGE"
