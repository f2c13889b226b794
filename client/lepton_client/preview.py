"""What would happen if a job were asked of this owner: what would leave, at which epsilon, to whom, and whether at all.

Asks the same consent that the daemon asks, on a copy of what it knows; nothing is charged, written or sent. What only
the data can tell, whether the mapping serves the job, is not looked at: `lepton mapping check` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lepton_client.anchoring import require_whole
from lepton_client.budgets import require_budgets
from lepton_client.consent import Consent
from lepton_client.exported import verify_chain
from lepton_client.home import Home, load_home_policy, load_identity, load_settings
from lepton_client.ledger import CopiedLedger
from lepton_client.membership import load_accepted
from lepton_client.pausing import paused
from lepton_client.policy import Policy, most_unpublished
from lepton_client.records import AcceptedJob, MemoryRecords, read_jobs
from lepton_core.errors import BudgetRefusal, LeptonError, PolicyRefusal
from lepton_core.identity import fingerprint
from lepton_core.ids import JobId
from lepton_core.job import Job
from lepton_core.membership import SignedList
from lepton_core.ports import Clock
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.ledger import Entry, spent_events
from lepton_core.privacy.units import UNIT_RECORD, UNIT_SUBJECT, Unit, event_for
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.promise import epsilon_if_all_collude, rounds_event
from lepton_pool.terms import expected_encoding
from lepton_protos.channel import load_endpoint

_PREVIEW = JobId("preview")


@dataclass(frozen=True)
class Preview:
    """One screen for the person who answers for the data."""

    #: The error with all its words, for this site only; None if policy, peers and budget would let the job in.
    refusal: dict[str, str] | None
    job: str
    purpose: str
    population: str
    concepts: tuple[str, ...]
    mode: str
    unit: str
    #: Upper bounds at `delta`: what the job costs its unit alone. And below, for the unit that has a budget, a subject
    #: in jobs that protect subjects and else a record: what is spent, and what would be with all of the job; None where
    #: there is no bound, as records were charged and the job protects subjects.
    epsilon_of_job: float
    #: What the job costs alone, at its own delta, if all other members collude with the coordinator.
    epsilon_if_all_collude: float
    #: Members whose noise keeps the promise, and colluders among them; 0 and 0 where this owner's own noise is whole.
    noise_contributors: int
    colluders_tolerated: int
    epsilon_spent: float | None
    epsilon_after: float | None
    epsilon_budget: float
    delta: float
    #: What would be spent for one record with all of the job, and of which budget; the same as above for such jobs.
    record_epsilon_after: float
    record_epsilon_budget: float
    rounds: int
    #: Rounds that may be charged beside them whose sums are never published, repeated ones or such as a process died
    #: in; and what the job costs alone with all of them. The budget holds in any case.
    most_unpublished: int
    epsilon_at_most: float
    #: Masked words, or in a job without masks the update itself, that leave in a round.
    payload_bytes: int
    masked: bool
    encoding: str
    coordinator: str
    #: (owner, fingerprint) of everybody on the accepted list.
    peers: tuple[tuple[str, str], ...]
    least_cohort: int


def preview(folder: Path, job: Job, clock: Clock) -> Preview:
    """What the job would do here.

    Raises:
        InputError, SettingsError: the folder is not a client's, or a file in it is wrong.
        ConflictError, IdentityError: the ledger's chain does not hold.
        CodecError, JobError: the job's model or encoding cannot be built.
    """
    home = Home(folder)
    policy, accepted = load_home_policy(home, load_settings(home)), load_accepted(home)
    entries = verify_chain(home).entries
    encoding = expected_encoding(job)
    population = next((known for known in policy.populations if known.name == job.population), None)
    delta = population.delta if population is not None else job.privacy.delta
    unit = UNIT_SUBJECT if job.privacy.unit == UNIT_SUBJECT else UNIT_RECORD
    spent, after = _spent(entries, job, unit, delta)
    _, record_after = _spent(entries, job, UNIT_RECORD, delta)
    limits = {} if population is None else population.budgets
    unpublished = most_unpublished(policy, job)
    parameters = model_layout(architecture_of(job)).length
    return Preview(
        refusal=_refusal(home, job, policy=policy, accepted=accepted, entries=entries, clock=clock),
        job=job.name,
        purpose=job.purpose,
        population=job.population,
        concepts=job.task.concepts,
        mode=job.privacy.mode,
        unit=job.privacy.unit,
        epsilon_of_job=_alone(job, job.training.rounds, delta),
        epsilon_if_all_collude=epsilon_if_all_collude(job, job.training.rounds),
        noise_contributors=job.aggregation.min_cohort if job.privacy.distributed else 0,
        colluders_tolerated=job.privacy.colluders,
        epsilon_spent=spent,
        epsilon_after=after,
        epsilon_budget=limits.get(unit, 0.0),
        delta=delta,
        record_epsilon_after=record_after or 0.0,
        record_epsilon_budget=limits.get(UNIT_RECORD, 0.0),
        rounds=job.training.rounds,
        most_unpublished=unpublished,
        epsilon_at_most=_alone(job, job.training.rounds + unpublished, delta),
        payload_bytes=round(encoding.bits_per_parameter / 8 * parameters),
        masked=job.aggregation.secure,
        encoding=encoding.codec,
        coordinator=load_endpoint(home.tls).address if home.tls.is_dir() else "not enrolled",
        peers=_peers(policy, accepted),
        least_cohort=max(job.aggregation.min_cohort, policy.peers.minimum_cohort),
    )


def _alone(job: Job, rounds: int, delta: float) -> float:
    event = rounds_event(job, rounds)
    return 0.0 if event is None else epsilon_of([event], delta)


def _spent(entries: tuple[Entry, ...], job: Job, unit: Unit, delta: float) -> tuple[float, float] | tuple[None, None]:
    """Epsilon of what is spent for a unit, and with all of the job; None if there is no bound."""
    event = rounds_event(job, job.training.rounds)
    try:
        spent = spent_events(entries, job.population, unit=unit)
        asked = [event_for(unit, job.privacy.unit, event)] if event is not None else []
    except BudgetRefusal:
        return None, None
    return epsilon_of(spent, delta), epsilon_of([*spent, *asked], delta)


def _refusal(
    home: Home,
    job: Job,
    *,
    policy: Policy,
    accepted: SignedList | None,
    entries: tuple[Entry, ...],
    clock: Clock,
) -> dict[str, str] | None:
    """Why the daemon would say no, from everything but the data; with pinned members their list is not known yet."""
    identity = load_identity(home)
    try:
        if paused(home) is not None:
            raise PolicyRefusal("the client is paused", hint="lepton client resume", reason="PAUSED")
        if accepted is None and policy.peers.members is None:
            raise PolicyRefusal(
                "no membership list has been accepted", hint="lepton client accept", reason="NO_ACCEPTED_LIST"
            )
        copy = CopiedLedger(identity, clock, entries)
        require_whole(home.anchor, entries, identity.public)
        consent = Consent(
            identity=identity,
            policy=lambda: policy,
            accepted_list=lambda: accepted,
            ledger=copy,
            records=_records(read_jobs(home.jobs)),
            clock=clock,
        )
        if accepted is None:
            allowed, event = consent.population(job), rounds_event(job, job.training.rounds)
            if event is not None:
                require_budgets(copy, allowed, [(job.privacy.unit, event)])
        else:
            consent.require_job(_PREVIEW, job, accepted)
    except LeptonError as error:
        return {name: str(value) for name, value in error.as_dict().items()}
    return None


def _records(known: Mapping[JobId, AcceptedJob]) -> MemoryRecords:
    records = MemoryRecords()
    for job_id, accepted in known.items():
        records.accept(accepted)
        if accepted.closed:
            records.close_job(job_id, accepted.closed)
    return records


def _peers(policy: Policy, accepted: SignedList | None) -> tuple[tuple[str, str], ...]:
    if accepted is not None:
        listed = accepted.members
        return tuple((listed.owner_of(member) or "", fingerprint(key)) for member, key in listed.admitted().items())
    return tuple(("pinned", fingerprint(bytes.fromhex(identity))) for identity in policy.peers.members or ())
