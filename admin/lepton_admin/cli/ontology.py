"""`lepton ontology`: publish and read shared concepts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, moment
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb
from lepton_admin.files import read_bytes

app = noun_app("Publish and read shared concepts.")

#: File name endings of each format.
_ENDINGS = {".ttl": "turtle", ".nq": "nquads", ".nt": "ntriples", ".rdf": "rdfxml", ".owl": "rdfxml", ".xml": "rdfxml"}


class RdfFormat(StrEnum):
    """How a document is written."""

    AUTO = "auto"
    TURTLE = "turtle"
    NQUADS = "nquads"
    NTRIPLES = "ntriples"
    RDFXML = "rdfxml"


def format_of(file: Path, format: RdfFormat) -> str:
    """The format asked for, or the one that the file's name tells."""
    return _ENDINGS.get(file.suffix.lower(), "turtle") if format is RdfFormat.AUTO else format.value


@verb(app, "publish", example="lepton ontology publish ontology.ttl --label hospitals --profile researcher")
def publish(
    file: Annotated[Path, typer.Argument(help="The ontology document.")],
    *,
    label: Annotated[str, typer.Option("--label", help="A name that jobs may use; the newest version counts.")] = "",
    format: Annotated[RdfFormat, typer.Option("--format", help="How it is written.")] = RdfFormat.AUTO,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish an ontology version; its address is the hash of what it says, not of how it is written."""
    from lepton_admin.link import CoordinatorLink

    document = read_bytes(file, "ontology")
    with CoordinatorLink.of_profile(profile) as link:
        version = link.publish_ontology(document, format_of(file, format), label or file.stem)
    answer_record(
        output,
        version,
        title="published",
        fields={"hash": version.digest, "label": version.label or "-", "concepts": version.concepts},
    )


@verb(app, "show", example="lepton ontology show hospitals --profile researcher")
def show(
    version: Annotated[str, typer.Argument(help="The version's hash or label.")],
    *,
    find: Annotated[str, typer.Option("--find", help="Only concepts whose name holds this.")] = "",
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show a version's concepts with unit and plausible range."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_ontology

    with CoordinatorLink.of_profile(profile) as link:
        ontology = find_ontology(version, link)
    wanted = find.casefold()
    concepts = [
        concept
        for iri, concept in sorted(ontology.concepts.items())
        if wanted in " ".join((iri, *concept.labels.values(), *concept.synonyms)).casefold()
    ]
    answer_rows(
        output,
        {"digest": ontology.digest, "concepts": concepts},
        title=f"ontology {ontology.digest}",
        columns=("concept", "label", "unit", "plausible", "values", "broader"),
        rows=[
            (
                concept.iri,
                concept.label,
                concept.unit or "-",
                f"{concept.plausible_minimum:g} to {concept.plausible_maximum:g}"
                if concept.plausible_minimum is not None and concept.plausible_maximum is not None
                else "-",
                [value.notation or value.iri for value in concept.value_set] or "-",
                concept.broader or "-",
            )
            for concept in concepts
        ],
    )


@verb(app, "list", example="lepton ontology list --profile researcher")
def list_versions(*, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """List the published versions."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        versions = link.ontologies()
    answer_rows(
        output,
        versions,
        title="ontologies",
        columns=("hash", "label", "concepts", "published"),
        rows=[(v.digest, v.label or "-", v.concepts, moment(v.published)) for v in versions],
    )
