"""`lepton mapping`: map an owner's columns to concepts; runs beside the data and sends nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, write_line
from lepton_admin.cli.ontology import RdfFormat, format_of
from lepton_admin.cli.options import Output, OutputFormat, noun_app, verb

app = noun_app("Map an owner's columns to concepts. Runs beside the data and sends nothing.")

MappingFile = Annotated[Path, typer.Argument(help="The mapping, YAML.")]
OntologyFile = Annotated[Path, typer.Option("--ontology", help="The ontology document that the mapping is for.")]


ClientHome = Annotated[
    Path | None, typer.Option("--client", help="The client's folder, whose identity key signs the approval.")
]


@verb(
    app,
    "suggest",
    example="lepton mapping suggest data.csv --ontology ontology.ttl --file mapping.yaml",
)
def suggest(
    source: Annotated[str, typer.Argument(help="CSV, Parquet or SQLite file, or a database's SQLAlchemy URL.")],
    *,
    ontology: OntologyFile,
    file: Annotated[Path, typer.Option("--file", help="Where to write the proposed mapping.")],
    table: Annotated[str, typer.Option("--table", help="The table of a SQLite file or a database.")] = "",
    password_file: Annotated[
        Path | None, typer.Option("--login-file", help="File of mode 600 that opens the database.")
    ] = None,
    delimiter: Annotated[str, typer.Option("--delimiter", help="Between the cells of a CSV file; found out.")] = "",
    decimal: Annotated[str, typer.Option("--decimal", help="Decimal sign of a CSV file, . or ,; found out.")] = "",
    vocabulary: Annotated[str, typer.Option("--vocabulary", help="Only concepts with this IRI prefix.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Propose a concept for each column, with reasons. Nothing is approved: review, or correct and approve."""
    from lepton_admin.mappings import SourceShape, propose

    shape = SourceShape(source, table or None, delimiter or None, decimal or None, password_file)
    proposal = propose(shape, ontology, format_of(ontology, RdfFormat.AUTO), vocabulary, file)
    if output is OutputFormat.TABLE:
        write_line(f"{source}: {'; '.join(proposal.source)}")
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
            for suggestion in proposal.suggestions
        ],
        right=("score",),
    )


