"""The options that many commands share, and how a noun's app is made."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

C = TypeVar("C", bound=Callable[..., Any])


class OutputFormat(StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    OutputFormat, typer.Option("--output", help="A table for people, or JSON for programs.", show_default=True)
]
Profile = Annotated[
    Path,
    typer.Option(
        "--profile",
        envvar="LEPTON_PROFILE",
        help="Folder with your certificate and the coordinator's address: the one you enrolled into; "
        "the operator's is COORDINATOR_HOME/operator.",
    ),
]

CanonicalJob = Annotated[
    Path | None, typer.Option("--job-file", help="The canonical job, if another profile handed it in.")
]


def noun_app(about: str) -> typer.Typer:
    """An app for one noun; stays a group even with a single verb."""
    app = typer.Typer(
        help=about,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def noun() -> None:
        pass

    app.callback(help=about)(noun)
    return app


def verb(app: typer.Typer, name: str, *, example: str) -> Callable[[C], C]:
    """Register a function as a verb of the noun; `example` is a command line that works, shown by `--help`."""
    return app.command(name, epilog=f"Example:\n\n\b\n  {example}")
