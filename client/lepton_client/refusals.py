"""What of an owner's error may leave the site: stable words, a policy key, a concept that the job itself named.

And what was refused lately, so that a coordinator that asks again gets the same answer.
"""

from __future__ import annotations

from dataclasses import replace

from lepton_client.effects import SendReport
from lepton_core.errors import LeptonError, PolicyRefusal
from lepton_core.ids import Digest, JobId, RoundNumber
from lepton_core.job import Job
from lepton_core.session import Refusal, RoundRefusal, refusal_of

#: Refusals remembered; an older job is looked at anew.
_MOST_REFUSALS = 256


class Refusals:
    """The newest refusals given, by job, with the digest of the request they answer."""

    def __init__(self) -> None:
        self._of: dict[JobId, tuple[Digest, Refusal]] = {}

    def find(self, job: JobId, asked: Digest) -> Refusal | None:
        """What this very request was refused with."""
        known, refusal = self._of.get(job, (None, None))
        return refusal if known == asked else None

    def keep(self, job: JobId, asked: Digest, refusal: Refusal, error: LeptonError) -> None:
        """Remember it, unless the owner or time can change what led to it: that is looked at anew."""
        if error.retryable or isinstance(error, PolicyRefusal) or error.reason.startswith("MEMBERSHIP_"):
            return
        self._of.pop(job, None)
        self._of[job] = asked, refusal
        while len(self._of) > _MOST_REFUSALS:
            del self._of[next(iter(self._of))]

    def forget(self, job: JobId) -> None:
        """The job was accepted, or is over."""
        self._of.pop(job, None)


def refuse_round(job_id: JobId, number: RoundNumber, refusal: Refusal) -> SendReport:
    """Tells the coordinator that this owner is not in the round (any more)."""
    return SendReport(RoundRefusal(job_id, number, refusal))


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
    return {*job.task.concepts, *job.task.values}
