"""What of an owner's error may leave the site: stable words, the policy key, a concept the job itself named."""

from __future__ import annotations

import re

from lepton_core.errors import BudgetRefusal, IdentityError, LeptonError, MatchRefusal, PeerViolation, PolicyRefusal
from lepton_core.job import Job
from lepton_core.session import Refusal, refusal_of

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


def leaving(error: LeptonError, job: Job | None) -> Refusal:
    """The refusal that tells the coordinator of this error.

    Guarantees: nothing of `message`, `expected`, `got` or `hint` leaves; `where` leaves only if it is a policy key,
    a concept named in the job, or a name the coordinator knows, so no path and no column name does.
    """
    refusal = refusal_of(error)
    reason = refusal.reason if _REASON.fullmatch(refusal.reason) else "REFUSED"
    return Refusal(code=refusal.code, reason=reason, subject=refusal.subject if _public(error, job) else "")


def _public(error: LeptonError, job: Job | None) -> bool:
    match error:
        case PolicyRefusal() | BudgetRefusal() | PeerViolation() | IdentityError():
            return True
        case MatchRefusal():
            return job is not None and error.where in _concepts(job)
        case _:
            return False


def _concepts(job: Job) -> set[str]:
    task = job.task
    named = {feature.concept for feature in task.features} | {task.target.concept, task.target.positive}
    return named | {task.iri(name) for name in named}
