"""`lepton model`: list, export, apply and evaluate models."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, moment, score
from lepton_admin.cli.bar import transfer_bar
from lepton_admin.cli.options import CanonicalJob, Output, OutputFormat, Profile, noun_app, verb
from lepton_admin.evaluating import Side
from lepton_core.errors import InputError

app = noun_app("List, export, apply and evaluate models.")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
ModelFile = Annotated[Path, typer.Option("--model", help="A model file that `lepton model export` wrote.")]
OntologyFile = Annotated[
    Path | None, typer.Option("--ontology", help="The ontology document; else the coordinator is asked for it.")
]
OptionalProfile = Annotated[
    Path | None, typer.Option("--profile", envvar="LEPTON_PROFILE", help="Needed without --ontology.")
]


@verb(app, "list", example="lepton model list hospitals-3f9a --profile researcher")
def list_models(job: JobName, *, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """List a job's model versions with their quality and what they cost in privacy."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        models = link.models(job)
    answer_rows(
        output,
        models,
        title=f"models of {job}",
        columns=("version", "round", "accuracy", "AUC", "epsilon", "contributors", "made", "hash"),
        rows=[
            (
                m.version,
                m.round,
                score(m.accuracy),
                score(m.auc),
                m.epsilon,
                m.contributors,
                moment(m.created),
                m.digest,
            )
            for m in models
        ],
        right=("version", "round", "accuracy", "AUC", "epsilon", "contributors"),
    )


@verb(app, "export", example="lepton model export hospitals-3f9a --file model.safetensors --profile researcher")
def export(
    job: JobName,
    *,
    file: Annotated[Path, typer.Option("--file", help="Where to write it; its sidecar ends in .json.")],
    version: Annotated[int | None, typer.Option("--version", help="The newest by default.", min=0)] = None,
    job_file: CanonicalJob = None,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a model version as safetensors, with a sidecar that tells its layout, job, concepts and privacy."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.models import export_model, recall_job, sidecar_of

    with CoordinatorLink.of_profile(profile) as link:
        view = link.job(job)
        job_of_model = recall_job(profile, view, job_file)
        with transfer_bar(link, output, file.name):
            sidecar = export_model(link, job_of_model, view, version, file)
    answer_record(
        output,
        sidecar.model_dump(mode="json"),
        title=f"model {sidecar.version} of {sidecar.job_id}",
        fields={
            "file": str(file),
            "sidecar": str(sidecar_of(file)),
            "accuracy": score(sidecar.accuracy),
            "AUC": score(sidecar.auc),
            "privacy": f"epsilon at most {sidecar.epsilon:.3f} at delta {sidecar.job.privacy.delta:g}"
            if sidecar.job.privacy.mode != "none"
            else "none",
            "hash": sidecar.digest,
        },
    )


@verb(
    app,
    "predict",
    example="lepton model predict --model model.safetensors --source new.csv --mapping new.yaml --profile researcher",
)
def predict(
    *,
    model: ModelFile,
    source: Annotated[Path, typer.Option("--source", help="The rows; no column for the target is needed.")],
    mapping: Annotated[Path, typer.Option("--mapping", help="The approved mapping of the source.")],
    ontology: OntologyFile = None,
    profile: OptionalProfile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Apply a model to rows, here: a value and its probability for every row that it has something to say about.

    A row that the job's filters leave out, or that cannot be read with certainty, keeps its number and gets a reason.
    """
    from lepton_admin.models import load_sidecar, predict_rows

    target = load_sidecar(model).job.task.target
    predictions = predict_rows(model, source, mapping, _canonical_from(ontology, profile))
    answer_rows(
        output,
        predictions,
        title=target.concept,
        columns=("row", "value", "probability"),
        rows=[
            (p.row, p.value or "-", p.reason if p.probability is None else f"{p.probability:.4f}") for p in predictions
        ],
        right=("row", "probability"),
    )
    without = Counter(prediction.reason for prediction in predictions if prediction.probability is None)
    if without:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(without.items()))
        sys.stderr.write(f"{without.total()} of {len(predictions)} rows have no prediction: {told}\n")


@verb(
    app,
    "evaluate",
    example="lepton model evaluate --model model.safetensors --mapping mapping.yaml --ontology ontology.ttl",
)
def evaluate(
    *,
    model: ModelFile,
    mapping: Annotated[Path, typer.Option("--mapping", help="The owner's approved mapping, which names the source.")],
    side: Annotated[
        Side, typer.Option("--side", help="Records of subjects that the job holds out, that it trains on, or all.")
    ] = Side.HELD_OUT,
    ontology: OntologyFile = None,
    profile: OptionalProfile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Evaluate a model on an owner's own records, here; by default on those that its job holds out of training.

    The figures are of records and bear no noise: they are for the owner, and are sent nowhere.
    """
    from lepton_admin.evaluating import evaluate_rows

    found = evaluate_rows(model, mapping, side, _canonical_from(ontology, profile))
    answer_record(
        output,
        found,
        title=f"{model} on {mapping}, records: {side}",
        fields={
            "records": found.rows,
            "accuracy": score(found.accuracy),
            "AUC": "-" if found.auc is None else score(found.auc),
            "records of the other side": found.rows_of_other_side,
            "filtered away": found.rows_filtered,
            "refused because": [f"{reason}: {count}" for reason, count in found.refused_by.items()] or "-",
        },
    )


def _canonical_from(ontology: Path | None, profile: Path | None) -> Callable[[str], bytes]:
    """What gives the canonical N-Quads of an ontology version: the document, or the coordinator of the profile."""

    def canonical(digest: str) -> bytes:
        if ontology is not None:
            from lepton_admin.cli.ontology import RdfFormat, format_of
            from lepton_admin.mappings import load_ontology

            return load_ontology(ontology, format_of(ontology, RdfFormat.AUTO)).canonical
        if profile is None:
            raise InputError("which ontology is meant?", expected="--ontology FILE or --profile FOLDER", hint=digest)
        from lepton_admin.link import CoordinatorLink

        with CoordinatorLink.of_profile(profile) as link:
            return link.ontology(digest)

    return canonical
