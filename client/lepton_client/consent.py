"""What one owner consents to, and what it is charged: policy, peers, the job's own promise, and the budget.

No state of its own; it asks policy, ledger and records, and raises what they refuse.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lepton_client import peers
from lepton_client.budgets import require_budgets
from lepton_client.feedback import require_everybody
from lepton_client.ledger import Ledger, derive_run
from lepton_client.phases import CurrentRound
from lepton_client.policy import Policy, Population, admit, most_unpublished
from lepton_client.records import AcceptedJob, Records
from lepton_core.errors import ConflictError, LeptonError, PeerViolation, RefusedError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId, ModelVersion, RoundNumber
from lepton_core.job import Job
from lepton_core.membership import SignedList
from lepton_core.ports import Clock
from lepton_core.privacy.ledger import ADD_OR_REMOVE, Charge
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.terms import Setup
from lepton_core.session import RoundOutcome
from lepton_pool.promise import promised_epsilon, round_event, rounds_event
from lepton_pool.terms import derive_terms

#: Rounds that are reserved at a time, so that the durable charge before noise costs no commit in most rounds. What a
#: crash can cost is one round, whatever this is; what an owner sees charged before it happened is at most so many.
BLOCK_ROUNDS = 20


class Consent:
    """The owner's last word, asked again whenever it matters: policy and accepted list are looked up each time."""

    def __init__(
        self,
        *,
        identity: IdentityKey,
        policy: Callable[[], Policy],
        accepted_list: Callable[[], SignedList | None],
        ledger: Ledger,
        records: Records,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._accepted_list = accepted_list
        self._ledger = ledger
        self._records = records
        self._clock = clock

    def population(self, job: Job) -> Population:
        """The population the job may use.

        Raises:
            PolicyRefusal: it may use none.
        """
        return admit(self._policy(), job, self._clock.now())

    def admission(self, membership: SignedList) -> Admission:
        """Who may be in a round of a job that was matched under this list.

        Raises:
            IdentityError, PolicyRefusal: the list does not hold (any more).
        """
        return peers.derive_admission(self._policy().peers, membership, self._accepted_list(), self._clock.now())

    def require_job(self, job_id: JobId, job: Job, membership: SignedList) -> Population:
        """The population of a job that everything but the data allows, on the worst case of all its rounds.

        The rounds that other accepted jobs still have before them count as well.

        Raises:
            RefusedError, IdentityError, InputError: what forbids it.
        """
        population = self.population(job)
        peers.require_accepted(self._policy().peers, membership, self._accepted_list(), self._clock.now())
        admission = self.admission(membership)
        peers.require_listed(admission, self._identity.member)
        require_everybody(job, membership.members.admitted(), admission.members)
        derive_terms(job, membership.members.digest())
        promised = promised_epsilon(job)
        if not promised <= job.privacy.epsilon:
            raise RefusedError(
                "the job's noise does not keep its promise",
                where="privacy.noise_multiplier",
                expected=f"epsilon at most {job.privacy.epsilon:g}",
                got=f"{promised:.4g}",
                hint="submit the job again, so that its noise is derived anew",
                reason="NOISE_TOO_LOW",
            )
        open_jobs = {known.job_id: known.job for known in self._records.jobs().values() if not known.closed}
        open_jobs[job_id] = job
        remaining = [
            (
                planned.privacy.unit,
                rounds_event(
                    planned, planned.training.rounds - self._ledger.charged_rounds(derive_run(other, planned))
                ),
            )
            for other, planned in open_jobs.items()
            if planned.population == population.name
        ]
        asked = [(unit, event) for unit, event in remaining if event is not None]
        if asked:
            require_budgets(self._ledger, population, asked)
        return population

    def require_round(self, setup: Setup, accepted: AcceptedJob) -> tuple[Population, Admission]:
        """What this round may use and who may be in it, if its terms are the accepted job's and all still allow it.

        Raises:
            PeerViolation: other terms than this owner derives.
            RefusedError: PARTIAL_PARTICIPATION.
            PolicyRefusal, IdentityError: as `population` and `admission`.
        """
        population = self.population(accepted.job)
        admission = self.admission(accepted.membership)
        require_everybody(accepted.job, accepted.members.admitted(), admission.members)
        if setup.terms != derive_terms(accepted.job, accepted.members.digest()):
            raise PeerViolation(
                "the round's terms are not those of the accepted job",
                where="coordinator",
                expected="the terms that the job and the membership list give",
                reason="TERMS",
            )
        return population, admission

    def require_model(self, accepted: AcceptedJob, version: ModelVersion, model: Digest) -> None:
        """Refuse a model that was answered on under another version number, and more versions than the job has rounds.

        The coordinator says which version a model is; without this it could ask for as many sums as it likes in a job
        that costs no budget, or for two on one model by giving it another number.

        Raises:
            PeerViolation: TOO_MANY_VERSIONS or ALREADY_ANSWERED.
        """
        rounds = accepted.job.training.rounds
        if version >= rounds:
            raise PeerViolation(
                "a model version that the job's plan does not have",
                where="coordinator",
                expected=f"below {rounds}, the job's rounds",
                got=str(version),
                reason="TOO_MANY_VERSIONS",
            )
        if self._records.has_answered_on(accepted.job_id, model):
            raise PeerViolation(
                "a model that was answered on under another version number",
                where="coordinator",
                expected="a model that this owner has not answered on",
                got=f"version {version}",
                reason="ALREADY_ANSWERED",
            )

    def reserve(self, accepted: AcceptedJob, number: RoundNumber, population: Population) -> Charge | None:
        """The durable charge of a round that `require_round` allows, if the budget covers the whole rest of the job.

        None if it is free.

        Raises:
            RefusedError, ConflictError, FaultError: nothing may be trained.
        """
        job = accepted.job
        event = round_event(job)
        if event is None:
            return None
        run = derive_run(accepted.job_id, job)
        self._require_published(job, run)
        charged = self._ledger.charged_rounds(run)
        planned = job.training.rounds - charged
        if planned < 1 and self._ledger.reserved_rounds(run) < 1:
            planned = 1  # in place of one that came to nothing
        rest = rounds_event(job, planned)
        require_budgets(self._ledger, population, [] if rest is None else [(job.privacy.unit, rest)])
        charge = Charge(
            population=population.name,
            unit=job.privacy.unit,
            relation=ADD_OR_REMOVE,
            job=run,
            round=number,
            event=event,
            delta=job.privacy.delta,
            plan=accepted.plan,
            content=accepted.content,
        )
        self._ledger.reserve(charge, rounds=max(1, min(BLOCK_ROUNDS, planned)))
        return charge

    def _require_published(self, job: Job, run: Digest) -> None:
        """Refuse to go on with a job too many of whose rounds were charged and came to nothing.

        A coordinator could burn an owner's budget by aborting rounds after the uploads.

        Raises:
            RefusedError: TOO_MANY_UNPUBLISHED.
        """
        lost, most = self._ledger.unpublished_rounds(run), most_unpublished(self._policy(), job)
        if lost > 0 and lost >= most:
            raise RefusedError(
                "too many of the job's rounds were charged and their sums never published",
                where="policy.jobs.max_unreleased_fraction",
                expected=f"at most {most} of {job.training.rounds} rounds",
                got=str(lost),
                hint="ask the coordinator's operator why rounds are aborted after training; submit a new job",
                reason="TOO_MANY_UNPUBLISHED",
            )

    def close(self, job_id: JobId) -> None:
        """The job is over, and nothing of it under way: give back what provably never began.

        What cannot be made durable now stays charged until the next start.
        """
        accepted = self._records.jobs().get(job_id)
        if accepted is not None:
            with contextlib.suppress(LeptonError):
                self._ledger.release(derive_run(job_id, accepted.job))

    def settle(self) -> None:
        """After a start: close what was over when the last process died."""
        for job_id, accepted in self._records.jobs().items():
            if accepted.closed:
                self.close(job_id)

    def note_closed(self, job_id: JobId, current: CurrentRound | None, outcome: RoundOutcome) -> None:
        """A round is over: count it as published if it was, with this owner's part in its sum."""
        if outcome is RoundOutcome.COMPLETED and current is not None and current.is_counted:
            self._ledger.publish(derive_run(job_id, self._records.jobs()[job_id].job), current.setup.round)

    def release(self, job: Job, charge: Charge | None) -> None:
        """The last word before bytes leave: what the owner has forbidden since training began stays; None is free.

        Raises:
            PolicyRefusal, ConflictError, FaultError: no byte may leave.
        """
        self.population(job)
        if charge is not None:
            self._ledger.spend(charge)


def require_same_job(known: AcceptedJob, job: Job) -> None:
    """Refuse another job under the id of an accepted one, and one that is over.

    Raises:
        PeerViolation: JOB_CHANGED.
        ConflictError: JOB_CLOSED.
    """
    if known.job != job:
        raise PeerViolation("another job under an accepted job's id", where="coordinator", reason="JOB_CHANGED")
    require_open(known, known.job_id)


def require_open(accepted: AcceptedJob | None, job_id: JobId) -> AcceptedJob:
    """The job, if this owner accepted it and it is not over.

    Raises:
        ConflictError: UNKNOWN_JOB or JOB_CLOSED.
    """
    if accepted is None:
        raise ConflictError("a round of a job that was not accepted", where=f"job {job_id}", reason="UNKNOWN_JOB")
    if accepted.closed:
        raise ConflictError("the job is over", where=f"job {job_id}", got=accepted.closed, reason="JOB_CLOSED")
    return accepted
