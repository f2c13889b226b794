"""Entry of `lepton`: finds the noun, loads only its module, and turns every error into words and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import uuid
from collections.abc import Iterator, MutableMapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from lepton_admin.cli.complaint import complain, wants_json
from lepton_core import __version__
from lepton_core.errors import LeptonError

#: Every noun with its line in `lepton --help`. Its module is `lepton_admin.cli.<noun>`.
NOUNS = {
    "demo": "A real federation of five hospitals on this machine.",
    "coordinator": "Set up and run the coordinator.",
    "owner": "Invite, list and revoke data owners.",
    "researcher": "Invite a researcher, and enrol as one.",
    "client": "The daemon beside an owner's data.",
    "privacy": "What an owner's budgets were spent on, and whether the ledger holds.",
    "federation": "Keep and sign the list of members.",
    "ontology": "Publish and read shared concepts.",
    "mapping": "Map an owner's columns to concepts.",
    "job": "Plan, submit, watch and abort jobs.",
    "round": "Why a round waits, ended or was aborted.",
    "model": "List, export and apply models.",
    "kg": "The stand-alone knowledge service.",
}
EXIT_CODES = """Exit codes:

\b
  0    done
  1    unexpected error
  2    wrong command line
  3    wrong input; nothing was done
  4    refused by a policy, a budget or a mapping
  5    not found, or in conflict with what exists
  6    identity does not hold
  7    a peer broke the protocol
  8    the environment failed; again may help
  9    the round or the job was aborted
  130  ended by Ctrl-C"""


#: Exit code after Ctrl-C, as shells have it: 128 and the signal's number.
CTRL_C = 130

Version = Annotated[bool, typer.Option("--version", help="Print the version.")]


class _LazyNouns(MutableMapping[str, Any]):
    """Noun to command; looking one up imports its module, naming them does not."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, noun: str) -> Any:
        if noun not in NOUNS:
            raise KeyError(noun)
        if noun not in self._loaded:
            module = importlib.import_module(f"lepton_admin.cli.{noun}")
            self._loaded[noun] = typer.main.get_command(module.app)
            self._loaded[noun].name = noun
        return self._loaded[noun]

    def __setitem__(self, noun: str, command: Any) -> None:
        self._loaded[noun] = command

    def __delitem__(self, noun: str) -> None:
        del self._loaded[noun]

    def __iter__(self) -> Iterator[str]:
        return iter(NOUNS)

    def __len__(self) -> int:
        return len(NOUNS)


class _NounGroup(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _LazyNouns()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is typer's
        return list(NOUNS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the signature is typer's
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))


def build() -> TyperGroup:
    """The whole command, its nouns not loaded yet."""
    app = typer.Typer(
        cls=_NounGroup,
        no_args_is_help=True,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def lepton(*, version: Version = False) -> None:
        """Federated learning across data owners who cannot share their data."""
        if version:
            typer.echo(f"lepton {__version__}")
            raise typer.Exit

    app.callback(epilog=EXIT_CODES)(lepton)
    command = typer.main.get_command(app)
    if not isinstance(command, TyperGroup):
        raise TypeError("the command line is a group of nouns")
    return command


def run(arguments: list[str]) -> int:
    """Run one command line; gives the exit code. Errors are told on standard error."""
    as_json = wants_json(arguments)
    try:
        result = build().main(arguments, prog_name="lepton", standalone_mode=False)
    except LeptonError as error:
        complain(error.as_dict(), as_json=as_json)
        return error.exit_code
    except TyperException as error:
        return _complain_usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        result = CTRL_C
    except BrokenPipeError:
        # The reader of our output has gone, as in `lepton job list | head`. Nothing more can be told to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the process boundary: tell it with an id
        return _complain_unexpected(error, as_json=as_json)
    code = result if isinstance(result, int) else 0
    if code == CTRL_C:
        typer.echo("ended by Ctrl-C", err=True)
    return code


def _complain_usage(error: TyperException, *, as_json: bool) -> int:
    show = getattr(error, "show", None)
    if as_json or show is None:
        complain({"code": "usage", "message": error.format_message()}, as_json=as_json)
    else:
        show()
    return error.exit_code


def _complain_unexpected(error: Exception, *, as_json: bool) -> int:
    """One line with an id; the traceback, which may hold values, only where somebody asked for it."""
    fault = uuid.uuid4().hex[:8]
    if os.environ.get("LEPTON_DEBUG") == "1":
        traceback.print_exception(error)
    message = f"unexpected {type(error).__name__} (id {fault}); this is a fault of Lepton, please report it"
    hint = "run the same command with LEPTON_DEBUG=1 to see where it happened"
    complain({"code": "error", "reason": fault, "message": message, "hint": hint}, as_json=as_json)
    return 1


def main() -> None:
    """`lepton`, as the installed script calls it."""
    # gRPC's own lines would stand between those of Lepton, which tell the same; who wants them sets the variable.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
