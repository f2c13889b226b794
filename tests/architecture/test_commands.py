"""Every `lepton` command that a page or the compose file shows exists, with the options shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lepton_admin.cli.main import build
from tests.architecture.sources import ROOT, pages

FENCE = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`(lepton [^`]+)`")
#: Where one command of a shell line ends and the next begins.
SHELL_BREAKS = {"&&", "||", "|", ";", "{", "}", "&", ">", "2>"}


def commands_in_line(line: str) -> Iterator[list[str]]:
    """The words of each `lepton` command of a shell line, without `lepton` itself."""
    words = shlex.split(line, comments=True)
    starts = [index for index, word in enumerate(words) if word.rpartition("/")[2] == "lepton"]
    for start in starts:
        command = []
        for word in words[start + 1 :]:
            if word in SHELL_BREAKS:
                break
            command.append(word.rstrip(";"))
        yield command


def whole_lines(block: str) -> Iterator[str]:
    """The lines of a shell block; one that ends within quotation marks or by a backslash goes on in the next."""
    begun = ""
    for line in block.replace("\\\n", " ").splitlines():
        begun += line
        try:
            shlex.split(begun, comments=True)
        except ValueError:
            begun += "\n"
        else:
            yield begun
            begun = ""
    if begun:
        yield begun


def shown_commands() -> list[tuple[str, tuple[str, ...]]]:
    """Where, and the words of every command shown in pages and run by the compose file."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        lines = [line for block in FENCE.findall(text) for line in whole_lines(block)]
        lines += CODE_SPAN.findall(FENCE.sub("", text))
        found += [
            (page.relative_to(ROOT).as_posix(), tuple(words)) for line in lines for words in commands_in_line(line)
        ]
    for name, service in compose_services().items():
        command = service.get("command", [])
        if service.get("image", "").startswith("lepton"):
            shell = service.get("entrypoint") == ["/bin/sh", "-euc"]
            lines = command[0].replace("$$", "$").splitlines() if shell else []
            wanted = [words for line in lines for words in commands_in_line(line)] if shell else [command]
            found += [(f"docker-compose.yml: {name}", tuple(words)) for words in wanted]
            check = service.get("healthcheck", {}).get("test", [])
            found += [(f"docker-compose.yml: {name}", tuple(check[2:]))] if check[1:2] == ["lepton"] else []
    return sorted(set(found))


def compose_services() -> dict[str, Any]:
    """The services of the compose file, its anchors resolved."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    return services


#: The whole command line, whose nouns are loaded once.
LEPTON = build()


def unknown_part(words: tuple[str, ...]) -> str | None:
    """The first word that the command line does not know; None if it knows all."""
    command: Any = LEPTON
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        word = rest.pop(0)
        if word not in command.commands:
            return word
        command = command.commands[word]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "-h"}
    asked = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return next((word for word in asked if word not in options), None)


@pytest.mark.parametrize(
    ("where", "words"), shown_commands(), ids=lambda value: value if "." in value else " ".join(value)
)
def test_every_command_shown_exists_with_its_options(where: str, words: tuple[str, ...]) -> None:
    assert unknown_part(words) is None, f"{where} shows `lepton {' '.join(words)}`"


def test_commands_are_found_in_pages_and_in_the_compose_file() -> None:
    places = {where.partition(":")[0] for where, _ in shown_commands()}
    assert {"README.md", "docker-compose.yml"} <= places


@pytest.mark.parametrize("words", [("jib", "list"), ("--no-such-option",)])
def test_an_unknown_command_is_noticed(words: tuple[str, ...]) -> None:
    assert unknown_part(words) == words[0]
