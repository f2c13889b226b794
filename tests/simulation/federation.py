"""A whole federation in one process under virtual time: the real coordinator and participants, a hostile network.

Everything follows from the seed: who is lost when, which message is late, doubled or dropped, and at which transition
the coordinator or a member dies and is rebuilt from its store. Effects are performed here, one event at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lepton_client.effects import Effect as MemberEffect
from lepton_client.effects import Follow, Forget, ForgetJob, Match, SendReport, Train, Upload
from lepton_client.ledger import MemoryLedger, derive_run
from lepton_client.participant import Participant
from lepton_client.policy import Policy
from lepton_client.records import MemoryRecords
from lepton_client.residuals import MemoryResiduals
from lepton_core.errors import FaultError, LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.membership import ListedMember, MembershipList, SignedList, sign
from lepton_core.privacy.accountant import sum_noise_multiplier_for
from lepton_core.privacy.rules import DISTRIBUTED_MODES
from lepton_core.secagg.messages import Unmasking
from lepton_core.secagg.terms import Setup
from lepton_core.session import Heartbeat, MemberReport, RoundReport, ServerCommand
from lepton_core.settings import parse_settings
from lepton_core.views import JobState, JobView, RoundView
from lepton_protos import convert
from lepton_server.coordinator import Coordinator
from lepton_server.jobs import events as ev
from lepton_server.registry import initial
from lepton_server.rounds import aggregate
from lepton_server.rounds.sums import RunningSums
from lepton_server.store.artifacts import MemoryArtifacts
from lepton_server.store.memory import MemoryStore
from lepton_server.store.port import EnrolledParty

START = 1_800_000_000.0
VOCABULARY = "https://example.org/simulation#"
HEARTBEAT_S = 3.0
STEP_DEADLINE_S = 30.0
#: Records that every member declares.
ROWS = 100


@dataclass(frozen=True)
class Faults:
    """How hostile the world is until `quiet_after_s`; probabilities a message or transition."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    #: At any input, and at one whose transition was committed.
    coordinator_crash: float = 0.0
    durable_crash: float = 0.0
    member_crash: float = 0.0
    disconnect: float = 0.0
    #: While the coordinator takes an input in: the artifacts' disk is full for a moment.
    disk_full: float = 0.0
    quiet_after_s: float = 240.0


class FullAtTimes(MemoryArtifacts):
    """Artifacts on a disk that is full while `full` is set."""

    full = False

    def put(self, data: bytes) -> Digest:
        if self.full:
            raise FaultError("the artifacts folder cannot be used", reason="DISK")
        return super().put(data)


@dataclass
class VirtualClock:
    """Stands still until the simulation moves it."""

    time: float = START

    def now(self) -> float:
        return self.time


