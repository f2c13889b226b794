"""Ontologies and data plans: every `ontology_*` benchmark in one answer, as `--output json` for one machine.

Each part is a benchmark of its own (`python -m benchmarks ontology_store`), measures one group of figures, and can be
chosen here with `--parts`. What is there is taken in; a new part needs no entry.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

_PREFIX = "ontology_"


def parts() -> dict[str, ModuleType]:
    """The benchmarks gathered here, by the name behind the prefix, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return {
        name.removeprefix(_PREFIX): importlib.import_module(f"benchmarks.{name}")
        for name in names
        if name.startswith(_PREFIX)
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which parts, and each part's own options under its own name."""
    found = parts()
    parser.add_argument("--parts", nargs="+", choices=sorted(found), default=sorted(found), help="figures to measure")
    for name, part in found.items():
        part.add_arguments(parser.add_argument_group(name, (part.__doc__ or "").partition("\n")[0]))


def run(args: argparse.Namespace) -> dict[str, object]:
    """The figures of every part chosen; no two parts give one figure the same name."""
    figures: dict[str, object] = {}
    for name, part in parts().items():
        if name in args.parts:
            found = part.run(args)
            twice = sorted(figures.keys() & found.keys())
            if twice:
                raise AssertionError(f"two parts measure {', '.join(twice)}")
            figures.update(found)
    return figures
