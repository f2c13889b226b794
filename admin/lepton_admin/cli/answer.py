"""What a command answers on standard output: rich tables without colour when piped, or JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lepton_admin.cli.options import OutputFormat

#: Width of a table that nobody's terminal limits.
PIPED_WIDTH = 160


def plain(value: Any) -> Any:
    """The value as JSON can hold it: dataclasses as objects, bytes as hex, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def write_json(value: Any, *, indent: int | None = 2) -> None:
    """The value as JSON on standard output, with a line end."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


def write_line(text: str) -> None:
    """One line for people on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def console() -> Any:
    """A rich console on standard output: colours only on a terminal, wide where nobody's terminal limits it."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, soft_wrap=False, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Any:
    """A rich table; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=title or None, min_width=len(title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"
    )
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made


def answer_rows(
    output: OutputFormat,
    value: Any,
    *,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
) -> None:
    """The value as JSON, or its rows as a table."""
    if output is OutputFormat.JSON:
        write_json(value)
    else:
        console().print(table(title, columns, rows, right=right))


def answer_record(output: OutputFormat, value: Any, *, title: str, fields: Mapping[str, object]) -> None:
    """The value as JSON, or its fields one under another."""
    if output is OutputFormat.JSON:
        write_json(value)
    else:
        made = table(title, ("field", "value"), fields.items())
        made.show_header = False
        console().print(made)


def shown(value: object) -> str:
    """A cell's text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    return str(value)


def moment(seconds: float) -> str:
    """Seconds since the epoch as local date and time; a dash for what has not happened."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds > 0 else "-"


def bound(epsilon: float | None) -> str:
    """An upper bound, or that there is none."""
    return "no bound" if epsilon is None else f"{epsilon:.3f}"


def score(value: float) -> str:
    """An accuracy or AUC; a dash where nothing was measured."""
    return f"{value:.3f}" if value >= 0 else "-"
