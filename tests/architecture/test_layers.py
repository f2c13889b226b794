"""Imports point down, and core stays pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT, Source, package_sources

# On one worker, which parses the sources once.
pytestmark = pytest.mark.xdist_group("sources")
#: Third-party packages core may import, and the modules that may; an empty tuple allows all.
CORE_MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "numpy": (),
    "cryptography": (),
    "nacl": ("lepton_core.identity", "lepton_core.secagg.agreement"),
    "pydantic": (),
    "dp_accounting": ("lepton_core.privacy.accounting_library",),
    "scipy": ("lepton_core.privacy.accounting_library",),
}
#: Modules besides servicers and links that may see protobuf: the gate that reads a request before its servicer does.
PROTOBUF_GATES = {"lepton_server.api.guard"}
#: Calls by which a module would touch the world without importing anything.
EFFECT_CALLS = {"open", "input", "print", "breakpoint", "exec", "eval", "__import__"}


def test_the_import_contracts_hold() -> None:
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4_000:] + run.stderr[-2_000:]
    assert "0 broken" in run.stdout


def test_every_package_folder_holds_its_package() -> None:
    missing = [f"{folder}/{package}" for folder, package in PACKAGES.items() if not (ROOT / folder / package).is_dir()]
    assert missing == []


def test_every_package_says_what_it_is_for_in_a_docstring() -> None:
    silent = [
        source.shown
        for source in package_sources()
        if source.path.name == "__init__.py" and not ast.get_docstring(source.tree())
    ]
    assert silent == []


@pytest.mark.parametrize(
    "source", [s for s in package_sources() if s.module.startswith("lepton_core")], ids=lambda s: s.shown
)
def test_core_imports_only_what_it_may(source: Source) -> None:
    wrong = []
    for line, name in source.imports():
        top = name.partition(".")[0]
        if top == "lepton_core" or top in sys.stdlib_module_names:
            continue  # the standard library's effectful modules are an import contract in pyproject.toml
        allowed = CORE_MAY_IMPORT.get(top)
        if allowed is None or (allowed and source.module not in allowed):
            wrong.append(f"{source.shown}:{line} imports {name}")
    assert wrong == []


def test_core_imports_dp_accounting_and_scipy_only_inside_functions() -> None:
    eager = [
        f"{source.shown}:{node.lineno}"
        for source in package_sources()
        if source.module.startswith("lepton_core")
        for node in source.tree().body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and {"dp_accounting", "scipy"} & set(re.findall(r"\w+", ast.unparse(node)))
    ]
    assert eager == []


def test_core_calls_nothing_that_touches_the_world() -> None:
    found = [
        f"{source.shown}:{node.lineno} calls {node.func.id}"
        for source in package_sources()
        if source.module.startswith("lepton_core")
        for node in source.nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EFFECT_CALLS
    ]
    assert found == []


def test_nothing_imports_a_package_through_its_folder() -> None:
    doubled = [
        f"{source.shown}:{line} imports {name}"
        for source in package_sources()
        for line, name in source.imports()
        for folder, package in PACKAGES.items()
        if name.startswith(f"{folder}.{package}")
    ]
    assert doubled == []


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("lepton_protos.convert", True),
        ("lepton_server.api.admin_servicer", True),
        ("lepton_client.link", True),
        ("lepton_admin.cli.admin_link", True),
        ("lepton_server.rounds.machine", False),
        ("lepton_client.linked_list", False),
    ],
)
def test_the_rule_for_protobuf_places_tells_them_apart(module: str, allowed: bool) -> None:
    assert may_see_protobuf(module) is allowed


def test_protobuf_types_stay_in_convert_servicers_and_links() -> None:
    leaks = [
        f"{source.shown}:{line} imports {name}"
        for source in package_sources()
        if not may_see_protobuf(source.module)
        for line, name in source.imports()
        if name.startswith(("google.protobuf", "lepton_protos.v1"))
    ]
    assert leaks == []


def may_see_protobuf(module: str) -> bool:
    """Generated messages are for lepton_protos, servicers and links alone."""
    if module.startswith("lepton_protos") or module in PROTOBUF_GATES:
        return True
    words = module.rpartition(".")[2].split("_")
    return bool({"servicer", "servicers", "link", "links"} & set(words))
