"""Owners of a small federation in memory, and a coordinator that drives a round by the real machine."""

from __future__ import annotations

import numpy as np

from lepton_client.effects import Effect, Match, SendReport, Train, Upload
from lepton_client.ledger import MemoryLedger
from lepton_client.participant import Participant
from lepton_client.policy import Policy
from lepton_client.records import MemoryRecords
from lepton_client.residuals import MemoryResiduals
from lepton_compression.update import decode_sum, derive_dither
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.job import Job
from lepton_core.membership import ListedMember, MembershipList, SignedList, sign
from lepton_core.ring import unpack
from lepton_core.secagg import server
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.payload import parse_payload
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.simulate import event_of
from lepton_core.secagg.terms import Setup, commit_nonce
from lepton_core.secagg.unmask import sum_words, unmask
from lepton_core.session import (
    MatchAnswer,
    MatchRequest,
    RoundCommand,
    RoundInvite,
    RoundRefusal,
    RoundReport,
)
from lepton_pool.terms import derive_ring_plan, derive_terms
from tests.protocol.seeded import SeededRandomness, make_identities

NOW = 1_800_000_000.0
VOCABULARY = "https://example.org/voc#"
JOB_ID = JobId("job-1")
PLAN = Digest("a" * 64)


def model_digest(version: int) -> bytes:
    return version.to_bytes(32, "big")


class FakeClock:
    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


def make_job(**changes) -> Job:
    """A small private job; `changes` are merged section by section."""
    document = {
        "name": "small",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": VOCABULARY,
            "features": [{"concept": name} for name in ("radius", "texture", "area")],
            "target": {"concept": "diagnosis", "positive": "malignant"},
        },
        "model": {"kind": "logistic"},
        "training": {"rounds": 3, "local_steps": 2},
        "privacy": {"noise_multiplier": 4.0, "epsilon": 4.0},
        "aggregation": {"min_cohort": 3, "max_cohort": 8, "step_deadline_s": 10.0},
    }
    for key, value in changes.items():
        document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
    return Job.model_validate(document)


def make_distributed_job(mode: str = "record-distributed", **changes) -> Job:
    """A small job whose noise is whole in the sum only; `changes` as in `make_job`."""
    record = mode == "record-distributed"
    whole = {
        "training": {"batching": "all", "expected_rows": 100, "local_steps": 5} if record else {},
        "privacy": {"mode": mode, "unit": "record" if record else "member", "delta": 1e-4},
        "aggregation": {"min_cohort": 4} if record else {"min_cohort": 100, "max_cohort": 120},
    }
    for key, value in changes.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    return make_job(**whole)


def policy_document(federation: IdentityKey | None = None) -> dict:
    return {
        "peers": {"federation_key": federation.public.hex() if federation else "f" * 64, "minimum_cohort": 3},
        "populations": [
            {"name": "patients", "mapping": "mapping.yaml", "declared_rows": 100, "epsilon": 8.0, "delta": 1e-3}
        ],
        "jobs": {
            "purposes": ["research"],
            "concepts": [VOCABULARY + "*"],
            "models": ["logistic"],
            "expires": "2030-01-01",
            "max_rounds": 50,
        },
    }


def make_policy(federation: IdentityKey | None = None, **changes) -> Policy:
    document = policy_document(federation)
    for key, value in changes.items():
        document[key] = {**document[key], **value} if isinstance(value, dict) else value
    return Policy.model_validate(document)


def make_list(identities, federation: IdentityKey, *, version: int = 1, **changes) -> SignedList:
    members = tuple(
        ListedMember(owner=f"owner-{index}", identity=key.public.hex()) for index, key in enumerate(identities)
    )
    fields = {"federation": "fed", "version": version, "issued": 0, "expires": 2_000_000_000, "members": members}
    return sign(MembershipList(**(fields | changes)), federation)


class Owner:
    """One participant with ports in memory; `restart` makes a new process over what was durable."""

    def __init__(self, identity: IdentityKey, policy: Policy, accepted: SignedList | None, clock: FakeClock) -> None:
        self.identity, self.policy, self.accepted, self.clock = identity, policy, accepted, clock
        self.ledger = MemoryLedger(identity, clock)
        self.records = MemoryRecords()
        self.residuals = MemoryResiduals()
        self.starts = 0
        self.restart()

    def restart(self) -> None:
        self.starts += 1
        self.participant = Participant(
            identity=self.identity,
            policy=lambda: self.policy,
            accepted_list=lambda: self.accepted,
            ledger=self.ledger,
            records=self.records,
            residuals=self.residuals,
            randomness=SeededRandomness(f"{self.identity.member.hex()} {self.starts}"),
            clock=self.clock,
        )

    def match(self, request: MatchRequest, outcome=PLAN) -> tuple[Effect, ...]:
        effects = self.participant.handle(request)
        if any(isinstance(effect, Match) for effect in effects):
            effects = self.participant.matched(request.job, outcome)
        return effects


