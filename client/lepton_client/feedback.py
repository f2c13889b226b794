"""Error feedback at a member: what of its updates was not sent yet is added to the next one that is.

The residual belongs to one model version: it follows the round that made it, and counts in rounds on the next version
alone. It moves on only when its round has counted:

    an update is encoded             what it would leave is pending, durable, before a byte leaves
    RoundClosed, completed           pending is settled
    RoundClosed, anything else       pending is dropped; settled stays as it was
    a later round trains on          the next version: pending is settled, as every round of such a job has every
                                     member; any other: it is dropped
    the same round asks again        the words that are pending leave again; nothing is trained, nothing added twice
    the job is over                  both are deleted
"""

from __future__ import annotations

import contextlib
from collections.abc import Sized

from lepton_client.residuals import Kept, Mark, Residuals, Slot
from lepton_core.errors import LeptonError, RefusedError
from lepton_core.ids import JobId, MemberId, RoundNumber
from lepton_core.job import Job
from lepton_core.ports import Randomness
from lepton_core.ring import Words
from lepton_core.secagg.client_events import Train
from lepton_core.secagg.terms import Setup
from lepton_core.session import RoundOutcome
from lepton_pool.plain import encode_fed_back
from lepton_pool.steps import Learnt, encode_update, require_update
from lepton_pool.weighting import weight_of


class Feedback:
    """Updates as they leave, in every job; in those that feed back, with what earlier ones left out."""

    def __init__(self, member: MemberId, residuals: Residuals, randomness: Randomness) -> None:
        self._member = member
        self._residuals = residuals
        self._randomness = randomness

    def resume(self, job_id: JobId, train: Train) -> Words | None:
        """What this very round has sent before the process was restarted, to be sent again; None if nothing.

        A round that was left open is decided first, by the model that is trained on now.

        Raises:
            InputError, FaultError: the residual cannot be read or kept; nothing may be trained.
        """
        mark = self._residuals.mark(job_id, Slot.PENDING)
        if mark is None:
            return None
        if mark.sid == train.sid:
            return self._residuals.read(job_id, Slot.PENDING).words
        if train.model_version == mark.version + 1:
            self._residuals.settle(job_id)
        else:
            self._residuals.drop(job_id)
        return None

    def encode(self, job: Job, setup: Setup, train: Train, update: Learnt, rows: int) -> Words:
        """What a member learnt from so many rows, shape (model_length,), as its words, shape (terms.words,).

        Raises:
            CodecError: an update of another length, or with a value that is not finite.
            InputError, FaultError: as `resume`; nothing may be sent.
        """
        if not job.aggregation.feeds_back:
            return encode_update(
                job, update, rows, member=self._member, codec_seed=train.codec_seed, randomness=self._randomness
            )
        job_id = setup.job
        before = self._residuals.mark(job_id, Slot.SETTLED)
        follows = before is not None and before.version + 1 == train.model_version
        residual = self._residuals.read(job_id, Slot.SETTLED).residual if follows else None
        change, weight = require_update(update), weight_of(job, rows)
        sent = encode_fed_back(job, change, weight, self._randomness, residual=residual)
        mark = Mark(setup.round, train.model_version, train.sid)
        self._residuals.stage(job_id, Kept(mark, sent.words, sent.residual))
        return sent.words

    def close(self, job_id: JobId, number: RoundNumber, outcome: RoundOutcome) -> None:
        """The round is over; what cannot be kept now is decided when the next one asks."""
        with contextlib.suppress(LeptonError):
            mark = self._residuals.mark(job_id, Slot.PENDING)
            if mark is None or mark.round != number:
                return
            if outcome is RoundOutcome.COMPLETED:
                self._residuals.settle(job_id)
            else:
                self._residuals.drop(job_id)

    def forget(self, job_id: JobId) -> None:
        """The job is over; what cannot be deleted now is when the daemon starts again."""
        with contextlib.suppress(LeptonError):
            self._residuals.forget(job_id)


def require_everybody(job: Job, listed: Sized, admitted: Sized) -> None:
    """Refuse a job that feeds back unless each of its rounds has all members: those listed, who are all admitted.

    Raises:
        RefusedError: PARTIAL_PARTICIPATION.
    """
    asked = job.aggregation
    if asked.feeds_back and not asked.min_cohort == asked.max_cohort == len(listed) == len(admitted):
        raise RefusedError(
            "error feedback needs every member in every round",
            where="job.aggregation.max_cohort",
            expected=f"min_cohort and max_cohort of {len(listed)}, all members on the list, each an accepted peer",
            got=f"{asked.min_cohort} to {asked.max_cohort}, of {len(admitted)} accepted peers",
            hint="set both to the number of members, or take a codec that does not feed back, such as eden",
            reason="PARTIAL_PARTICIPATION",
        )
