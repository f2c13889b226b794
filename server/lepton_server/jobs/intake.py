"""From a submitted job to what never changes about it: whom to ask, under which terms, with which secret."""

from __future__ import annotations

from lepton_core.errors import JobError, NotFoundError
from lepton_core.ids import Digest, JobId, MemberId, OwnerName
from lepton_core.job import Job
from lepton_core.membership import MembershipList, SignedList
from lepton_core.ports import Randomness
from lepton_pool.terms import derive_terms
from lepton_server.jobs.phases import Facts, Peer
from lepton_server.store.port import Artifacts, Transaction


def draw_facts(
    tx: Transaction, artifacts: Artifacts, job: Job, researcher: OwnerName, *, now: float, randomness: Randomness
) -> Facts:
    """A new job's facts, with its id and secret drawn.

    Raises:
        JobError: no membership list, or a federation smaller than the job's minimum cohort, or one of
            which some would be left out of a job that feeds back.
        NotFoundError: an artifact that the job names was not uploaded.
        CodecError: the job's numbers allow no encoding.
    """
    newest = tx.newest_membership()
    if newest is None:
        raise JobError(
            "no membership list is published",
            where="job",
            hint="sign one with `lepton federation sign` and publish it with `lepton federation publish`",
        )
    signed = newest[2]
    listed = SignedList.from_json(signed).members
    peers = _enrolled_peers(tx, listed)
    if len(peers) < job.aggregation.min_cohort:
        raise JobError(
            "the federation is smaller than the job's minimum cohort",
            where="aggregation.min_cohort",
            expected=f"at least {job.aggregation.min_cohort} enrolled owners on the membership list",
            got=str(len(peers)),
        )
    if job.aggregation.feeds_back and not job.aggregation.max_cohort == len(peers) == len(listed.admitted()):
        raise JobError(
            "error feedback needs every member in every round",
            where="aggregation.max_cohort",
            expected=f"min_cohort and max_cohort of {len(listed.admitted())}, all members on the list, each enrolled",
            got=f"{job.aggregation.max_cohort}, and {len(peers)} enrolled",
            hint="set both to the number of members, or take a codec that does not feed back, such as eden",
        )
    if job.evaluation is not None and not artifacts.claim(Digest(job.evaluation.digest)):
        raise NotFoundError("the evaluation set was not uploaded", where=f"artifact {job.evaluation.digest}")
    if job.model.initial is not None and not artifacts.claim(Digest(job.model.initial)):
        raise NotFoundError("the first weights were not uploaded", where=f"artifact {job.model.initial}")
    terms = derive_terms(job, listed.digest())
    return Facts(
        job_id=_new_id(tx, job, randomness),
        job=job,
        terms=terms,
        membership=signed,
        peers=peers,
        secret=randomness.token(32),
        researcher=researcher,
        submitted=now,
        bytes_per_parameter=terms.payload_bytes / terms.model_length,
    )


def _enrolled_peers(tx: Transaction, listed: MembershipList) -> dict[MemberId, Peer]:
    peers: dict[MemberId, Peer] = {}
    for member, identity in listed.admitted().items():
        party = tx.party_of_member(member)
        if party is not None and not party.revoked and party.identity == identity:
            peers[member] = Peer(party.name, identity)
    return peers


def _new_id(tx: Transaction, job: Job, randomness: Randomness) -> JobId:
    """The job's name with a random suffix that no job has had: an id names one job for ever."""
    while True:
        candidate = JobId(f"{job.name[:54].rstrip('-')}-{randomness.token(4).hex()}")
        if tx.job(candidate) is None:
            return candidate
