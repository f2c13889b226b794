"""YAML without surprises: plain scalars are text or nothing; duplicate keys, aliases, tags and depth are refused."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from lepton_core.errors import MappingError

#: Deepest nesting that is parsed; a mapping needs four levels.
_MAX_DEPTH = 16


def parse_strict(text: str, *, source: str) -> dict[Any, Any]:
    """The document, a mapping of keys; `source` names it in errors.

    Raises:
        MappingError: anything else (with the line).
    """
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader with less, see below
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise MappingError(
            "a mapping that is not strict YAML",
            where=source + line,
            expected="plain YAML without duplicate keys, aliases or tags",
            got=str(error.problem)[:300],
            hint=_hint(str(error.problem)),
        ) from None
    except yaml.YAMLError as error:
        raise MappingError(
            "a mapping that is not YAML", where=source, expected="YAML of printable text", got=str(error)[:300]
        ) from None
    if not isinstance(document, dict):
        raise MappingError(
            "a mapping without keys",
            where=f"{source}, line 1",
            expected="format, ontology, source, columns",
            got="nothing" if document is None else f"a {type(document).__name__}",
        )
    return document


def _hint(problem: str) -> str:
    """What to do about it."""
    if problem.startswith("an alias"):
        return "write out what it stands for"
    if problem.startswith("a tag"):
        return "leave the tag out; every plain value is text already"
    if problem.startswith("the key"):
        return "keep one of them"
    if problem == "nesting too deep":
        return "a mapping has four levels: columns, a column, its codes, a code"
    return "correct the document there or above; texts with signs such as : # [ { ' want quotes"


def _refusal(what: str, place: Any) -> yaml.MarkedYAMLError:
    """What the loader raises at an event or a node."""
    return yaml.MarkedYAMLError(problem=what, problem_mark=place.start_mark)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader in which plain scalars are text or nothing, and that refuses duplicate keys, aliases and tags."""

    #: How deep the node now composed lies.
    depth = 0
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to say which plain scalars are not text
        start: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave the parser untyped
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("an alias", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"a tag {event.tag!r}", event)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _refusal("nesting too deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key that is not text", key)
            if key.value in seen:
                raise _refusal(f"the key {key.value!r} twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
