"""`lepton coordinator`: set up and run the coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, moment, write_line
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb

app = noun_app("Set up and run the coordinator.")

Home = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
DatabaseFile = Annotated[
    Path | None,
    typer.Option("--database-file", help="File with the SQLAlchemy URL, for a URL with a password."),
]
KnowledgeAddress = Annotated[
    str, typer.Option("--knowledge", help="host:port of a knowledge service; ontologies are kept here by default.")
]


@verb(app, "init", example="lepton coordinator init coordinator --listen 0.0.0.0:8443 --host lepton.example.org")
def init(
    home: Home,
    *,
    listen: Annotated[str, typer.Option("--listen", help="host:port; port 0 takes a free one.")] = "127.0.0.1:8443",
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Name or address that clients use; repeat for more.")
    ] = None,
    bulk: Annotated[
        str,
        typer.Option(
            "--bulk",
            help="host:port for large transfers over connections of their own; `off` for none. "
            "The port before --listen's by default.",
        ),
    ] = "",
    database: Annotated[
        str | None, typer.Option("--database", help="SQLAlchemy URL; an SQLite file in HOME by default.")
    ] = None,
    database_file: DatabaseFile = None,
    knowledge: KnowledgeAddress = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a CA, a server certificate, an empty store, and the operator's profile."""
    from lepton_server.setup import init_home

    hosts = host or ["localhost", "127.0.0.1"]
    init_home(
        home,
        listen=listen,
        hosts=hosts,
        bulk=bulk,
        database=database,
        database_file=database_file,
        knowledge=knowledge,
    )
    answer_record(
        output,
        {"home": str(home), "operator": str(home / "operator")},
        title=f"coordinator in {home}",
        fields={
            "operator's profile": str(home / "operator"),
            "next": f"lepton coordinator serve {home}",
        },
    )


@verb(app, "serve", example="lepton coordinator serve coordinator")
def serve(
    home: Home,
    *,
    listen: Annotated[str, typer.Option("--listen", help="host:port; port 0 takes a free one.")] = "",
    database_file: DatabaseFile = None,
    knowledge: KnowledgeAddress = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Run the coordinator until SIGTERM or Ctrl-C; running jobs go on at the next start.

    What is given here stands above the settings in HOME.
    """
    import asyncio

    from lepton_server.app import serve as serve_coordinator
    from lepton_server.logs import configure_logs

    configure_logs()

    def ready(address: str) -> None:
        if output is OutputFormat.JSON:
            from lepton_admin.cli.answer import write_json

            write_json({"address": address}, indent=None)
        else:
            write_line(f"coordinator ready at {address}")

    asyncio.run(
        serve_coordinator(home, ready=ready, listen=listen, database_file=_absolute(database_file), knowledge=knowledge)
    )


@verb(app, "migrate", example="lepton coordinator migrate coordinator")
def migrate(home: Home, *, database_file: DatabaseFile = None, output: Output = OutputFormat.TABLE) -> None:
    """Bring the database to this version's schema."""
    from lepton_server.setup import migrate_home

    migrate_home(home, database_file=_absolute(database_file))
    answer_record(output, {"home": str(home), "migrated": True}, title="migrated", fields={"home": str(home)})


@verb(app, "health", example="lepton coordinator health --profile coordinator/operator")
def health(*, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """Ask the coordinator whether it does its work; exit code 8 if it does not."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        view = link.health(timeout_s=5.0)
    answer_record(
        output,
        view,
        title="coordinator",
        fields={
            "ready": view.ready,
            "version": f"{view.software_version}, protocol {view.protocol_version}",
            "database": view.database,
            "connected members": view.connected_members,
            "running jobs": view.running_jobs,
            "started": moment(view.started),
            "problems": view.problems or "none",
        },
    )
    if not view.ready:
        raise typer.Exit(8)


def _absolute(path: Path | None) -> str:
    """The path as the settings want it, which take a relative one from the coordinator's folder."""
    return str(path.resolve()) if path else ""
