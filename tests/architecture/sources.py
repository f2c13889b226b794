"""The checkout's own Python files and pages, found once, for the architecture tests."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Folder and import package of each layer, lowest last.
PACKAGES = {
    folder: f"lepton_{folder}"
    for folder in ("admin", "server", "client", "pool", "kg", "compression", "protos", "core")
}
#: Folders of pages, besides the two readmes.
PAGE_FOLDERS = ("docs", "changelog.d", "examples", "deploy")


@dataclass(frozen=True)
class Source:
    """One Python file of a package."""

    path: Path
    #: Dotted name, such as `lepton_core.errors`.
    module: str

    @property
    def shown(self) -> str:
        """The path from the root of the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """The file's text."""
        return self.path.read_text(encoding="utf-8")

    def tree(self) -> ast.Module:
        """The file's syntax tree, parsed once; not to be changed."""
        return _parsed(self.path, self.shown)

    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of that tree, found once."""
        return _nodes(self.path, self.shown)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of everything imported anywhere in the file, also inside functions."""
        for node in self.nodes():
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, f"{self._base(node)}.{alias.name}") for alias in node.names)

    def _base(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        is_package = self.path.name == "__init__.py"
        parts = self.module.split(".")
        kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
        return ".".join([*kept, *([node.module] if node.module else [])])


@functools.cache
def _parsed(path: Path, shown: str) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=shown)


@functools.cache
def _nodes(path: Path, shown: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_parsed(path, shown)))


def is_generated(path: Path) -> bool:
    """True for what protoc writes."""
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def package_sources() -> list[Source]:
    """Every hand-written file of the eight packages."""
    found = []
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            if not is_generated(path):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                found.append(Source(path, module))
    return found


def written_files() -> list[Path]:
    """Every hand-written Python file of the checkout outside tests."""
    folders = [*PACKAGES, "benchmarks", "docs", "examples", "deploy"]
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in files if not is_generated(path)]


def pages() -> list[Path]:
    """Every Markdown page of the checkout."""
    readmes = sorted(ROOT.glob("*.md"))
    return readmes + [path for folder in PAGE_FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))]
