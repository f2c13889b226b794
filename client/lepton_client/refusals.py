"""What of an owner's error may leave the site: stable words, a policy key, a concept that the job itself named."""

from __future__ import annotations

from dataclasses import replace

from lepton_core.errors import LeptonError
from lepton_core.job import Job
from lepton_core.session import Refusal, refusal_of


def leaving(error: LeptonError, job: Job | None) -> Refusal:
    """The refusal that tells the coordinator of this error.

    Guarantees: besides what `refusal_of` holds back, an IRI leaves only if the job named it, so that no refusal tells
    what else is in the owner's mapping.
    """
    refusal = refusal_of(error)
    if "://" in refusal.subject and (job is None or refusal.subject not in _named(job)):
        return replace(refusal, subject="")
    return refusal


def _named(job: Job) -> set[str]:
    task = job.task
    names = {feature.concept for feature in task.features} | {task.target.concept, *task.target.values}
    return {task.iri(name) for name in names}
