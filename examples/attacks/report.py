"""How an attack is called and how it tells what it found, the same for all of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lepton_core.errors import LeptonError

T = TypeVar("T")
#: What an attack found: `rows`, one dictionary a line of the table, and whatever stands below it.
Findings = Mapping[str, object]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that every attack has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", choices=("table", "json"), default="table", help="how to tell the findings")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures and findings.json there")
    parser.add_argument("--seed", type=int, default=0, help="of what the attacker chooses; noise and masks have none")
    parser.add_argument("--quick", action="store_true", help="as small as still shows the point")
    return parser


def progress(steps: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """The steps, with a bar on the terminal's standard error while they are gone through."""
    return track(steps, description=what, total=total, console=Console(stderr=True), transient=True)


def main(parser: argparse.ArgumentParser, attack: Callable[[argparse.Namespace], Findings]) -> int:
    """Attack as the arguments say, and tell it; returns the exit code."""
    args = parser.parse_args()
    torch.set_num_threads(1)  # for matrices this small, threads only wait for each other
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    try:
        found = attack(args)
    except LeptonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.out is not None:
        (args.out / "findings.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.output == "json":
        print(json.dumps(found))
    else:
        _show(found)
    return 0


def _show(found: Findings) -> None:
    console = Console()
    rows = found["rows"]
    if isinstance(rows, Sequence) and rows:
        table = Table()
        for column in rows[0]:
            table.add_column(str(column).replace("_", " "))
        for row in rows:
            table.add_row(*(_plain(value) for value in row.values()))
        console.print(table)
    for key, value in found.items():
        if key != "rows":
            below = value.items() if isinstance(value, dict) else [("", value)]
            for name, one in below:
                console.print(f"{key.replace('_', ' ')} {name}".strip() + f": {_plain(one)}", highlight=False)


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        return " to ".join(_plain(one) for one in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
