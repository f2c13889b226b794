"""`lepton model`: list, export and apply models."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, moment, score
from lepton_admin.cli.bar import transfer_bar
from lepton_admin.cli.options import CanonicalJob, Output, OutputFormat, Profile, noun_app, verb

app = noun_app("List, export and apply models.")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


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
    model: Annotated[Path, typer.Option("--model", help="A model file that `lepton model export` wrote.")],
    source: Annotated[Path, typer.Option("--source", help="The rows; no column for the target is needed.")],
    mapping: Annotated[Path, typer.Option("--mapping", help="The approved mapping of the source.")],
    ontology: Annotated[
        Path | None, typer.Option("--ontology", help="The ontology document; else the coordinator is asked.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", envvar="LEPTON_PROFILE", help="Needed without --ontology.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Apply a model to rows, here: a value and its probability for every row that it has something to say about.

    A row that the job's filters leave out, or that cannot be read with certainty, keeps its number and gets a reason.
    """
    from lepton_admin.cli.ontology import RdfFormat, format_of
    from lepton_admin.files import read_bytes
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.models import load_sidecar, predict_rows
    from lepton_core.errors import InputError

    def canonical(digest: str) -> bytes:
        if ontology is not None:
            from lepton_kg.ontology import parse_ontology

            kind = format_of(ontology, RdfFormat.AUTO)
            return parse_ontology(read_bytes(ontology, "ontology"), format=kind, source=str(ontology)).canonical
        if profile is None:
            raise InputError("which ontology is meant?", expected="--ontology FILE or --profile FOLDER", hint=digest)
        with CoordinatorLink.of_profile(profile) as link:
            return link.ontology(digest)

    target = load_sidecar(model).job.task.target
    predictions = predict_rows(model, source, mapping, canonical)
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
