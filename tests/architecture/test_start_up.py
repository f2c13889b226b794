"""The command line and the servers start without what they do not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import lepton_core

#: Packages that cost tenths of seconds to import.
HEAVY = {
    "cryptography",
    "dp_accounting",
    "grpc",
    "nacl",
    "numpy",
    "opacus",
    "polars",
    "pyoxigraph",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "structlog",
    "torch",
}
PROBE = """
import json, sys
sys.argv = ["lepton", *sys.argv[1:]]
from lepton_admin.cli.main import main
try:
    code = main()
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def run_command(*arguments: str) -> tuple[str, int | None, set[str]]:
    """What `lepton ARGUMENTS` prints, its exit code, and the top-level modules that it has loaded at its end."""
    run = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    printed, _, last = run.stdout.rstrip().rpartition("\n")
    told = json.loads(last)
    return printed, told["code"], set(told["modules"])


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["job", "--help"]], ids=" ".join)
def test_the_command_line_starts_without_heavy_imports(arguments: list[str]) -> None:
    printed, code, modules = run_command(*arguments)

    assert code in (0, None)
    assert printed
    assert sorted(modules & HEAVY) == []


def test_version_prints_the_distributions_version() -> None:
    printed, _, _ = run_command("--version")

    assert lepton_core.__version__ in printed


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("lepton_server.app", ["aiohttp", "alembic", "opacus", "polars", "scipy", "torch"]),
        ("lepton_client.daemon", ["aiohttp", "opacus", "polars", "pyoxigraph", "scipy", "sqlalchemy", "torch"]),
        ("lepton_admin.link", ["numpy", "scipy", "sqlalchemy", "structlog", "torch"]),
        ("lepton_client.status", ["dp_accounting", "grpc", "numpy", "polars", "scipy", "structlog", "torch"]),
        ("lepton_client.spending", ["dp_accounting", "grpc", "numpy", "polars", "scipy", "structlog", "torch"]),
    ],
)
def test_servers_and_commands_start_without_what_only_some_of_their_work_needs(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
