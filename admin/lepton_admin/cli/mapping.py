"""`lepton mapping`: map an owner's columns to concepts; runs beside the data and sends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows
from lepton_admin.cli.ontology import RdfFormat, format_of
from lepton_admin.cli.options import Output, OutputFormat, noun_app, verb

app = noun_app("Map an owner's columns to concepts. Runs beside the data and sends nothing.")

MappingFile = Annotated[Path, typer.Argument(help="The mapping, YAML.")]
OntologyFile = Annotated[Path, typer.Option("--ontology", help="The ontology document that the mapping is for.")]


@verb(
    app,
    "suggest",
    example="lepton mapping suggest data.csv --ontology ontology.ttl --file mapping.yaml",
)
def suggest(
    source: Annotated[Path, typer.Argument(help="CSV, Parquet or SQLite file.")],
    *,
    ontology: OntologyFile,
    file: Annotated[Path, typer.Option("--file", help="Where to write the proposed mapping.")],
    table: Annotated[str, typer.Option("--table", help="The table of a SQLite file.")] = "",
    delimiter: Annotated[str, typer.Option("--delimiter", help="Between the cells of a CSV file.")] = ",",
    decimal: Annotated[str, typer.Option("--decimal", help="Decimal sign of a CSV file: . or ,")] = ".",
    vocabulary: Annotated[str, typer.Option("--vocabulary", help="Only concepts with this IRI prefix.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Propose a concept for each column, with reasons. Nothing is approved: read, correct, then approve."""
    from lepton_admin.mappings import SourceShape, propose

    shape = SourceShape(source, table or None, delimiter, decimal)
    proposal = propose(shape, ontology, format_of(ontology, RdfFormat.AUTO), vocabulary, file)
    answer_rows(
        output,
        proposal,
        title=f"proposed mapping, written to {file}",
        columns=("column", "concept", "unit", "score", "why"),
        rows=[
            (
                suggestion.column,
                suggestion.candidates[0].concept if suggestion.candidates else "nothing comes near",
                suggestion.unit or "-",
                suggestion.candidates[0].score if suggestion.candidates else "-",
                suggestion.candidates[0].reasons if suggestion.candidates else "-",
            )
            for suggestion in proposal
        ],
        right=("score",),
    )


@verb(app, "check", example="lepton mapping check mapping.yaml --ontology ontology.ttl --job job.toml")
def check(
    mapping: MappingFile,
    *,
    ontology: OntologyFile,
    job: Annotated[Path | None, typer.Option("--job", help="A job file, to see how the rows serve it.")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check a mapping against its ontology and source, and with --job the rows against the job's concepts."""
    from lepton_admin.mappings import check_mapping

    report = check_mapping(mapping, ontology, format_of(ontology, RdfFormat.AUTO), job)
    fields: dict[str, object] = {
        "columns mapped": report.columns,
        "approved": f"{report.approved} of {report.columns}",
        "ontology": report.ontology,
    }
    if report.rows is not None:
        fields["rows that serve the job"] = report.rows.rows_mapped
        fields["rows refused"] = report.rows.rows_refused
        fields["refused because"] = [f"{reason}: {count}" for reason, count in report.rows.refused_by.items()] or "-"
        fields["imputed"] = [f"{iri}: {count}" for iri, count in report.rows.missing_by_concept.items()] or "-"
    answer_record(output, report, title=f"{mapping} holds", fields=fields)


@verb(app, "approve", example="lepton mapping approve mapping.yaml --ontology ontology.ttl --approver 'Dr. Ada Berg'")
def approve(
    mapping: MappingFile,
    *,
    ontology: OntologyFile,
    approver: Annotated[str, typer.Option("--approver", help="Who has read every line of it.")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Approve every line of a mapping for the source as it is now; a changed source needs a new approval."""
    from lepton_admin.mappings import approve_mapping

    approved = approve_mapping(mapping, ontology, format_of(ontology, RdfFormat.AUTO), approver)
    answer_record(
        output,
        {"mapping": str(mapping), "columns": len(approved.columns), "schema_fingerprint": approved.schema_fingerprint},
        title=f"approved {mapping}",
        fields={"by": approver, "columns": len(approved.columns), "source schema": approved.schema_fingerprint},
    )
