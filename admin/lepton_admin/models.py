"""A trained model as files, and what it says about rows: no coordinator is needed to apply it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_admin.files import publish, read_bytes, read_text, require_absent, write_private, write_public
from lepton_core.errors import InputError, NotFoundError
from lepton_core.ids import Digest, digest_of, require_name
from lepton_core.job import Job, parse_job
from lepton_core.settings import Settings, parse_settings
from lepton_core.task import Task
from lepton_core.views import JobView, ModelView

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from lepton_admin.link import CoordinatorLink
    from lepton_kg.mapping import Mapping

#: Column that stands in for the target, which new rows do not have; not a name that sources use.
_STAND_IN = "lepton: any class"


class Sidecar(Settings):
    """What a model file means: lies beside it as JSON."""

    format: int = 1
    #: SHA-256 (hex) of the model file.
    digest: str
    job_id: str
    version: int
    #: SHA-256 (hex) of the model that this one came from.
    parent: str
    accuracy: float
    auc: float
    #: What the model may have learnt of one record, or subject, at most, at the job's delta.
    epsilon: float
    contributors: int
    #: Name and shape of each tensor.
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    job: Job


@dataclass(frozen=True)
class Prediction:
    """What the model says about one source row."""

    #: Counted from 1, without the header.
    row: int
    #: The positive value, or of several classes the most probable; None if the model has nothing to say of the row.
    value: str | None
    #: Of that value; None as above.
    probability: float | None
    #: Why there is none: FILTERED, as the job is not about such rows, or the plan's reason to refuse the row.
    reason: str | None = None


def jobs_folder(profile: Path) -> Path:
    """Where the jobs that this profile handed in are remembered."""
    return profile / "jobs"


def remember_job(profile: Path, job_id: str, job: Job) -> None:
    """Keep the canonical job, so that its model can be read later."""
    write_private(jobs_folder(profile) / f"{require_name(job_id, 'job id')}.json", job.canonical(), replace=True)


def recall_job(profile: Path, view: JobView, file: Path | None) -> Job:
    """The canonical job behind a job's view, from `file` or from what the profile handed in.

    Raises:
        NotFoundError: it was handed in elsewhere, and no file is given.
        InputError: the file is of another job.
    """
    path = file if file is not None else jobs_folder(profile) / f"{require_name(view.job, 'job id')}.json"
    if file is None and not path.is_file():
        raise NotFoundError(
            "this profile did not hand the job in, so it does not know its model's shape",
            where=str(path),
            expected="the canonical job",
            hint="ask the researcher for the file jobs/JOB.json of their profile, and name it with --job-file",
        )
    job = parse_job(read_bytes(path, "canonical job"))
    if job.digest().hex() != view.job_digest:
        raise InputError(
            "the file is of another job", where=str(path), expected=view.job_digest, got=job.digest().hex()
        )
    return job


def export_model(link: CoordinatorLink, job: Job, view: JobView, version: int | None, file: Path) -> Sidecar:
    """Write a version of the job's model, the newest by default, and its sidecar; gives the sidecar.

    Raises:
        NotFoundError: no such job or version.
        CodecError: the stored model is not of the job's layout.
        ConflictError: `file` exists.
    """
    from lepton_pool.models import architecture_of, model_layout
    from lepton_pool.weights import require_weights

    require_absent(file)
    model = _chosen(link.models(view.job), version, view.job)
    layout = model_layout(architecture_of(job))
    file.parent.mkdir(parents=True, exist_ok=True)
    unchecked = file.with_name(f".{file.name}.unchecked")
    link.download_to(unchecked, model.digest)
    try:
        require_weights(layout, unchecked)
        publish(unchecked, file)
    finally:
        unchecked.unlink(missing_ok=True)
    sidecar = Sidecar(
        digest=model.digest,
        job_id=view.job,
        version=model.version,
        parent=model.parent,
        accuracy=model.accuracy,
        auc=model.auc,
        epsilon=model.epsilon,
        contributors=model.contributors,
        layout=tuple((place.name, place.shape) for place in layout.places),
        job=job,
    )
    write_public(sidecar_of(file), (sidecar.model_dump_json(indent=2) + "\n").encode(), replace=True)
    return sidecar


def sidecar_of(file: Path) -> Path:
    """Where a model file's sidecar lies."""
    return file.with_suffix(".json")