class SeededRandomness:
    """Bytes that follow from a seed; the simulation's port, never a daemon's."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    def token(self, length: int) -> bytes:
        return self._rng.randbytes(length)


def make_job(
    *,
    rounds: int,
    members: int,
    min_cohort: int,
    mode: str = "none",
    kept_fraction: float = 1.0,
    secure: bool = True,
    codec: str = "float32",
) -> Job:
    """A small logistic model with one feature a member, so that each member's update is a coordinate of its own.

    In mode `record-distributed` a step against a member's sum is that sum with the other sign.
    """
    privacy = {"mode": mode, "epsilon": 8.0, "delta": 1e-5, "noise_multiplier": 4.0 if mode != "none" else None}
    training: dict[str, object] = {"rounds": rounds, "local_steps": 1, "sampling_rate": 0.1}
    # Lanes and range of noised integers follow from the noise.
    encoding = {"profile": "exact" if secure else "default", "update_norm": 1.0}
    if mode in DISTRIBUTED_MODES:
        encoding = {}
        privacy["noise_multiplier"] = sum_noise_multiplier_for(8.0, 1e-5, 1.0, rounds)
    if mode == "record-distributed":
        training = {"rounds": rounds, "batching": "all", "expected_rows": ROWS, "learning_rate": float(ROWS)}
    if mode == "client-distributed":
        privacy["unit"] = "member"
    return parse_settings(
        Job,
        {
            "name": "simulated",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": VOCABULARY,
                "features": [{"concept": f"feature-{index}"} for index in range(members)],
                "target": {"concept": "outcome", "positive": "yes"},
            },
            "model": {"kind": "logistic"},
            "training": training,
            "privacy": privacy,
            "aggregation": {
                "min_cohort": min_cohort,
                "max_cohort": max(members, min_cohort),
                "secure": secure,
                "codec": codec,
                "kept_fraction": kept_fraction,
                **encoding,
                "corruption": 0.1,
                "step_deadline_s": STEP_DEADLINE_S,
            },
        },
        source="simulated job",
    )


@dataclass
class Member:
    """One owner: its durable memory, and the process that may die."""

    key: IdentityKey
    owner: OwnerName
    index: int
    ledger: MemoryLedger
    records: MemoryRecords
    residuals: MemoryResiduals
    participant: Participant
    #: Rounds for which noise was drawn.
    noised: set[int] = field(default_factory=set)
    alive: bool = True
    connected: bool = False
    #: Raised at each restart, so that what the old process had under way comes to nothing.
    life: int = 0


@dataclass
class Federation:
    """The simulated world; `run` drives it until the job has ended."""

    seed: int
    members: int = 5
    min_cohort: int = 3
    rounds: int = 3
    mode: str = "none"
    secure: bool = True
    codec: str = "float32"
    kept_fraction: float = 1.0
    #: Epsilon that every owner's policy allows; a private job asks for 8, and more is spent where a round is lost.
    budget: float = 8.0
    faults: Faults = field(default_factory=Faults)
    #: Members that never come back, by index, with the virtual second they vanish in.
    vanish: dict[int, float] = field(default_factory=dict)
    #: How long a killed member needs to start again, in seconds.
    restart_s: tuple[float, float] = (1.0, 15.0)
    #: Makes the place where a member keeps what it has not sent.
    residuals: Callable[[], MemoryResiduals] = MemoryResiduals
    #: Called before each performed member effect; may raise the member's crash by returning True.
    on_effect: Callable[[Member, MemberEffect], bool] | None = None
    #: Called with every message as bytes, and whether it is the member's: reports as they leave, commands as they come.
    on_wire: Callable[[Member, bool, bytes], None] | None = None
    #: Wraps the update a member would contribute.
    update_of: Callable[[Member, ModelVersion], Vector] | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(f"faults-{self.seed}")
        self.clock = VirtualClock()
        self.store = MemoryStore()
        self.artifacts = FullAtTimes()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._timers: dict[str, int] = {}
        self.transitions = 0
        self.coordinator_crashes = 0
        self.member_crashes = 0
        self.disk_faults = 0
        #: Every sum that the coordinator unmasked and decoded, as often as it did.
        self.decoded: list[ev.RunAggregate] = []
        #: Every unmasking a member ever sent, by (member, model version): invariant I9.
        self.answers: dict[tuple[MemberId, RoundNumber], set[bytes]] = {}
        self._federation_key = IdentityKey.generate(SeededRandomness(f"federation-{self.seed}"))
        keys = [IdentityKey.generate(SeededRandomness(f"{self.seed}-{index}")) for index in range(self.members)]
        # The membership list is sorted by them.
        owners = [OwnerName(f"owner-{index:0{len(str(self.members - 1))}}") for index in range(self.members)]
        self._signed = sign(
            MembershipList(
                federation="simulation",
                version=1,
                issued=int(START) - 10,
                expires=int(START) + 10**8,
                members=tuple(
                    ListedMember(owner=owner, identity=key.public.hex())
                    for owner, key in zip(owners, keys, strict=True)
                ),
            ),
            self._federation_key,
        )
        self.people: dict[MemberId, Member] = {}
        for index, (key, owner) in enumerate(zip(keys, owners, strict=True)):
            kept = MemoryLedger(key, self.clock), MemoryRecords(), self.residuals()
            participant = self._make_participant(key, *kept, f"{self.seed}-{index}-0")
            self.people[key.member] = Member(key, owner, index, *kept, participant)
        self._keep_membership()
        self.coordinator = self._make_coordinator()

    # ---- making and remaking ---------------------------------------------------------------------------------------

    def _policy(self) -> Policy:
        return parse_settings(
            Policy,
            {
                "peers": {"federation_key": self._federation_key.public.hex(), "minimum_cohort": 3},
                "populations": [
                    {
                        "name": "patients",
                        "mapping": "mapping.yaml",
                        "declared_rows": ROWS,
                        "modes": ["record-local", "record-distributed", "client-distributed", "none"],
                        "epsilon": self.budget,
                        "delta": 1e-5,
                    }
                ],
                "jobs": {
                    "purposes": ["research"],
                    "concepts": [VOCABULARY],
                    "models": ["logistic"],
                    "expires": "2099-01-01",
                    "allow_unprotected": True,
                    "allow_plain_updates": True,
                    "allow_error_feedback": True,
                    "max_unreleased_fraction": 1.0,
                },
            },
            source="simulated policy",
        )

    def _make_participant(
        self, key: IdentityKey, ledger: MemoryLedger, records: MemoryRecords, residuals: MemoryResiduals, seed: str
    ) -> Participant:
        policy = self._policy()
        return Participant(
            identity=key,
            policy=lambda: policy,
            accepted_list=lambda: self._signed,
            ledger=ledger,
            records=records,
            residuals=residuals,
            randomness=SeededRandomness(seed),
            clock=self.clock,
        )

    def _make_coordinator(self) -> Coordinator:
        randomness = SeededRandomness(f"coordinator-{self.seed}-{self.coordinator_crashes}")
        self.sums = RunningSums(self.artifacts)
        return Coordinator(
            self.store, self.artifacts, self.sums, clock=self.clock, randomness=randomness, check_task=lambda _: None
        )

    def _keep_membership(self) -> None:
        with self.store.transaction() as tx:
            signed: SignedList = self._signed
            tx.put_membership(Digest(signed.members.digest().hex()), 1, signed.to_json())
            for member, person in self.people.items():
                tx.put_party(
                    EnrolledParty(person.owner, "owner", member, person.key.public, START, "0" * 64, START + 10**8)
                )

    # ---- time ------------------------------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None]) -> int:
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action))
        return self._count

    def after(self, delay: float, action: Callable[[], None]) -> int:
        return self.at(self.clock.time + delay, action)

    @property
    def hostile(self) -> bool:
        return self.clock.time < START + self.faults.quiet_after_s

    def _happens(self, probability: float) -> bool:
        return self.hostile and self.rng.random() < probability

    def _delay(self) -> float:
        slow = self.rng.uniform(1.0, 20.0) if self._happens(self.faults.late) else 0.0
        return self.rng.uniform(0.001, 0.05) + slow

    @property
    def exact(self) -> bool:
        """True if a round's sum is of whole updates and nothing else."""
        return self.kept_fraction == 1.0 and self.mode not in DISTRIBUTED_MODES

    def make_job(self) -> Job:
        """The job that this world runs."""
        return make_job(
            rounds=self.rounds,
            members=self.members,
            min_cohort=self.min_cohort,
            mode=self.mode,
            kept_fraction=self.kept_fraction,
            secure=self.secure,
            codec=self.codec,
        )

    def run(self, limit_s: float = 4_000.0) -> JobView:
        """Submit the job and let everything happen; the ended job with its rounds and models."""
        job = self.make_job()
        for person in self.people.values():
            self._connect(person, self.rng.uniform(0.0, 1.0))
        self.after(1.5, lambda: self._submit(job))
        for index, second in self.vanish.items():
            person = next(one for one in self.people.values() if one.index == index)
            self.at(START + second, lambda person=person: self._kill(person, forever=True))
        self.job_id: JobId | None = None
        while self._queue and self.clock.time < START + limit_s:
            self.clock.time, _, action = heapq.heappop(self._queue)
            action()
            if self.job_id is not None and self.transitions and self._job_state().ended:
                break
        if self.job_id is None:
            raise AssertionError("the job was never submitted")
        return self.coordinator.show_job(self.job_id)

    def _job_state(self) -> JobState:
        if self.job_id is None:
            return JobState.MATCHING
        with self.store.transaction() as tx:
            record = tx.job(self.job_id)
        return record.view.state if record is not None else JobState.MATCHING

    # ---- the coordinator's side ------------------------------------------------------------------------------------

    def _submit(self, job: Job) -> None:
        self.job_id, effects = self.coordinator.submit(job.canonical(), OwnerName("researcher"))
        self._perform(effects)

    def _input(self, *inputs: ev.Input) -> None:
        before = self._written()
        self.artifacts.full = self._happens(self.faults.disk_full)
        try:
            effects = self.coordinator.handle(inputs)
        except FaultError:  # nothing was taken in: the pump tries the same batch again
            self.disk_faults += 1
            generation = self.coordinator_crashes
            self.after(1.0, lambda: self._input(*inputs) if generation == self.coordinator_crashes else None)
            return
        finally:
            self.artifacts.full = False
        self.transitions += 1
        chance = self.faults.durable_crash if self._written() != before else self.faults.coordinator_crash
        if self._happens(max(chance, self.faults.coordinator_crash)):
            self._crash_coordinator()  # committed, and none of its effects performed
            return
        self._perform(effects)

    def _written(self) -> tuple[bytes | None, int]:
        """The job's durable state, as far as it shows that a transition was committed."""
        if self.job_id is None:
            return None, 0
        with self.store.transaction() as tx:
            return tx.checkpoint(self.job_id), len(tx.journal(self.job_id))

    def _crash_coordinator(self) -> None:
        self.coordinator_crashes += 1
        self._timers.clear()
        self.coordinator = self._make_coordinator()
        for person in self.people.values():
            person.connected = False
        self._perform(self.coordinator.recover())
        for person in self.people.values():
            if person.alive:
                self._connect(person, self.rng.uniform(0.1, 5.0))

    def _perform(self, effects: tuple[ev.Effect, ...]) -> None:
        generation = self.coordinator_crashes
        for effect in effects:
            match effect:
                case ev.Tell(member, command):
                    self._tell(member, command)
                case ev.SetTimer(key, at):
                    self._timers[key] = self.at(at, lambda key=key: self._fire(key))
                case ev.CancelTimer(key):
                    self._timers.pop(key, None)
                case ev.RunInitialModel():
                    self._work(generation, lambda effect=effect: initial.run(effect, self.artifacts))
                case ev.RunAggregate():
                    self._work(generation, lambda effect=effect: self._decode(effect))
                case ev.RunEvaluate(job_id, _, version, _):
                    done = ev.EvaluateDone(job_id, version, -1.0, -1.0, 0.0)
                    self._work(generation, lambda done=done: done)
                case ev.RunAdd(setup, payload):
                    self._add(generation, setup, payload)
                case ev.ForgetPayloads(digests):
                    for digest in digests:
                        self.artifacts.delete(digest)
                case _:
                    pass

    def _work(self, generation: int, work: Callable[[], ev.Input]) -> None:
        def finish() -> None:
            if generation == self.coordinator_crashes:  # else the process that worked is dead
                self._input(work())

        self.after(self.rng.uniform(0.01, 0.5), finish)

    def _decode(self, effect: ev.RunAggregate) -> ev.Input:
        self.decoded.append(effect)
        return aggregate.run(effect, self.artifacts)

    def _add(self, generation: int, setup: Setup, payload: Digest) -> None:
        def add() -> None:
            if generation == self.coordinator_crashes:
                with contextlib.suppress(LeptonError):
                    self.sums.add(setup, payload)

        self.after(self.rng.uniform(0.0, 1.0), add)

    def _fire(self, key: str) -> None:
        if self._timers.pop(key, None) is not None:
            self._input(ev.TimerFired(key))

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _tell(self, member: MemberId, command: ServerCommand) -> None:
        wire = convert.command_to_proto(command).SerializeToString()
        copies = 2 if self._happens(self.faults.doubled) else 1
        for _ in range(copies):
            if not self._happens(self.faults.lost):
                self.after(self._delay(), lambda: self._arrive(member, wire))

    def _arrive(self, member: MemberId, wire: bytes) -> None:
        person = self.people[member]
        if person.alive and person.connected:
            if self.on_wire is not None:
                self.on_wire(person, False, wire)
            command = convert.command_from_proto(convert.control_pb2.ServerCommand.FromString(wire))[1]
            self._member(person, person.participant.handle(command))

    def _report(self, person: Member, report: MemberReport) -> None:
        if isinstance(report, RoundReport) and isinstance(report.message, Unmasking):
            key = (person.key.member, report.round)
            self.answers.setdefault(key, set()).add(convert.report_to_bytes(report))
        wire = convert.report_to_bytes(report)
        if self.on_wire is not None:
            self.on_wire(person, True, wire)
        copies = 2 if self._happens(self.faults.doubled) else 1
        for _ in range(copies):
            if not self._happens(self.faults.lost):
                self.after(self._delay(), lambda: self._reported(person.key.member, wire))

    def _reported(self, member: MemberId, wire: bytes) -> None:
        report = convert.report_from_bytes(wire)
        if self.people[member].connected and not isinstance(report, Heartbeat) and hasattr(report, "job"):
            self._input(ev.Reported(member, report))

    def _connect(self, person: Member, delay: float) -> None:
        life = person.life

        def connect() -> None:
            if not person.alive or person.connected or life != person.life:
                return
            person.connected = True
            self._input(ev.MemberConnected(person.key.member))
            self._beat(person, life)

        self.after(delay, connect)

    def _beat(self, person: Member, life: int) -> None:
        if not person.alive or not person.connected or life != person.life:
            return
        for command in self.coordinator.outstanding(person.key.member):
            self._tell(person.key.member, command)
        self._member(person, person.participant.tick())
        if self._happens(self.faults.disconnect):
            person.connected = False
            self.after(2.0, lambda: None if person.connected else self._input(ev.MemberLost(person.key.member)))
            self._connect(person, self.rng.uniform(0.5, 10.0))
            return
        self.after(HEARTBEAT_S, lambda: self._beat(person, life))

    # ---- a member's side -------------------------------------------------------------------------------------------

    def _kill(self, person: Member, *, forever: bool = False) -> None:
        if not person.alive:
            return
        self.member_crashes += 1
        person.alive = person.connected = False
        person.life += 1
        self.after(2.0, lambda: None if person.connected else self._input(ev.MemberLost(person.key.member)))
        if not forever:
            self.after(self.rng.uniform(*self.restart_s), lambda: self._restart(person))

    def _restart(self, person: Member) -> None:
        person.alive = True
        seed = f"{self.seed}-{person.index}-{person.life}"
        kept = person.ledger, person.records, person.residuals
        person.participant = self._make_participant(person.key, *kept, seed)
        self._connect(person, 0.1)

    def _member(self, person: Member, effects: tuple[MemberEffect, ...]) -> None:
        for effect in effects:
            if self._happens(self.faults.member_crash) or (
                self.on_effect is not None and self.on_effect(person, effect)
            ):
                self._kill(person)
                return
            match effect:
                case SendReport(report):
                    self._report(person, report)
                case Match(job_id):
                    self._later(person, 0.3, lambda job_id=job_id: person.participant.matched(job_id, Digest("1" * 64)))
                case Train():
                    self._train(person, effect)
                case Upload():
                    self._upload(person, effect)
                case Follow() | Forget() | ForgetJob():
                    pass

    def _later(self, person: Member, delay: float, call: Callable[[], tuple[MemberEffect, ...]]) -> None:
        life = person.life
        self.after(delay, lambda: self._member(person, call()) if person.alive and life == person.life else None)

    def _train(self, person: Member, effect: Train) -> None:
        if self.mode != "none":
            person.noised.add(effect.round)
            if person.ledger.charged_rounds(derive_run(effect.job_id, effect.job)) < len(person.noised):
                raise AssertionError("training began before its charge was durable")
        maker = self.update_of or self._own_coordinate
        update = maker(person, effect.model_version)
        self._later(
            person,
            self.rng.uniform(0.05, 0.5),
            lambda: person.participant.trained(effect.job_id, effect.round, update, ROWS),
        )

    def _own_coordinate(self, person: Member, _: ModelVersion) -> Vector:
        update = np.zeros(self.members + 1, dtype=np.float32)
        update[person.index] = 0.5
        return update

    def _upload(self, person: Member, effect: Upload, tries: int = 20) -> None:
        """As the daemon's link does: tried again while the coordinator is away, then given up."""

        def arrive() -> tuple[MemberEffect, ...]:
            participant = person.participant
            if not person.connected or self._happens(self.faults.lost):
                if tries > 1:
                    self._later(person, 1.0, lambda: self._upload(person, effect, tries - 1) or ())
                    return ()
                lost = FaultError("the upload was cut", where="network")
                return participant.upload_failed(effect.job_id, effect.round, lost)
            try:
                self.coordinator.may_upload(person.key.member, effect.job_id, effect.round, len(effect.payload))
            except LeptonError as error:
                return participant.upload_failed(effect.job_id, effect.round, error)
            self.artifacts.put(effect.payload)
            return participant.uploaded(effect.job_id, effect.round)

        self._later(person, self._delay(), arrive)

    # ---- what happened ---------------------------------------------------------------------------------------------

    def contributors_of(self, view: RoundView) -> set[int]:
        """Which members' coordinates moved in the round's sum, from the models before and after."""
        if self.job_id is None:
            return set()
        models = {model.version: model for model in self.coordinator.models(self.job_id)}
        after = next(model for model in models.values() if model.round == view.round)
        before = models[after.version - 1]
        step = self._weights(after.digest) - self._weights(before.digest)
        share = 0.5 / len(view.survivors)
        counted = {index for index in range(self.members) if abs(step[index] - share) < 1e-3}
        uncounted = {index for index in range(self.members) if abs(step[index]) < 1e-3}
        if counted | uncounted != set(range(self.members)):
            raise AssertionError(f"a member counted other than once in round {view.round}: {step}")
        return counted

    def _weights(self, digest: str) -> Vector:
        from lepton_pool.models import architecture_of, model_layout
        from lepton_pool.weights import decode_weights

        return decode_weights(model_layout(architecture_of(self.make_job())), self.artifacts.get(Digest(digest)))

    def digest(self) -> str:
        """Everything that was decided, in one hash: audit chain, announcements and models."""
        hasher = hashlib.sha256()
        with self.store.transaction() as tx:
            for row in tx.audit():
                hasher.update(repr(row).encode())
            if self.job_id is not None:
                for event in tx.events(self.job_id, 0):
                    hasher.update(repr(event).encode())
                for model in tx.models(self.job_id):
                    hasher.update(repr(model).encode())
        return hasher.hexdigest()
