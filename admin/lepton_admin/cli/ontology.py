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
_ENDINGS = {
    ".ttl": "turtle",
    ".nq": "nquads",
    ".nt": "ntriples",
    ".rdf": "rdfxml",
    ".owl": "rdfxml",
    ".xml": "rdfxml",
    ".jsonld": "jsonld",
    ".json": "jsonld",
    ".obo": "obo",
}

Version = Annotated[str, typer.Argument(help="The version's hash or label.")]


class RdfFormat(StrEnum):
    """How a document is written."""

    AUTO = "auto"
    TURTLE = "turtle"
    NQUADS = "nquads"
    NTRIPLES = "ntriples"
    RDFXML = "rdfxml"
    JSONLD = "jsonld"
    OBO = "obo"


def read_document(file: Path) -> bytes:
    """The document's bytes, if they are not too many to be published; nothing is read of one that is."""
    from lepton_kg.rdf import require_size

    if file.is_file():
        require_size(file.stat().st_size, str(file))
    return read_bytes(file, "ontology")


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

    document = read_document(file)
    with CoordinatorLink.of_profile(profile) as link:
        version = link.publish_ontology(document, format_of(file, format), label or file.stem)
    answer_record(
        output,
        version,
        title="published",
        fields={"hash": version.digest, "label": version.label or "-", "concepts": version.concepts},
    )


@verb(app, "check", example="lepton ontology check ontology.ttl")
def check(
    file: Annotated[Path, typer.Argument(help="The ontology document.")],
    *,
    format: Annotated[RdfFormat, typer.Option("--format", help="How it is written.")] = RdfFormat.AUTO,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Tell everything that is wrong with a document, without publishing it; exit code 3 if anything is."""
    from lepton_core.errors import OntologyError
    from lepton_kg.formulas import check_formulas
    from lepton_kg.ontology import check_ontology, parse_ontology

    document = read_document(file)
    known = format_of(file, format)
    problems = check_ontology(document, format=known, source=str(file))
    if not problems:
        problems = check_formulas(parse_ontology(document, format=known, source=str(file)))
    answer_rows(
        output,
        {"file": str(file), "problems": problems},
        title=f"problems in {file}" if problems else f"{file} can be published",
        columns=("problem",),
        rows=[(problem,) for problem in problems],
    )
    if problems:
        raise OntologyError(
            f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the ontology",
            where=str(file),
            expected="what docs/ontology.md says that a concept may carry",
            got=problems[0],
            hint="correct the document and check it again",
            reason="INVALID",
        )


@verb(app, "show", example="lepton ontology show hospitals --profile researcher")
def show(
    version: Version,
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
        columns=("hash", "label", "concepts", "published", "approved by", "deprecated"),
        rows=[
            (
                v.digest,
                v.label or "-",
                v.concepts,
                moment(v.published),
                v.approvers or "-",
                v.deprecation_reason if v.deprecated else "-",
            )
            for v in versions
        ],
    )


@verb(app, "get", example="lepton ontology get hospitals hospitals.nq --profile researcher")
def get(
    version: Version,
    file: Annotated[Path, typer.Argument(help="Where to write the canonical N-Quads.")],
    *,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a version's statements to a file, checked against their hash."""
    from lepton_admin.files import write_public
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_ontology

    with CoordinatorLink.of_profile(profile) as link:
        ontology = find_ontology(version, link)
    write_public(file, ontology.canonical)
    answer_record(
        output,
        {"digest": ontology.digest, "file": str(file), "bytes": len(ontology.canonical)},
        title="written",
        fields={"hash": ontology.digest, "file": str(file), "bytes": len(ontology.canonical)},
    )


@verb(app, "diff", example="lepton ontology diff OLD_HASH hospitals --profile researcher")
def diff(
    old: Annotated[str, typer.Argument(help="The earlier version's hash or label.")],
    new: Annotated[str, typer.Argument(help="The later version's hash or label.")],
    *,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Tell what changed from one version to another, concept by concept."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_version

    with CoordinatorLink.of_profile(profile) as link:
        found = link.knowledge.diff(find_version(old, link), find_version(new, link))
    rows = [
        *((iri, "added", "", "") for iri in found.added),
        *((iri, "removed", "", "") for iri in found.removed),
        *((change.iri, field, before, after) for change in found.changed for field, before, after in change.fields),
    ]
    answer_rows(
        output,
        found,
        title=f"+{found.statements_added} -{found.statements_removed} statements",
        columns=("concept", "change", "before", "after"),
        rows=rows,
    )


@verb(app, "approve", example="lepton ontology approve hospitals --note 'read against the codebook' --profile operator")
def approve(
    version: Version,
    *,
    note: Annotated[str, typer.Option("--note", help="What was looked at.")] = "",
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Put on record that you vouch for a version."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_version

    with CoordinatorLink.of_profile(profile) as link:
        found = link.knowledge.approve(find_version(version, link), note)
    answer_record(
        output, found, title="approved", fields={"hash": found.digest, "approved by": ", ".join(found.approvers)}
    )


@verb(app, "deprecate", example="lepton ontology deprecate OLD_HASH --reason 'wrong unit' --profile operator")
def deprecate(
    version: Version,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why nobody should use it for new work.")],
    replaced_by: Annotated[str, typer.Option("--replaced-by", help="Hash or label of what takes its place.")] = "",
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Take a version out of use: its label no longer leads to it, its hash does for ever."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_version

    with CoordinatorLink.of_profile(profile) as link:
        successor = find_version(replaced_by, link) if replaced_by else ""
        found = link.knowledge.deprecate(find_version(version, link), reason, successor)
    answer_record(
        output,
        found,
        title="deprecated",
        fields={"hash": found.digest, "reason": found.deprecation_reason, "replaced by": found.replaced_by or "-"},
    )


@verb(app, "resolve", example="lepton ontology resolve hospitals 'mittlerer Radius' --profile researcher")
def resolve(
    version: Version,
    texts: Annotated[list[str], typer.Argument(help="IRIs, codes, labels or synonyms in any language.")],
    *,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Find the concepts that words name."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_version

    with CoordinatorLink.of_profile(profile) as link:
        found = link.knowledge.resolve(find_version(version, link), texts)
    answer_rows(
        output,
        found,
        title="concepts",
        columns=("text", "concept", "labels", "unit"),
        rows=[(one.text, one.iri, sorted(one.labels.values()), one.unit or "-") for one in found],
    )


@verb(app, "closure", example="lepton ontology closure hospitals CONCEPT_IRI --profile researcher")
def closure(
    version: Version,
    concept: Annotated[str, typer.Argument(help="The concept's IRI.")],
    *,
    broader: Annotated[bool, typer.Option("--broader", help="Upward instead of downward.")] = False,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List every narrower concept of one, or every broader one, nearest first."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import find_version

    with CoordinatorLink.of_profile(profile) as link:
        found = link.knowledge.closure(find_version(version, link), concept, upward=broader)
    answer_rows(
        output,
        [{"concept": iri, "steps": steps} for iri, steps in found],
        title="broader concepts" if broader else "narrower concepts",
        columns=("concept", "steps"),
        rows=found,
    )