def load_sidecar(file: Path) -> Sidecar:
    """The sidecar of a model file.

    Raises:
        InputError: it is missing or not JSON, or the model file is not the one it tells of.
    """
    path = sidecar_of(file)
    try:
        document: Any = json.loads(read_bytes(path, "model's sidecar"))
    except (ValueError, RecursionError):
        raise InputError("the model's sidecar is not JSON", where=str(path)) from None
    if not isinstance(document, dict):
        raise InputError("the model's sidecar is not a JSON object", where=str(path))
    sidecar = parse_settings(Sidecar, document, source=str(path))
    found = digest_of(read_bytes(file, "model file"))
    if found != sidecar.digest:
        raise InputError(
            "the model file is not the one its sidecar tells of", where=str(file), expected=sidecar.digest, got=found
        )
    return sidecar


def predict_rows(file: Path, source: Path, mapping_file: Path, ontology: Callable[[str], bytes]) -> list[Prediction]:
    """What the model says about every row of a source, one prediction a row in the source's order.

    The source needs no column for the target, so a filter on the target holds for every row; and the job's split,
    which is about training, is set aside. `ontology(digest)` gives the canonical N-Quads of the job's ontology version.

    Raises:
        MatchRefusal: the mapping cannot serve the model's concepts.
        InputError: a file that is missing or not as it should be.
    """
    from lepton_kg.compiler import compile_plan
    from lepton_kg.mapping import parse_mapping
    from lepton_kg.ontology import load_canonical
    from lepton_kg.source import read_columns
    from lepton_pool.evaluate import predict
    from lepton_pool.models import architecture_of, model_layout
    from lepton_pool.weights import decode_weights

    job = load_sidecar(file).job
    task = _unlabelled(job.task)
    digest = Digest(task.ontology)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    plan = compile_plan(task, _with_stand_in(mapping, task), load_canonical(ontology(digest), digest))
    columns = [column for column in plan.columns if column != _STAND_IN]
    from_file = mapping.source.in_file(source.name)
    frame = _labelled(read_columns(from_file, columns, source.resolve().parent))
    reasons = plan.reasons(frame)
    certain = frame.filter(reasons.is_null())
    told: Iterator[tuple[str, float]] = iter(())
    if certain.height:
        features = plan.execute(certain, max_refused_fraction=0.0).features
        vector = decode_weights(model_layout(architecture_of(job)), read_bytes(file, "model file"))
        told = iter(_told(task, predict(architecture_of(job), vector, features)))
    return [
        Prediction(row, *next(told)) if reason is None else Prediction(row, None, None, reason)
        for row, reason in enumerate(reasons.to_list(), 1)
    ]


def _told(task: Task, logits: npt.NDArray[np.float32]) -> list[tuple[str, float]]:
    """The value that each row's logits speak of, and its probability."""
    import numpy as np

    exact = logits.astype(np.float64)
    if logits.ndim == 1:
        return [(task.target.values[0], p) for p in (1.0 / (1.0 + np.exp(-exact))).tolist()]
    odds = np.exp(exact - exact.max(axis=1, keepdims=True))  # (rows, classes)
    shares = odds / odds.sum(axis=1, keepdims=True)
    return [
        (task.target.values[index], p)
        for index, p in zip(shares.argmax(axis=1), shares.max(axis=1).tolist(), strict=True)
    ]


def _chosen(models: tuple[ModelView, ...], version: int | None, job: str) -> ModelView:
    known = {model.version: model for model in models}
    wanted = max(known, default=0) if version is None else version
    if wanted not in known:
        raise NotFoundError(
            "no such model version",
            where=job,
            expected=f"0 to {max(known)}" if known else "a job that has made a model",
            got=str(wanted),
            hint=f"lepton model list {job}",
        )
    return known[wanted]


def _unlabelled(task: Task) -> Task:
    """The task of rows whose target nobody knows yet and that nobody trains on."""
    target = task.iri(task.target.concept)
    filters = tuple(one for one in task.filters if task.iri(one.concept) != target)
    return task.unsplit.model_copy(update={"filters": filters})


def _with_stand_in(mapping: Mapping, task: Task) -> Mapping:
    """The mapping with a column of our own for the target, in place of any that it has."""
    from lepton_kg.mapping import Column

    target = task.iri(task.target.concept)
    kept = tuple(column for column in mapping.columns if mapping.iri(column.concept) != target)
    like = mapping.columns[0]
    stand_in = Column(
        column=_STAND_IN,
        concept=target,
        codes={"any": task.iri(task.target.values[0])},
        status=like.status,
        approver=like.approver,
        date=like.date,
    )
    return mapping.model_copy(update={"columns": (*kept, stand_in)})


def _labelled(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.lit("any").alias(_STAND_IN))
