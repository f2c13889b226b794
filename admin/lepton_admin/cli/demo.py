"""`lepton demo`: a real federation of five hospitals on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import write_json, write_line
from lepton_admin.cli.options import Output, OutputFormat

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Example:\n\n\b\n  lepton demo --folder lepton-demo")
def demo(
    *,
    folder: Annotated[Path, typer.Option("--folder", help="Where all state lives.")] = Path("lepton-demo"),
    rounds: Annotated[int | None, typer.Option("--rounds", help="Fewer or more than the job file's.", min=2)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which patients go where.", min=0)] = 0,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse/--fresh", help="Keep an earlier run's folder: the owners' ledgers then hold both runs' epsilon."
        ),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the federation running until Ctrl-C.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Run a real federation of five hospitals on this machine, offline.

    Starts a coordinator, five data owners and one that is left out as separate processes with mutual TLS, trains over
    real patients with secure aggregation and differential privacy, kills one owner in the middle of a round, and
    compares the result with each owner alone. Every process it starts ends with it.
    """
    started = time.monotonic()
    from lepton_admin.demo import report, run

    options = run.DemoOptions(folder=folder, output=output, rounds=rounds, reuse=reuse, seed=seed)
    with run.demo(options, started) as found:
        if output is OutputFormat.JSON:
            write_json(report.as_document(found))
        else:
            report.show(found)
        if keep:
            if output is OutputFormat.TABLE:
                write_line("\nThe federation keeps running; Ctrl-C ends it.")
            while True:
                time.sleep(3600)
