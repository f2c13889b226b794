"""Every command of `lepton`, found by walking the tree."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from lepton_admin.cli.main import build


def walk() -> Iterator[tuple[str, Any]]:
    """Each command's words after `lepton`, and the command."""
    root = build()
    for noun in root.commands:
        command = root.commands[noun]
        verbs = getattr(command, "commands", None)
        if verbs is None:
            yield noun, command
        else:
            yield from ((f"{noun} {name}", verb) for name, verb in verbs.items())


def example_of(command: Any) -> list[str]:
    """The words of the example in a command's help."""
    (line,) = [line for line in (command.epilog or "").splitlines() if line.strip().startswith("lepton ")]
    return shlex.split(line.strip())


def require_parses(words: list[str]) -> None:
    """Nothing, if `lepton` would take these words as a command line; raises as it would."""
    context = build().make_context("lepton", words[1:])
    while context._protected_args:
        rest = [*context._protected_args, *context.args]
        name, command, arguments = context.command.resolve_command(context, rest)
        context = command.make_context(name, arguments, parent=context)
