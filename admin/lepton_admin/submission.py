"""From `job.toml` to a job that everybody can hash: ontology by hash, noise derived, public files prepared."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_admin.files import read_bytes, read_text, read_toml
from lepton_core.errors import CodecError, ConflictError, JobError, LeptonError, NotFoundError
from lepton_core.ids import Digest, JobId, digest_of
from lepton_core.job import Job, JobFile, parse_job
from lepton_core.settings import parse_settings
from lepton_core.task import Task

if TYPE_CHECKING:
    from lepton_admin.link import CoordinatorLink
    from lepton_kg.ontology import Ontology
    from lepton_kg.plan import PreparedData
    from lepton_pool.models import Architecture

#: The widest lanes: they have room for any cohort.
_ROOMY = {"profile": "exact", "kept_fraction": 1.0, "mask": "coordinates"}
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ReadyJob:
    """A resolved job and the artifacts it names, not yet handed in."""

    job: Job
    #: safetensors with `features` and `target`; None without an evaluation set.
    evaluation: bytes | None
    #: safetensors with the first weights; None if they come from the seed.
    initial: bytes | None


def load_job_file(path: Path, link: CoordinatorLink) -> JobFile:
    """The job file; an ontology named by its label is replaced by the hash of the newest version of that label.

    Raises:
        InputError: the file is missing or not TOML.
        SettingsError: keys or values a job file must not have, all told at once.
        NotFoundError: no published ontology bears the label.
    """
    document = read_toml(path, "job file")
    task: Any = document.get("task")
    if isinstance(task, dict) and isinstance(task.get("ontology"), str) and not _HASH.fullmatch(task["ontology"]):
        task["ontology"] = _newest_version(task["ontology"], link)
    return parse_settings(JobFile, document, source=str(path))


def resolve_offline(path: Path) -> Job:
    """The job of a file, for a look at what it asks: a canonical job as it is, a job file as far as it goes by itself.

    Of a job file the noise and the encoding are derived; its ontology's concepts, its evaluation set and its first
    weights, which bear on nobody's privacy or uploads, are left as they are.

    Raises:
        InputError, SettingsError: a file that is no job.
        RefusedError, JobError: no noise or encoding does what it asks.
    """
    if path.suffix == ".json":
        return parse_job(read_bytes(path, "canonical job"))
    document = read_toml(path, "job file")
    task: Any = document.get("task")
    if isinstance(task, dict) and isinstance(task.get("ontology"), str) and not _HASH.fullmatch(task["ontology"]):
        task["ontology"] = "0" * 64
    return derive_job(parse_settings(JobFile, document, source=str(path)))


def derive_job(file: JobFile) -> Job:
    """The job of a file, its noise and its encoding derived, without its evaluation set and its first weights.

    Raises:
        RefusedError, JobError: no noise or encoding does what it asks.
    """
    return parse_settings(Job, _derived(file), source="job")


def resolve_job(file: JobFile, folder: Path, link: CoordinatorLink) -> ReadyJob:
    """The job as it is hashed and run; relative paths of the file start at `folder`.

    Raises:
        NotFoundError: the ontology version is not published.
        JobError: a concept, value or unit that the ontology does not have, or first weights of another model.
        InputError: the file of first weights is missing.
        MatchRefusal, DataError, MappingError: the evaluation set does not serve the job.
        RefusedError: no noise keeps the promised epsilon.
    """
    from lepton_kg.task import resolve_task
    from lepton_pool.models import architecture_of

    ontology = find_ontology(file.task.ontology, link)
    resolve_task(file.task, ontology)
    document = _derived(file)
    evaluation = initial = None
    if file.evaluation is not None:
        prepared = prepare_rows(file.task, folder / file.evaluation.mapping, folder / file.evaluation.source, ontology)
        evaluation = _to_safetensors(prepared)
        document["evaluation"] = {"digest": digest_of(evaluation), "rows": len(prepared.target)}
    if file.model.initial_weights is not None:
        built = architecture_of(parse_settings(Job, document, source="job"))
        initial = load_first_weights(folder / file.model.initial_weights, built)
        document["model"]["initial"] = digest_of(initial)
    return ReadyJob(parse_settings(Job, document, source="job"), evaluation, initial)


def load_first_weights(path: Path, architecture: Architecture) -> bytes:
    """The model's first weights in a safetensors file, as the one artifact that holds them.

    Raises:
        InputError: the file is missing.
        JobError: other tensors than the model's, or values that are not finite.
    """
    from lepton_pool.models import model_layout
    from lepton_pool.weights import decode_weights, encode_weights

    layout = model_layout(architecture)
    try:
        return encode_weights(layout, decode_weights(layout, read_bytes(path, "file of first weights")))
    except CodecError as error:
        raise JobError(
            f"the first weights are not this model's: {error.message}",
            where=f"model.initial_weights, {path}",
            expected=error.expected,
            got=error.got,
            hint="the file must hold the model's tensors by name and shape, float32 and finite",
            reason="BAD_FIRST_WEIGHTS",
        ) from None


def submit_job(ready: ReadyJob, link: CoordinatorLink) -> JobId:
    """Upload what the job names, hand the job in, and give its id."""
    for artifact in (ready.evaluation, ready.initial):
        if artifact is not None:
            link.upload(artifact)
    return link.submit(ready.job.canonical())


def warm_up(job_file: Path) -> None:
    """Load what resolving a job needs and derive its noise once, which the accountant remembers.

    A program that has to wait anyway does this meanwhile. Whatever is wrong is told when the job is resolved.
    """
    import lepton_kg.compiler  # noqa: F401 - takes a third of a second

    with contextlib.suppress(LeptonError):
        document = read_toml(job_file, "job file")
        _noise_multiplier(parse_settings(JobFile, document, source=str(job_file)))


def find_version(version: str, link: CoordinatorLink) -> str:
    """The hash of the published version: the one given, or that of the newest version of that label in use.

    Raises:
        NotFoundError: no published ontology bears the label.
    """
    return version if _HASH.fullmatch(version) else _newest_version(version, link)


def find_ontology(version: str, link: CoordinatorLink) -> Ontology:
    """The published version of that hash, or the newest of that label, checked against its hash.

    Raises:
        NotFoundError: there is none.
        OntologyError: what the coordinator sent is not that version.
    """
    from lepton_kg.ontology import load_canonical

    digest = find_version(version, link)
    return load_canonical(link.ontology(digest), Digest(digest), source=link.address)


def prepare_rows(task: Task, mapping_file: Path, source_file: Path, ontology: Ontology) -> PreparedData:
    """The rows of a source as the job's model sees them, by the same plan that owners use, whole.

    The job's split keeps owners' subjects out of training; these rows are all there to evaluate on.

    Raises:
        MatchRefusal: the mapping or the rows cannot serve the task.
        DataError, MappingError: a file that is missing or not as it says.
    """
    from lepton_kg.compiler import compile_plan
    from lepton_kg.mapping import parse_mapping
    from lepton_kg.source import read_columns

    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    plan = compile_plan(task.unsplit, mapping, ontology)
    source = mapping.source.in_file(source_file.name)
    return plan.execute(read_columns(source, plan.columns, source_file.parent))


def _derived(file: JobFile) -> dict[str, Any]:
    """The job's document with its noise, and with the encoding that serves its target."""
    document = file.document()
    document["privacy"]["noise_multiplier"] = _noise_multiplier(file)
    if file.aggregation.has_target:
        wanted = file.aggregation
        document["aggregation"] |= resolve_target(
            parse_settings(Job, document, source="job"),
            bytes_per_parameter=wanted.bytes_per_parameter,
            error=wanted.error,
            profile=wanted.profile if "profile" in wanted.model_fields_set else None,
        )
    return document


