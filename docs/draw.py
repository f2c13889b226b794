"""Write what the pages show of the code: `python docs/draw.py`; `make docs` does it, and a test tells what is stale.

A page marks a place with `<!-- drawn: KIND PATH -->` and `<!-- end -->`. The kinds are `states`, a diagram of the
machine in a file, drawn from the phase table in the file's docstring; `phases`, that table; and `code`, the file whole.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PLACE = re.compile(r"(<!-- drawn: (\w+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: A label of Mermaid ends at a semicolon or a second colon.
_LABEL = str.maketrans(";:", ",,")
_START = "-"
_ANY = "any "


@dataclass(frozen=True)
class PhaseTable:
    """The table in a machine's docstring: titles, and rows of as many cells."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def phases(self) -> tuple[str, ...]:
        """Every phase of the machine, in the order of the table."""
        named = [row[0] for row in self.rows if row[0] != _START and not row[0].startswith(_ANY)]
        return tuple(dict.fromkeys((*named, *(row[-1] for row in self.rows))))


def read_phase_table(source: str) -> PhaseTable:
    """The table whose first title is `phase`, from the module's docstring.

    Columns begin where their titles do; titles are two spaces or more apart.

    Raises:
        ValueError: the docstring has no such table, or a cell begins left of its column.
    """
    lines = iter((ast.get_docstring(ast.parse(source), clean=False) or "").splitlines())
    header = next((line for line in lines if re.match(r" +phase  ", line)), None)
    if header is None:
        raise ValueError("no phase table in the docstring")
    starts = [found.start() for found in re.finditer(r"(?<=  )\S", header)]
    rows = []
    for line in lines:
        if not line.strip():
            break
        if any(line[start - 1 : start].strip() for start in starts[1:]):
            raise ValueError(f"a cell is not in its column: {line.strip()}")
        bounds = zip(starts, [*starts[1:], None], strict=True)
        rows.append(tuple(line[start:stop].strip() for start, stop in bounds))
    titles = tuple(re.split(r" {2,}", header.strip()))
    return PhaseTable(titles, tuple(rows))


def draw_states(table: PhaseTable) -> str:
    """The table as a Mermaid state diagram: what a phase awaits and what is then done stands on the arrow out of it."""
    ends = [phase for phase in table.phases if phase not in {row[0] for row in table.rows}]
    lines = ["```mermaid", "stateDiagram-v2"]
    for phase, *label, becomes in table.rows:
        text = " / ".join(cell.translate(_LABEL) for cell in label if cell not in {"", "-"})
        if not phase.startswith(_ANY):
            lines.append(f"    {'[*]' if phase == _START else phase} --> {becomes}: {text}")
            continue
        lines += [f"    {other} --> {becomes}: {text}" for other in table.phases if other not in ends]
    lines += [f"    {phase} --> [*]" for phase in ends]
    if table.rows[0][0] != _START:
        lines.insert(2, f"    [*] --> {table.rows[0][0]}: start")
    return "\n".join([*lines, "```", ""])


def draw_table(table: PhaseTable) -> str:
    """The table as Markdown."""
    rows = [["" if cell == "-" else cell for cell in row] for row in table.rows]
    lines = ["| " + " | ".join(table.titles) + " |", "|---" * len(table.titles) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def draw(kind: str, path: str) -> str:
    """What stands between the marks.

    Raises:
        ValueError: an unknown kind, or a file without a table.
    """
    source = (ROOT / path).read_text(encoding="utf-8")
    match kind:
        case "states":
            return draw_states(read_phase_table(source))
        case "phases":
            return draw_table(read_phase_table(source))
        case "code":
            return f"```python\n{source}```\n"
        case _:
            raise ValueError(f"nothing of the kind {kind} can be drawn")


def redrawn(page: str) -> str:
    """The page's text with every marked place written anew."""
    return _PLACE.sub(lambda found: found[1] + draw(found[2], found[3]) + found[4], page)


def drawn_pages() -> dict[Path, str]:
    """Every page that has a marked place, and what its text should be."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))}
    return {path: redrawn(text) for path, text in pages.items() if _PLACE.search(text)}


def main() -> None:
    """Write the pages."""
    for path, text in drawn_pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
