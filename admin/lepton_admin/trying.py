"""Trying a job on made-up records, before any site is asked and any budget is spent."""

from __future__ import annotations

import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_admin.files import read_toml
from lepton_admin.mappings import load_ontology
from lepton_admin.submission import derive_job
from lepton_client.train.rows import Rows
from lepton_client.train.together import train_together
from lepton_core.ids import DIGEST_PATTERN
from lepton_core.job import Job, JobFile
from lepton_core.settings import parse_settings
from lepton_kg.compiler import compile_plan
from lepton_kg.ontology import Ontology
from lepton_kg.synthetic import draw_site
from lepton_kg.task import resolve_task
from lepton_pool.evaluate import evaluate
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.terms import expected_encoding

#: Of all made-up sites, one is kept to evaluate on.
_HELD_OUT_ROWS = 1_000


@dataclass(frozen=True)
class Reason:
    """Something that a site would say no to."""

    #: As in a refusal.
    code: str
    #: The concept or policy key concerned.
    subject: str
    #: When a site refuses for it.
    when: str


@dataclass(frozen=True)
class Trial:
    """What came of a job on made-up records."""

    job: str
    sites: int
    rows_a_site: int
    rounds: int
    #: On made-up records of no site: they say that the job works, not how good its model will be.
    accuracy: float
    auc: float
    #: What guessing the most frequent class would reach.
    accuracy_of_guessing: float
    #: (rows, numbers a row) that the model sees at one site.
    features: tuple[int, int]
    model_parameters: int
    tensors: tuple[str, ...]
    upload_bytes_a_round: int
    seconds: float
    seconds_a_round: float
    #: Largest memory of this process; one site's training needs about this without the other sites' rows.
    memory_mib: int
    epsilon: float
    delta: float
    #: What sites would be refused for, or would refuse; in the order in which a site asks.
    reasons: tuple[Reason, ...]


def try_job(
    job_file: Path, ontology_file: Path, format: str, *, sites: int | None, rows: int, rounds: int | None, seed: int
) -> Trial:
    """The job, trained by as many made-up sites as its smallest cohort, or as `sites`.

    Raises:
        InputError, SettingsError: a file that is no job.
        JobError, OntologyError: the task has no meaning in the ontology, or the model cannot be built.
        RefusedError: no noise keeps the promised epsilon.
    """
    ontology = load_ontology(ontology_file, format)
    job = _job_of(job_file, ontology, rounds)
    count = max(job.aggregation.min_cohort, 3) if sites is None else sites
    start = time.perf_counter()
    parts = [_rows(job, ontology, rows, site=site, seed=seed) for site in range(count)]
    held_out = _rows(job, ontology, _HELD_OUT_ROWS, site=count, seed=seed)
    trained = time.perf_counter()
    model = train_together(job, parts, [rows] * count)
    ended = time.perf_counter()
    architecture = architecture_of(job)
    metrics = evaluate(architecture, model, held_out.features, held_out.target)
    layout = model_layout(architecture)
    encoding = expected_encoding(job)
    return Trial(
        job=job.name,
        sites=count,
        rows_a_site=rows,
        rounds=job.training.rounds,
        accuracy=metrics.accuracy,
        auc=metrics.auc if metrics.auc is not None else -1.0,
        accuracy_of_guessing=float(np.bincount(held_out.target.astype(int)).max() / len(held_out.target)),
        features=(len(parts[0].target), job.task.width),
        model_parameters=layout.length,
        tensors=tuple(f"{place.name} {'x'.join(str(size) for size in place.shape)}" for place in layout.places),
        upload_bytes_a_round=round(encoding.bits_per_parameter / 8 * layout.length),
        seconds=ended - start,
        seconds_a_round=(ended - trained) / job.training.rounds,
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        epsilon=job.privacy.epsilon if job.privacy.mode != "none" else 0.0,
        delta=job.privacy.delta,
        reasons=reasons_of(job, ontology),
    )


def reasons_of(job: Job, ontology: Ontology) -> tuple[Reason, ...]:
    """What a site would say no to: its policy first, then its mapping and its data."""
    allowed = [
        Reason("PURPOSE", "policy.jobs.purposes", f"its policy does not allow {job.purpose!r}"),
        Reason("MODEL", "policy.jobs.models", f"its policy does not allow {job.model.kind!r}"),
        Reason("ROUNDS", "policy.jobs.max_rounds", f"its policy allows fewer than {job.training.rounds} rounds"),
        Reason("COHORT", "policy.peers.minimum_cohort", f"it wants sums of more than {job.aggregation.min_cohort}"),
        Reason("POPULATION", "policy.populations", f"it has no population {job.population!r}"),
    ]
    key = f"policy.populations.{job.population}"
    if job.privacy.mode == "none":
        allowed.append(Reason("UNPROTECTED", "policy.jobs.allow_unprotected", "it does not allow jobs without privacy"))
    else:
        allowed.append(Reason("MODE", f"{key}.modes", f"it does not allow {job.privacy.mode!r}"))
        allowed.append(Reason("EPSILON", f"{key}.epsilon", f"less than epsilon {job.privacy.epsilon:g} is left"))
    if not job.aggregation.secure:
        allowed.append(Reason("PLAIN_UPDATES", "policy.jobs.allow_plain_updates", "it does not allow bare updates"))
    resolved = resolve_task(job.task, ontology)
    found = [Reason("CONCEPT", iri, "its policy does not allow the concept") for iri in job.task.concepts]
    needed = [feature.concept for feature in resolved.features if feature.required]
    for concept in (*needed, resolved.target.concept, *(one.concept for one in resolved.filters)):
        found.append(Reason("MISSING_CONCEPT", concept.iri, f"no approved column is {concept.label}, or narrower"))
        if concept.unit is not None:
            found.append(Reason("UNIT_MISMATCH", concept.iri, f"its unit does not convert to {concept.unit}"))
        if concept.value_set:
            found.append(Reason("UNKNOWN_VALUE", concept.iri, "a code is of no value of the value set"))
    if job.task.split is not None:
        found.append(Reason("NO_SUBJECT", "", "its mapping does not say whose record a row is"))
    found.append(Reason("VIOLATIONS", "", "more than a fifth of its rows break ranges, codes or required values"))
    return (*allowed, *found)


def _job_of(job_file: Path, ontology: Ontology, rounds: int | None) -> Job:
    document: dict[str, Any] = read_toml(job_file, "job file")
    task = document.get("task")
    if isinstance(task, dict) and not _is_digest(task.get("ontology")):
        # A label is resolved by the coordinator, which is not asked here.
        task["ontology"] = ontology.digest
    if rounds is not None:
        document.setdefault("training", {})["rounds"] = rounds
    file = parse_settings(JobFile, document, source=str(job_file))
    resolve_task(file.task, ontology)
    return derive_job(file)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(DIGEST_PATTERN, value) is not None


def _rows(job: Job, ontology: Ontology, rows: int, *, site: int, seed: int) -> Rows:
    made = draw_site(job.task, ontology, rows, site=site, seed=seed)
    prepared = compile_plan(job.task, made.mapping, ontology).execute(made.frame)
    return Rows(prepared.features, prepared.target)