class Federation:
    """Owners, the request they were matched with, and rounds over them."""

    def __init__(self, count: int = 4, *, job: Job | None = None, **policy_changes) -> None:
        self.clock = FakeClock()
        self.key = make_identities(1, "federation")[0]
        self.identities = make_identities(count)
        self.signed = make_list(self.identities, self.key)
        self.job = job or make_job()
        self.policy = make_policy(self.key, **policy_changes)
        self.owners = {key.member: Owner(key, self.policy, self.signed, self.clock) for key in self.identities}
        self.request = MatchRequest(JOB_ID, self.job.canonical(), self.signed.to_json())

    def first(self) -> Owner:
        return self.owners[self.identities[0].member]

    def match_all(self) -> None:
        for owner in self.owners.values():
            assert owner.match(self.request) == (SendReport(MatchAnswer(JOB_ID, None)),)

    def setup(self, number: int = 1, **changes) -> Setup:
        terms = derive_terms(self.job, self.signed.members.digest())
        fields = {
            "job": JOB_ID,
            "round": RoundNumber(number),
            "terms": terms,
            "nonce_commitment": commit_nonce(self.nonce(number)),
        }
        return Setup(**(fields | changes))

    @staticmethod
    def nonce(number: int) -> bytes:
        return bytes([number]) * 32

    def round(self, number: int, version: int, updates, **options) -> Round:
        return Round(self, number, version, updates, **options).run()


class Round:
    """A coordinator with the real machine; messages are delivered in order until nothing is left."""

    def __init__(
        self, federation: Federation, number: int, version: int, updates, *, lose=(), model: bytes | None = None
    ) -> None:
        self.federation = federation
        self.number = RoundNumber(number)
        self.updates = updates
        #: Kinds of report, by member, after which the member's process dies.
        self.lose = dict(lose)
        self.setup = federation.setup(number)
        invited = {key.member: key.public for key in federation.identities}
        self.phase, _ = server.start(
            self.setup,
            federation.nonce(number),
            invited,
            BoundModel(ModelVersion(version), model_digest(version) if model is None else model),
        )
        self.payloads: dict[MemberId, bytes] = {}
        self.refusals: dict[MemberId, RoundRefusal] = {}
        self.rejected: list[heard.Rejected] = []
        self.result = None
        self.aborted: heard.Aborted | None = None
        self.trains: dict[MemberId, Train] = {}
        self.waiting: list = []

    def run(self) -> Round:
        for member in self.federation.owners:
            self.tell(member, RoundInvite(self.setup))
        while self.waiting:
            member, effect = self.waiting.pop(0)
            self.perform(member, effect)
        return self

    def tell(self, member: MemberId, command) -> None:
        self.take(member, self.federation.owners[member].participant.handle(command))

    def take(self, member: MemberId, effects) -> None:
        self.waiting.extend((member, effect) for effect in effects)

    def perform(self, member: MemberId, effect: Effect) -> None:
        owner = self.federation.owners[member]
        match effect:
            case Match(job_id, _, _):
                self.take(member, owner.participant.matched(job_id, PLAN))
            case Train():
                self.trains[member] = effect
                self.take(member, owner.participant.trained(JOB_ID, self.number, self.updates[member], 100))
            case Upload(_, _, payload, _):
                self.payloads[member] = payload
                self.take(member, owner.participant.uploaded(JOB_ID, self.number))
            case SendReport(RoundReport(_, _, message, payload)):
                if payload:
                    self.payloads[member] = payload
                if self.lose.get(member) is type(message):
                    del self.lose[member]
                    owner.restart()
                    self.hear(heard.MemberLost(member, "gone"))
                else:
                    self.hear(event_of(message))
            case SendReport(RoundRefusal() as refusal):
                self.refusals[member] = refusal
                self.hear(heard.MemberLost(member, refusal.refusal.reason))

    def hear(self, event) -> None:
        self.phase, effects = server.step(self.phase, event)
        for effect in effects:
            match effect:
                case heard.Send(member, message):
                    self.tell(member, RoundCommand(JOB_ID, self.number, message))
                case heard.Finished(result):
                    self.result = result
                case heard.Aborted():
                    self.aborted = effect
                case heard.Rejected():
                    self.rejected.append(effect)

    def mean(self, seed: bytes) -> np.ndarray:
        """The decoded mean update of the survivors."""
        terms = self.setup.terms
        total = sum_words([parse_payload(self.payloads[m], terms) for m in self.result.survivors], terms)
        words = unmask(total, self.result.plan, terms)[0]
        plan = derive_ring_plan(self.federation.job)
        lanes = unpack(words, plan.lane_bits, plan.padded_length)
        survivors = self.result.survivors
        dithers = [derive_dither(seed, member) for member in survivors] if plan.dithered else []
        return decode_sum(lanes, len(survivors), plan, seed, dithers=dithers)


def make_updates(federation: Federation, scale: float = 0.05) -> dict[MemberId, np.ndarray]:
    length = derive_ring_plan(federation.job).model_length
    rng = np.random.default_rng(7)
    return {member: rng.normal(0, scale, length).astype(np.float32) for member in federation.owners}


def reports(effects) -> list:
    return [effect.report for effect in effects if isinstance(effect, SendReport)]
