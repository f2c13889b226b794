"""Files that no honest person writes: each a typed error with its file, whatever the parser would have done."""

from __future__ import annotations

import json
import tracemalloc

from lepton_admin.cli.main import run
from lepton_core.errors import InputError, LeptonError, SettingsError

DEEP = "[" * 20_000 + "]" * 20_000


def refused(capsys, *words: object) -> dict:
    code = run([*map(str, words), "--output", "json"])
    told = json.loads(capsys.readouterr().err)
    assert code not in {0, LeptonError.exit_code}, told
    return told


def test_files_nested_thousands_of_levels_deep_are_refused_by_name(data, tmp_path, capsys):
    mapping, ontology = data / "aurora" / "mapping.yaml", data / "ontology.ttl"
    toml, sidecar, model = tmp_path / "deep.toml", tmp_path / "deep.json", tmp_path / "deep.safetensors"
    toml.write_text(f"a = {DEEP}", "utf-8")
    sidecar.write_text(DEEP, "utf-8")
    model.write_bytes(b"x")
    for words in (
        ("mapping", "check", mapping, "--ontology", ontology, "--job", toml),
        ("job", "try", toml, "--ontology", ontology),
        ("model", "evaluate", "--model", model, "--mapping", mapping, "--ontology", ontology),
    ):
        told = refused(capsys, *words)
        assert (told["code"], told["where"]) in {(InputError.code, str(toml)), (InputError.code, str(sidecar))}
    home = tmp_path / "client"
    home.mkdir()
    (home / "client.toml").write_text(f"a = {DEEP}", "utf-8")
    told = refused(capsys, "client", "policy", home)
    assert (told["code"], told["where"]) == (SettingsError.code, str(home / "client.toml"))
    (home / "coordinator.toml").write_text(f"a = {DEEP}", "utf-8")
    assert refused(capsys, "coordinator", "serve", home)["code"] == InputError.code


def test_an_ontology_of_a_gigabyte_is_refused_before_it_is_read(data, tmp_path, capsys):
    ontology = tmp_path / "huge.ttl"
    with ontology.open("wb") as file:
        file.write(b"<urn:a> <urn:p> '''")
        file.truncate(2**30)
    mapping = data / "aurora" / "mapping.yaml"
    tracemalloc.start()
    try:
        for verb in ("check", "quality"):
            told = refused(capsys, "mapping", verb, mapping, "--ontology", ontology)
            assert (told["reason"], told["where"]) == ("TOO_LARGE", str(ontology))
        assert tracemalloc.get_traced_memory()[1] < 2**29
    finally:
        tracemalloc.stop()
