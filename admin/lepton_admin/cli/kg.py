"""`lepton kg`: the stand-alone knowledge service."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, write_line
from lepton_admin.cli.options import Output, OutputFormat, noun_app, verb

app = noun_app("The stand-alone knowledge service.")


class InClear(StrEnum):
    """Where `/sparql` may be answered without TLS."""

    NOWHERE = "nowhere"
    LOOPBACK = "loopback"
    ANYWHERE = "anywhere"


@verb(app, "init", example="lepton kg init coordinator knowledge --host knowledge.example.org")
def init(
    home: Annotated[Path, typer.Argument(help="The coordinator's folder, whose CA certifies the service.")],
    folder: Annotated[Path, typer.Argument(help="The service's folder.")],
    *,
    host: Annotated[list[str] | None, typer.Option("--host", help="Name or address; repeat for more.")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a folder with a certificate for a knowledge service of its own."""
    from lepton_server.setup import issue_service

    issue_service(home, "knowledge", host or ["localhost", "127.0.0.1"], folder)
    answer_record(
        output,
        {"folder": str(folder)},
        title=f"knowledge service in {folder}",
        fields={"next": f"lepton kg serve {folder}"},
    )


@verb(app, "serve", example="lepton kg serve knowledge --listen 0.0.0.0:8444")
def serve(
    folder: Annotated[Path, typer.Argument(help="The service's folder.")],
    *,
    listen: Annotated[str, typer.Option("--listen", help="host:port; port 0 takes a free one.")] = "127.0.0.1:8444",
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of the versions; FOLDER/ontologies by default.")
    ] = None,
    sparql: Annotated[
        str, typer.Option("--sparql", help="host:port that answers SPARQL at /sparql; `off` for none.")
    ] = "127.0.0.1:8445",
    sparql_clear: Annotated[
        InClear,
        typer.Option(
            "--sparql-clear",
            help="Answer SPARQL without TLS, to whoever reaches the port: on loopback, or anywhere.",
        ),
    ] = InClear.NOWHERE,
) -> None:
    """Serve ontology versions until SIGTERM or Ctrl-C."""
    import asyncio

    from lepton_server.api.knowledge_app import KnowledgeAddresses, SparqlListening, serve_knowledge
    from lepton_server.api.knowledge_http import Clear
    from lepton_server.logs import configure_logs

    def tell(addresses: KnowledgeAddresses) -> None:
        if addresses.sparql_url:
            write_line(f"SPARQL at {addresses.sparql_url}")
        write_line(f"knowledge ready at {addresses.address}")

    configure_logs()
    asyncio.run(
        serve_knowledge(
            folder,
            listen=listen,
            store=store,
            sparql=None if sparql == "off" else SparqlListening(sparql, Clear(sparql_clear.value)),
            ready=tell,
        )
    )


@verb(app, "health", example="lepton kg health knowledge --address localhost:8444")
def health(
    folder: Annotated[Path, typer.Argument(help="The service's folder, whose certificate asks.")],
    *,
    address: Annotated[str, typer.Option("--address", help="host:port of the service.")] = "localhost:8444",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Ask the knowledge service whether it serves; exit code 8 if it does not."""
    from lepton_admin.service_link import require_serving

    require_serving(folder, address)
    answer_record(output, {"address": address, "ready": True}, title="knowledge service", fields={"ready": address})