@verb(
    app,
    "review",
    example="lepton mapping review mapping.yaml --ontology ontology.ttl --approver 'Dr. Ada Berg' --client client",
)
def review(
    mapping: MappingFile,
    *,
    ontology: OntologyFile,
    approver: Annotated[str, typer.Option("--approver", help="Who decides.")],
    client: ClientHome = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Go through the proposed lines: accept, change or skip each. Shows statistics of a sample, which never leave."""
    from lepton_admin.mappings import load_ontology, load_signing_key
    from lepton_admin.reviewing import review_mapping

    def ask(question: str) -> str | None:
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline() or None

    decided = review_mapping(
        mapping,
        load_ontology(ontology, format_of(ontology, RdfFormat.AUTO)),
        approver=approver,
        key=load_signing_key(client),
        ask=ask,
        say=_say,
    )
    answer_record(
        output,
        decided,
        title=f"reviewed {mapping}",
        fields={
            "accepted": list(decided.accepted) or "-",
            "changed": [f"{column}: {concept}" for column, concept in decided.changed.items()] or "-",
            "skipped, still proposed": list(decided.skipped) or "-",
        },
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

    report = check_mapping(mapping, ontology, format_of(ontology, RdfFormat.AUTO), job, _say)
    fields: dict[str, object] = {
        "columns mapped": report.columns,
        "approved": f"{report.approved} of {report.columns}",
        "ontology": report.ontology,
        "subjects": f"told apart by column {report.subject}"
        if report.subject is not None
        else "not told apart: jobs that protect or hold out subjects are refused",
    }
    if report.rows is not None:
        fields["rows that train"] = report.rows.rows_mapped
        fields["rows held out"] = report.rows.rows_held_out
        fields["rows filtered away"] = report.rows.rows_filtered
        fields["rows refused"] = report.rows.rows_refused
        fields["refused because"] = [f"{reason}: {count}" for reason, count in report.rows.refused_by.items()] or "-"
        fields["unknown codes"] = [f"{c.column} ({c.concept}): {c.rows} rows" for c in report.unknown_codes] or "-"
        fields["imputed"] = [f"{iri}: {count}" for iri, count in report.rows.missing_by_concept.items()] or "-"
    answer_record(output, report, title=f"{mapping} holds", fields=fields)


@verb(
    app,
    "approve",
    example="lepton mapping approve mapping.yaml --ontology ontology.ttl --approver 'Dr. Ada Berg' --client client",
)
def approve(
    mapping: MappingFile,
    *,
    ontology: OntologyFile,
    approver: Annotated[str, typer.Option("--approver", help="Who has read every line of it.")],
    client: ClientHome = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Approve every line of a mapping for the source as it is now; a changed source needs a new approval."""
    from lepton_admin.mappings import approve_mapping, load_signing_key

    key = load_signing_key(client)
    approved = approve_mapping(mapping, ontology, format_of(ontology, RdfFormat.AUTO), approver, key=key)
    answer_record(
        output,
        {
            "mapping": str(mapping),
            "columns": len(approved.columns),
            "schema_fingerprint": approved.schema_fingerprint,
            "signed_by": approved.signature.identity if approved.signature is not None else None,
        },
        title=f"approved {mapping}",
        fields={
            "by": approver,
            "columns": len(approved.columns),
            "source schema": approved.schema_fingerprint,
            "signed": "by the client's identity" if key is not None else "no: name the client's folder with --client",
        },
    )


@verb(app, "renew", example="lepton mapping renew mapping.yaml --ontology ontology.ttl")
def renew(mapping: MappingFile, *, ontology: OntologyFile, output: Output = OutputFormat.TABLE) -> None:
    """Take a mapping to a changed source or a new ontology version: lines that changed lose their approval."""
    from lepton_admin.mappings import renew_mapping

    renewed = renew_mapping(mapping, ontology, format_of(ontology, RdfFormat.AUTO))
    answer_record(
        output,
        {"differences": renewed.differences, "unapproved": renewed.unapproved},
        title=f"renewed {mapping}" if renewed.differences else f"{mapping} holds as it is",
        fields={
            "what has changed": "\n".join(renewed.differences) or "nothing",
            "no longer approved": list(renewed.unapproved) or "-",
        },
    )


@verb(app, "quality", example="lepton mapping quality mapping.yaml --ontology ontology.ttl --file quality.html")
def quality(
    mapping: MappingFile,
    *,
    ontology: OntologyFile,
    file: Annotated[Path | None, typer.Option("--file", help="A new HTML page, which only you may read.")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show how the mapped columns lie before and after the mapping, and what looks wrong. For the site's own eyes."""
    from lepton_admin.files import read_text, write_private
    from lepton_admin.mappings import load_ontology
    from lepton_admin.quality_page import quality_page
    from lepton_kg.mapping import parse_mapping
    from lepton_kg.quality import examine_quality

    known = load_ontology(ontology, format_of(ontology, RdfFormat.AUTO))
    parsed = parse_mapping(read_text(mapping, "mapping"), source=str(mapping))
    report = examine_quality(parsed, known, mapping.resolve().parent, name=str(mapping))
    if file is not None:
        write_private(file, quality_page(report).encode())
    answer_rows(
        output,
        report,
        title=f"quality of {mapping}, {report.rows} rows" + (f", written to {file}" if file is not None else ""),
        columns=("column", "means", "missing", "unreadable", "out of range", "before", "after", "look at"),
        rows=[
            (
                column.column,
                column.label,
                column.missing,
                column.unreadable,
                column.out_of_range,
                f"{column.before.low:.4g} to {column.before.high:.4g} {column.unit}" if column.before else "-",
                f"{column.after.low:.4g} to {column.after.high:.4g} {column.canonical_unit}" if column.after else "-",
                "; ".join(column.suspicions) or "-",
            )
            for column in report.columns
        ],
        right=("missing", "unreadable", "out of range"),
    )


@verb(app, "export", example="lepton mapping export mapping.yaml --ontology ontology.ttl --file mapping.sssom.tsv")
def export(
    mapping: MappingFile,
    *,
    ontology: OntologyFile,
    file: Annotated[Path, typer.Option("--file", help="A new SSSOM table.")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write which column is which concept as an SSSOM table, for other tools. It names your columns."""
    from lepton_admin.mappings import export_sssom

    lines = export_sssom(mapping, ontology, format_of(ontology, RdfFormat.AUTO), file)
    answer_record(output, {"file": str(file), "lines": lines}, title=f"wrote {file}", fields={"lines": lines})


@verb(app, "import", example="lepton mapping import mapping.sssom.tsv mapping.yaml")
def import_table(
    table: Annotated[Path, typer.Argument(help="An SSSOM table.")],
    mapping: MappingFile,
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Take over which column is which concept from an SSSOM table; lines that change are proposals."""
    from lepton_admin.mappings import import_sssom

    merged = import_sssom(table, mapping)
    proposed = [column.column for column in merged.columns if column.status == "proposed"]
    answer_record(
        output,
        {"mapping": str(mapping), "columns": len(merged.columns), "proposed": proposed},
        title=f"imported into {mapping}",
        fields={"columns": len(merged.columns), "to be approved": proposed or "-"},
    )


@verb(app, "schema", example="lepton mapping schema --output json")
def schema(*, output: Output = OutputFormat.JSON) -> None:
    """Print the JSON Schema of a mapping, for editors."""
    from lepton_kg.mapping_schema import mapping_json_schema

    made = mapping_json_schema()
    answer_record(
        output, made, title="keys of a mapping", fields=dict.fromkeys(made["properties"], "see --output json")
    )


def _say(line: str) -> None:
    """What may show cells goes to the terminal beside the answer, which may be piped or kept; no cell commands it."""
    sys.stderr.write("".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line) + "\n")
