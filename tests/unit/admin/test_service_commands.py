"""The commands that set up and run the coordinator and the services beside it, as containers call them."""

from __future__ import annotations

import json
import tomllib

from lepton_admin.cli.main import run
from lepton_admin.demo.processes import free_port
from lepton_core import errors


def init(folder, *more):
    return run(["coordinator", "init", str(folder), "--output", "json", *map(str, more)])


def test_init_keeps_the_place_of_the_database_url_but_not_the_url(tmp_path, monkeypatch, capsys):
    (tmp_path / "database_url").write_text("postgresql+psycopg://lepton:hunter2@postgres/lepton\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert init("home", "--database-file", "database_url", "--knowledge", "knowledge:8444") == 0
    document = tomllib.loads((tmp_path / "home" / "coordinator.toml").read_text("utf-8"))
    assert document["database_file"] == str(tmp_path / "database_url")
    assert document["knowledge"] == "knowledge:8444"
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not list((tmp_path / "home").glob("*.db"))
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err


def test_init_refuses_two_databases_and_a_knowledge_service_without_a_port(tmp_path, capsys):
    (tmp_path / "url").write_text("postgresql+psycopg://lepton@postgres/lepton\n", "utf-8")
    both = ["--database", "sqlite:////tmp/x.db", "--database-file", tmp_path / "url"]
    for words in (both, ["--knowledge", "knowledge"], ["--knowledge", "knowledge:0"]):
        assert init(tmp_path / "home", *words) == errors.SettingsError.exit_code
        assert words[0].strip("-") in capsys.readouterr().err
        assert not (tmp_path / "home").exists()


def test_migrate_and_serve_take_the_database_url_from_the_file_given(tmp_path, capsys):
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://lepton:hunter2@127.0.0.1:1/lepton\n", "utf-8")
    assert init(tmp_path / "home") == 0
    for verb in ("migrate", "serve"):
        words = ["coordinator", verb, str(tmp_path / "home"), "--database-file", str(secret), "--output", "json"]
        assert run(words) == errors.FaultError.exit_code
        told = capsys.readouterr().err
        assert "127.0.0.1/lepton" in json.loads(told)["where"]
        assert "hunter2" not in told


def test_a_knowledge_service_that_does_not_run_is_not_healthy(tmp_path, capsys):
    assert init(tmp_path / "home") == 0
    assert run(["kg", "init", str(tmp_path / "home"), str(tmp_path / "knowledge")]) == 0
    capsys.readouterr()
    address = f"localhost:{free_port()}"
    code = run(["kg", "health", str(tmp_path / "knowledge"), "--address", address, "--output", "json"])
    assert code == errors.FaultError.exit_code == 8
    fields = json.loads(capsys.readouterr().err)
    assert (fields["where"], fields["message"]) == (address, "the service cannot be reached")


def test_the_health_of_a_folder_without_credentials_names_the_file_that_is_missing(tmp_path, capsys):
    assert run(["kg", "health", str(tmp_path), "--output", "json"]) == errors.InputError.exit_code
    fields = json.loads(capsys.readouterr().err)
    assert fields["where"] == str(tmp_path)
    assert "ca.pem" in fields["got"]
