from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from typer.exceptions import TyperException

from lepton_admin.cli import main as command_line
from lepton_admin.cli.main import EXIT_CODES, NOUNS, run
from lepton_admin.link import CoordinatorLink
from lepton_core import errors
from tests.unit.admin.command_tree import example_of, require_parses, walk

COMMANDS = dict(walk())


def test_every_noun_of_the_issue_has_its_verbs():
    wanted = {
        "coordinator init", "coordinator serve", "coordinator migrate", "coordinator health",
        "owner invite", "owner list", "owner revoke",
        "researcher invite", "researcher enrol",
        "client enrol", "client accept", "client run", "client status", "client policy",
        "client pause", "client resume", "client preview",
        "ontology publish", "ontology check", "ontology show", "ontology list", "ontology get", "ontology diff",
        "ontology approve", "ontology deprecate", "ontology resolve", "ontology closure",
        "mapping suggest", "mapping review", "mapping check", "mapping approve", "mapping renew",
        "mapping quality", "mapping export", "mapping import", "mapping schema",
        "job plan", "job try", "job submit", "job list", "job show", "job watch", "job abort", "job card",
        "round show",
        "privacy show", "privacy plan", "privacy verify", "privacy export",
        "privacy restore", "privacy open",
        "federation create", "federation add", "federation sign", "federation list", "federation publish",
        "model list", "model export", "model predict", "model evaluate",
        "kg serve", "demo",
    }  # fmt: skip
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example_that_parses(name):
    command = COMMANDS[name]
    assert command.help
    words = example_of(command)
    assert words[: len(name.split()) + 1] == ["lepton", *name.split()]
    require_parses(words)


@pytest.mark.parametrize("words", ["lepton job frobnicate", "lepton job submit", "lepton job list --profil x"])
def test_the_check_of_examples_refuses_a_wrong_command_line(words, monkeypatch):
    monkeypatch.delenv("LEPTON_PROFILE", raising=False)
    with pytest.raises(TyperException):
        require_parses(words.split())


def test_every_command_that_answers_can_answer_in_json():
    # `client run` and `kg serve` run until they are ended; they answer nothing.
    silent = [
        name for name, command in COMMANDS.items() if "--output" not in {o for p in command.params for o in p.opts}
    ]
    assert sorted(silent) == ["client run", "kg serve"]


def test_no_command_takes_a_secret_on_its_command_line():
    options = {option for command in COMMANDS.values() for param in command.params for option in param.opts}
    assert not [option for option in options if re.search(r"token|password|secret|passphrase", option)]


def test_the_help_of_lepton_names_every_noun_and_every_exit_code(capsys):
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    assert [noun for noun in NOUNS if f"  {noun} " not in told] == []
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type))
    codes = {0, 2, 130} | {kind.exit_code for kind in kinds if issubclass(kind, errors.LeptonError)}
    assert {int(code) for code in re.findall(r"^  (\d+)  ", EXIT_CODES, re.MULTILINE)} == codes
    assert [code for code in codes if not re.search(rf"^\s+{code}\s+\S", told, re.MULTILINE)] == []


def test_naming_the_nouns_loads_no_noun(capsys):
    probe = (
        "import sys\nfrom lepton_admin.cli.main import run\nrun(['--help'])\nrun(['--version'])\n"
        "print(sorted(m for m in sys.modules if m.startswith('lepton_admin.cli.')), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "['lepton_admin.cli.complaint', 'lepton_admin.cli.main']"


def test_a_noun_loads_its_own_module_only():
    probe = (
        "import sys\nfrom lepton_admin.cli.main import NOUNS, run\nrun(['round', '--help'])\n"
        "print(sorted(n for n in NOUNS if 'lepton_admin.cli.' + n in sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "['round']"


def test_a_misspelt_noun_is_answered_with_the_nearest(capsys):
    assert run(["jobs", "list"]) == 2
    assert "Did you mean 'job'" in capsys.readouterr().err


def test_a_typed_error_is_told_in_a_box_with_what_where_expected_got_and_try(tmp_path, capsys):
    assert run(["job", "list", "--profile", str(tmp_path / "nowhere")]) == errors.InputError.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    for word in ("what:", "where:", "expected:", "got:", "try:"):
        assert f"│ {word}" in told.err
    assert str(tmp_path / "nowhere") in told.err


@pytest.mark.parametrize("spelling", [["--output", "json"], ["--output=json"]])
def test_a_typed_error_is_one_json_object_where_json_is_asked_for(tmp_path, capsys, spelling):
    code = run(["job", "list", "--profile", str(tmp_path / "nowhere"), *spelling])
    told = capsys.readouterr()
    assert code == errors.InputError.exit_code
    assert told.out == ""
    (line,) = told.err.splitlines()
    fields = json.loads(line)
    assert fields["code"] == "input"
    assert {"message", "where", "expected", "got", "hint"} <= set(fields)


def test_a_wrong_command_line_is_json_as_well(capsys):
    assert run(["job", "list", "--nonsense", "--output", "json"]) == 2
    fields = json.loads(capsys.readouterr().err)
    assert fields["code"] == "usage"
    assert "--nonsense" in fields["message"]


def fail_with_a_record(*_arguments):
    raise ValueError("patient 17 has 3.5")


def test_an_unexpected_error_is_one_line_with_an_id_and_without_its_values(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LEPTON_DEBUG", raising=False)
    monkeypatch.setattr(command_line, "build", fail_with_a_record)
    assert run(["job", "list", "--output", "json"]) == 1
    told = capsys.readouterr().err
    fields = json.loads(told)
    assert re.fullmatch(r"[0-9a-f]{8}", fields["reason"])
    assert fields["reason"] in fields["message"]
    assert "patient" not in told


def test_the_traceback_of_an_unexpected_error_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("LEPTON_DEBUG", "1")
    monkeypatch.setattr(command_line, "build", fail_with_a_record)
    assert run(["job", "list"]) == 1
    assert "fail_with_a_record" in capsys.readouterr().err


@pytest.mark.parametrize("place", [(command_line, "build"), (CoordinatorLink, "of_profile")])
def test_ctrl_c_ends_with_130_and_says_so(place, capsys, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(*place, interrupted)
    assert run(["job", "list", "--profile", "researcher"]) == 130
    assert capsys.readouterr().err.strip() == "ended by Ctrl-C"