def _newest_version(label: str, link: CoordinatorLink) -> str:
    versions = sorted(link.ontologies(), key=lambda version: version.published)
    named = [version.digest for version in versions if version.label == label and not version.deprecated]
    gone = [version for version in versions if version.label == label and version.deprecated]
    if not named and gone:
        raise ConflictError(
            "every version of this label is deprecated",
            where=label,
            expected="a version in use",
            got=gone[-1].deprecation_reason,
            hint=f"use {gone[-1].replaced_by}"
            if gone[-1].replaced_by
            else "write a version's hash to use it all the same",
            reason="DEPRECATED",
        )
    if not named:
        raise NotFoundError(
            "no published ontology bears this label",
            where="task.ontology",
            expected=", ".join(sorted({version.label for version in versions if version.label})) or "a published label",
            got=label,
            hint="publish it with `lepton ontology publish FILE --label LABEL`, or write the version's hash",
        )
    return named[-1]


def _noise_multiplier(file: JobFile) -> float | None:
    if file.privacy.mode == "none":
        return None
    from lepton_core.privacy.plan import required_noise

    wanted = required_noise(file.privacy, file.training)
    written = file.privacy.noise_multiplier
    if written is not None and written < wanted:
        raise JobError(
            "the noise written in the job does not keep its epsilon",
            where="privacy.noise_multiplier",
            expected=f"at least {wanted:g}",
            got=f"{written:g}",
            hint="leave it out; it is derived",
        )
    return written if written is not None else wanted


def resolve_target(
    job: Job, *, bytes_per_parameter: float | None = None, error: float | None = None, profile: str | None = None
) -> dict[str, Any]:
    """The profile and kept fraction that serve a target, for a job that is otherwise complete.

    `profile` holds the choice to that one; it goes with `bytes_per_parameter` only.

    Raises:
        JobError: none does.
    """
    from lepton_compression.update import Numbers, plan_for_bytes, plan_for_error
    from lepton_pool.terms import derive_ring_plan, lane_groups

    # Which rounding a job has, how many members a sum and what beside it, does not depend on its profile.
    roomy = job.model_copy(update={"aggregation": job.aggregation.model_copy(update=_ROOMY)})
    whole, beside = derive_ring_plan(roomy), lane_groups(roomy)[1:]
    extra_bytes = sum(8 * group.words for group in beside)
    numbers = Numbers(whole.model_length, whole.update_norm, whole.members_max, whole.dithered, extra_bytes)
    try:
        if bytes_per_parameter is not None:
            only = job.aggregation.profile if profile is not None else None
            plan = plan_for_bytes(numbers, bytes_per_parameter, profile=only)
        else:
            plan = plan_for_error(numbers, error or 0.0)
    except CodecError as refused:
        raise JobError(
            refused.message, where=refused.where, expected=refused.expected, got=refused.got, reason="NO_SUCH_ENCODING"
        ) from None
    return {"profile": plan.profile, "kept_fraction": plan.kept_length / plan.model_length}


def _to_safetensors(prepared: PreparedData) -> bytes:
    from safetensors.numpy import save

    return save({"features": prepared.features, "target": prepared.target})
