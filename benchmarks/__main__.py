"""Run one benchmark: `python -m benchmarks NAME [--output json] [...]`; without a name, list them.

A benchmark is a module of this package with `add_arguments(parser)` and `run(args) -> dict[str, object]`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console
from rich.table import Table

from lepton_core.errors import LeptonError


class Benchmark(Protocol):
    """What a module of this package offers."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the benchmark's own options."""
        ...

    def run(self, args: argparse.Namespace) -> dict[str, object]:
        """Measure; `rows`, if there, is a list of one dictionary a line."""
        ...


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that the arguments name; returns the exit code."""
    names = sorted(
        module.name
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if module.name != "__main__" and not module.ispkg
    )
    if not argv or argv[0] in {"-h", "--help"}:
        print("usage: python -m benchmarks NAME [--output json] [...]")
        for name in names:
            print(f"  {name:12} {_first_line(_load(name))}")
        return 0
    name = argv[0]
    if name not in names:
        print(f"no benchmark {name!r}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    benchmark = _load(name)
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=benchmark.__doc__)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    benchmark.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    try:
        result = benchmark.run(args)
    except LeptonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.output == "json":
        print(json.dumps(result))
    else:
        _show(name, result)
    return 0


def _load(name: str) -> Benchmark:
    return cast("Benchmark", importlib.import_module(f"benchmarks.{name}"))


def _first_line(benchmark: Benchmark) -> str:
    return (benchmark.__doc__ or "").partition("\n")[0]


def _show(name: str, result: Mapping[str, object]) -> None:
    console = Console()
    rows = result.get("rows")
    if isinstance(rows, list) and rows:
        table = Table(title=name)
        for column in rows[0]:
            table.add_column(str(column))
        for row in rows:
            table.add_row(*(_plain(value) for value in row.values()))
        console.print(table)
    for key, value in result.items():
        if key != "rows":
            console.print(f"{key}: {_plain(value)}", highlight=False)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
