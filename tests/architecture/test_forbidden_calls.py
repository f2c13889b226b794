"""Nothing received is ever turned into code, and no file outgrows one purpose."""

from __future__ import annotations

import ast
from collections.abc import Collection

import pytest

from tests.architecture.sources import ROOT, package_sources, written_files

# On one worker, which parses the sources once.
pytestmark = pytest.mark.xdist_group("sources")
#: Calls that run what they read, or hand it to a shell, by module.
FORBIDDEN_FUNCTIONS = {
    "os": ("system", "popen"),
    "subprocess": ("getoutput", "getstatusoutput"),
    "torch": ("load",),
    "torch.jit": ("load",),
    "yaml": ("full_load", "full_load_all", "load_all", "unsafe_load", "unsafe_load_all"),
}
FORBIDDEN_CALLS = {f"{module}.{name}" for module, names in FORBIDDEN_FUNCTIONS.items() for name in names}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
#: Modules that exist to turn bytes into objects.
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
SAFE_YAML_LOADERS = ("SafeLoader", "CSafeLoader")
#: Keywords that decide whether a call is one of these.
TELLING_KEYWORDS = {"Loader", "allow_pickle", "shell"}
MOST_LINES = 400
#: All that can change a protocol's state stands in one file (one function a phase), which may take more room.
MACHINES = {
    "client/lepton_client/participant.py": 420,
    "core/lepton_core/secagg/client.py": 500,
    "core/lepton_core/secagg/server.py": 620,
}


def forbidden_calls(nodes: Collection[ast.AST]) -> list[str]:
    """Line and name of every call among a file's nodes that a received document must never reach."""
    names = _import_aliases(nodes)
    safe_loaders = {*SAFE_YAML_LOADERS, *_subclasses_of_safe_loaders(nodes)}
    found = []
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        name = _full_name(node.func, names)
        keywords = {one.arg: ast.unparse(one.value) for one in node.keywords if one.arg in TELLING_KEYWORDS}
        if name in FORBIDDEN_CALLS | FORBIDDEN_BUILTINS:
            found.append(f"{node.lineno}: {name}")
        if name == "yaml.load":
            loader = keywords.get("Loader", ast.unparse(node.args[1]) if len(node.args) > 1 else "")
            if loader.rpartition(".")[2] not in safe_loaders:
                found.append(f"{node.lineno}: yaml.load without a safe loader")
        if keywords.get("shell", "False") != "False":
            found.append(f"{node.lineno}: shell={keywords['shell']}")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{node.lineno}: allow_pickle={keywords['allow_pickle']}")
        if name == "numpy.load" and keywords.get("allow_pickle") != "False":
            found.append(f"{node.lineno}: numpy.load that does not say allow_pickle=False")
    found += [
        f"{node.lineno}: import {ast.unparse(node)}"
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom)) and _modules_of(node) & FORBIDDEN_IMPORTS
    ]
    return found


def _modules_of(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]} if node.level == 0 else set()
    return {alias.name.partition(".")[0] for alias in node.names}


def _import_aliases(nodes: Collection[ast.AST]) -> dict[str, str]:
    """Local name to full dotted name, as `np` to `numpy` and `load` to `pickle.load`."""
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else (alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _subclasses_of_safe_loaders(nodes: Collection[ast.AST]) -> set[str]:
    return {
        node.name
        for node in nodes
        if isinstance(node, ast.ClassDef)
        and node.bases
        and all(ast.unparse(base).rpartition(".")[2] in SAFE_YAML_LOADERS for base in node.bases)
    }


def _full_name(function: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ""
    return ".".join([names.get(function.id, function.id), *reversed(parts)])


def test_no_package_file_turns_data_into_code() -> None:
    sources = package_sources()
    assert len(sources) > 200
    assert [f"{source.shown}:{call}" for source in sources for call in forbidden_calls(source.nodes())] == []


def test_no_file_is_over_400_lines_but_the_protocol_machines() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in written_files()}
    assert len(lines) > 200
    too_long = {name: count for name, count in lines.items() if count > MACHINES.get(name, MOST_LINES)}
    assert too_long == {}, "look for the second purpose of each"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads as read",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "import yaml as y\ny.load(text)",
        "import yaml as y\ny.load(text, Loader=y.Loader)",
        "import yaml as y\nclass Mine(y.Loader): pass\ny.load(text, Mine)",
        "import numpy as np\nnp.load('x', allow_pickle=chosen)",
        "import numpy as np\nnp.load('x')",
        "eval(text)",
        "exec(text)",
        "import subprocess\nsubprocess.run('ls', shell=chosen)",
        "import os\nos.system('ls')",
    ],
)
def test_the_scan_finds_each_way_of_running_data(text: str) -> None:
    assert forbidden_calls(list(ast.walk(ast.parse(text)))) != []


@pytest.mark.parametrize(
    "text",
    [
        "import yaml\nyaml.safe_load(text)",
        "import yaml as y\ny.load(text, Loader=y.CSafeLoader)",
        "import yaml as y\nclass Strict(y.SafeLoader): pass\ny.load(text, Strict)",
        "import re\nre.compile('x')",
        "model.eval()",
        "import json\njson.load(file)",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
    ],
)
def test_the_scan_lets_safe_calls_pass(text: str) -> None:
    assert forbidden_calls(list(ast.walk(ast.parse(text)))) == []
