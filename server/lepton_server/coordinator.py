"""The coordinator's heart: inputs in, one durable transaction, effects out. No socket, thread or clock of its own.

Every call is one transaction: the job machines step, their events are journaled and the views written; only then are
the effects handed to the caller, who performs them. Effects may be lost at any moment: after a restart `recover`
gives again what must be under way, and `outstanding` what a member should do next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lepton_core.errors import ConflictError, LeptonError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.job import parse_job
from lepton_core.ports import Clock, Randomness
from lepton_core.secagg.messages import InputTrailer
from lepton_core.session import Lineage, MatchAnswer, RoundRefusal, RoundReport, ServerCommand
from lepton_core.task import Task
from lepton_core.views import JobEvent, JobState, JobView, ModelView, RoundView
from lepton_protos.convert import report_to_bytes
from lepton_server.ends import Ends
from lepton_server.jobs import events as ev
from lepton_server.jobs import machine
from lepton_server.jobs.intake import draw_facts
from lepton_server.jobs.live import Live, Steps, artifacts_in_use, artifacts_named, artifacts_published, rebuild
from lepton_server.jobs.phases import Ended, Phase, Rounding, Waiting
from lepton_server.jobs.rounding import inputs_of, inputs_to_keep, oldest_round, opens_ahead
from lepton_server.jobs.show import running_round
from lepton_server.presence import Presence
from lepton_server.rounds.links import with_links
from lepton_server.rounds.sums import RunningSums
from lepton_server.rounds.uploads import Input, require_upload, took_payload
from lepton_server.store.port import Artifacts, Store

TaskCheck = Callable[[Task], None]


class Coordinator:
    """All running jobs. Not thread-safe: one caller at a time.

    Guarantees: a call that raises has changed nothing; effects are returned after their transition is durable.
    """

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        sums: RunningSums,
        *,
        clock: Clock,
        randomness: Randomness,
        check_task: TaskCheck,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._sums = sums
        self._clock = clock
        self._randomness = randomness
        #: Raises OntologyError or JobError if the task's ontology or concepts are not known.
        self._check_task = check_task
        self._live: dict[JobId, Live] = {}
        #: Models and links of all jobs: 64 letters each, of as many as there are rounds.
        self._published: set[str] = set()
        self._presence = Presence()
        self._ends = Ends(store)

    # ---- what people ask -------------------------------------------------------------------------------------------

    def submit(self, canonical_job: bytes, researcher: OwnerName) -> tuple[JobId, tuple[ev.Effect, ...]]:
        """Start a job.

        Raises:
            JobError, SettingsError, OntologyError, CodecError: a job that cannot run as written.
            NotFoundError: an artifact that the job names was not uploaded.
        """
        job = parse_job(canonical_job)
        self._check_task(job.task)
        with self._store.transaction() as tx:
            facts = draw_facts(tx, self._artifacts, job, researcher, now=self._clock.now(), randomness=self._randomness)
            begun = Steps.begin(facts)
            begun.write(tx, self._clock.now())
        self._live[facts.job_id] = begun.live
        return facts.job_id, begun.outward

    def abort(self, job: JobId, reason: str, by: OwnerName) -> tuple[ev.Effect, ...]:
        """End a job; what it has learnt so far stays.

        Raises:
            NotFoundError: no such job.
            ConflictError: it has ended already.
        """
        if job not in self._live:
            state = self.show_job(job).state
            raise ConflictError("the job has ended already", where=f"job {job}", got=state.value)
        return self._apply([(job, ev.AbortRequested(reason, by))])

    def show_job(self, job: JobId) -> JobView:
        """The job with its rounds and models.

        Raises:
            NotFoundError: no such job.
        """
        with self._store.transaction() as tx:
            record = tx.job(job)
            if record is None:
                raise NotFoundError("no such job", where=f"job {job}", hint="`lepton job list` names them")
            rounds = tuple(self._as_of_now(view) for view in tx.rounds(job))
            return replace(record.view, rounds=rounds, models=tuple(tx.models(job)))

    def list_jobs(self) -> tuple[JobView, ...]:
        """All jobs, oldest first, without their rounds and models."""
        with self._store.transaction() as tx:
            return tuple(record.view for record in tx.jobs())

    def show_round(self, job: JobId, number: RoundNumber | None) -> RoundView:
        """One round, or (None) the newest.

        Raises:
            NotFoundError: no such job or round.
        """
        with self._store.transaction() as tx:
            if tx.job(job) is None:
                raise NotFoundError("no such job", where=f"job {job}", hint="`lepton job list` names them")
            rounds = tx.rounds(job) if number is None else [tx.round(job, number)]
            newest = rounds[-1] if rounds else None
            if newest is None:
                which = "any round" if number is None else f"round {number}"
                hint = f"`lepton job show {job}` tells its state, its rounds and who has answered"
                raise NotFoundError(f"the job has not had {which} yet", where=f"job {job}", hint=hint)
            return self._as_of_now(newest)

    def models(self, job: JobId) -> tuple[ModelView, ...]:
        """The job's model versions.

        Raises:
            NotFoundError: no such job.
        """
        return self.show_job(job).models

    def events(self, job: JobId, after: int) -> tuple[JobEvent, ...]:
        """What watchers were told since.

        Raises:
            NotFoundError: no such job.
        """
        with self._store.transaction() as tx:
            if tx.job(job) is None:
                raise NotFoundError("no such job", where=f"job {job}", hint="`lepton job list` names them")
            return tuple(tx.events(job, after))

    # ---- what members and workers report ---------------------------------------------------------------------------

    def handle(self, inputs: Sequence[ev.Input]) -> tuple[ev.Effect, ...]:
        """Take in a batch, in one transaction.

        What only adds to a step that goes on, and that its sender repeats when asked again, is kept in memory until the
        step ends; uploaded inputs and unmaskings are durable at once. A fault of one input becomes a `Reject`; it never
        keeps the others back.

        Raises:
            FaultError: the store failed; nothing was taken in, and the same batch may be tried again.
        """
        events: list[tuple[JobId, ev.MachineEvent]] = []
        rejects: list[ev.Effect] = []
        for item in inputs:
            try:
                events.extend(self._events_of(item))
            except LeptonError as error:
                if isinstance(item, ev.Reported):
                    rejects.append(ev.Reject(item.member, error))
        effects = self._apply(events)
        returned = [item.member for item in inputs if isinstance(item, ev.MemberConnected)]
        return (*rejects, *effects, *(tell for member in returned for tell in self._ends.missed_by(member)))

    def recover(self) -> tuple[ev.Effect, ...]:
        """Rebuild every running job from the store; gives what must be under way."""
        effects: list[ev.Effect] = []
        with self._store.transaction() as tx:
            self._published = artifacts_published(tx)
            for record in tx.jobs([JobState.MATCHING, JobState.RUNNING]):
                live = rebuild(tx, record.job)
                self._live[record.job] = live
                # Nobody is connected yet: the first round waits for those that were, as for members just lost.
                for member in live.phase.roll.eligible:
                    self._presence.lost(member, self._clock.now())
                effects.extend(machine.resume(live.facts, live.phase, self._clock.now()))
            self._ends.recover(tx)
        return tuple(effects)

    def outstanding(self, member: MemberId) -> tuple[ServerCommand, ...]:
        """What the member should do next in each running job."""
        return tuple(
            command for live in self._live.values() for command in machine.outstanding(live.facts, live.phase, member)
        )

    @property
    def running_jobs(self) -> int:
        """Jobs that have not ended."""
        return len(self._live)

    # ---- who may move which bytes ----------------------------------------------------------------------------------

    def may_upload(self, member: MemberId, job: JobId, number: RoundNumber, size: int) -> None:
        """Return if the member may upload a masked input of this size to this round now.

        Raises:
            PeerViolation: not in that round, or the payload has another length.
        """
        live = self._live.get(job)
        require_upload(live.facts if live else None, live.phase if live else None, member, number, size)

    def may_download(self, role: str, name: OwnerName, member: MemberId | None, digest: Digest) -> None:
        """Return if this party may have these bytes: members what running models are made of, people their own models.

        Raises:
            NotFoundError: not theirs, or not there; the two are not told apart.
        """
        for live in self._live.values():
            roll, initial = live.phase.roll, live.facts.job.model.initial
            known = (roll.model.digest, roll.model.link, initial) if roll.model is not None else (initial,)
            if member in roll.willing and (
                digest in (*known, roll.snapshot) or digest in self._links(live.facts.job_id)
            ):
                return
        if role in ("researcher", "operator"):
            with self._store.transaction() as tx:
                for record in tx.jobs():
                    own = role == "operator" or record.view.researcher == name
                    if own and any(digest in (view.digest, view.link) for view in tx.models(record.job)):
                        return
        raise NotFoundError("no such artifact for this party", where=f"artifact {digest}")

    def lineage(self, member: MemberId, job: JobId, after: ModelVersion) -> Lineage:
        """What leads to the newest model of a running job from this version.

        Raises:
            NotFoundError: not running, or not with this member.
        """
        live = self._live.get(job)
        if live is None or member not in live.phase.roll.willing:
            raise NotFoundError("no such running job for this member", where=f"job {job}", reason="JOB_OVER")
        return Lineage(self._links(job, after), live.phase.roll.snapshot)

    def named_artifacts(self) -> frozenset[str]:
        """Every artifact that a job names, running or ended; of what is older than a claim, nothing else is needed."""
        with self._store.transaction() as tx:
            return artifacts_named(tx, tuple(self._live.values()))

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _links(self, job: JobId, after: int = 0) -> tuple[Digest, ...]:
        with self._store.transaction() as tx:
            views = sorted(tx.models(job), key=lambda view: view.version)
        return tuple(Digest(view.link) for view in views if view.version > after and view.link)

    def _as_of_now(self, written: RoundView) -> RoundView:
        """The round's row, or what memory knows of it: it is written when a step ends only."""
        live = self._live.get(JobId(written.job))
        if live is None or not isinstance(live.phase, Rounding) or live.phase.record.number != written.round:
            return written
        return running_round(live.facts, live.phase)

    def _events_of(self, item: ev.Input) -> Iterator[tuple[JobId, ev.MachineEvent]]:
        match item:
            case ev.MemberConnected(member):
                self._presence.came(member, self._clock.now())
            case ev.MemberLost(member):
                self._presence.lost(member, self._clock.now())
                for job, live in self._live.items():
                    ahead = live.phase.roll.ahead
                    if isinstance(live.phase, Rounding) and member in live.phase.record.cohort:
                        yield job, ev.MemberLeft(member, live.phase.record.number, None)
                    if ahead is not None and member in ahead.record.cohort:
                        yield job, ev.MemberLeft(member, ahead.record.number, None)
            case ev.Reported(member, report, encoded):
                yield self._event_of_report(member, report, encoded)
            case ev.TimerFired(key):
                job = JobId(key.split("/", 1)[0])
                if job in self._live and key != _return_key(job):
                    yield job, ev.DeadlinePassed(key)
            case _:
                if item.job in self._live:
                    yield item.job, item

    def _event_of_report(
        self, member: MemberId, report: MatchAnswer | RoundReport | RoundRefusal, encoded: bytes
    ) -> tuple[JobId, ev.MachineEvent]:
        live = self._live.get(report.job)
        if live is None or member not in live.facts.peers:
            raise NotFoundError("no such running job for this member", where=f"job {report.job}", reason="JOB_OVER")
        match report:
            case MatchAnswer(job, refusal, coverage):
                return job, ev.MatchAnswered(member, refusal, coverage)
            case RoundRefusal(job, number, refusal):
                return job, ev.MemberLeft(member, number, refusal)
            case RoundReport(job, number, message, payload):
                sender = message.dealer if hasattr(message, "dealer") else message.member
                if sender != member:
                    raise PeerViolation(
                        "a message in another member's name",
                        where=f"member {member.hex()}",
                        got=f"member {sender.hex()}",
                        reason="WRONG_SENDER",
                    )
                inline = isinstance(message, InputTrailer) and took_payload(
                    live.facts,
                    live.phase,
                    Input(number, message, payload),
                    sums=self._sums,
                    artifacts=self._artifacts,
                    kept=lambda digest: digest in self._published or digest in artifacts_in_use(self._live.values()),
                )
                encoded = encoded or report_to_bytes(replace(report, payload=b""))
                return job, ev.RoundMessage(member, number, message, len(encoded), inline, encoded)

    def _apply(self, events: Sequence[tuple[JobId, ev.MachineEvent]]) -> tuple[ev.Effect, ...]:
        """Step the machines on the events, open the rounds that can be opened, commit, then take the new states."""
        steps: dict[JobId, Steps] = {}
        timers: list[ev.Effect] = []
        for job, event in events:
            self._step(steps, job, event)
        for job in tuple(self._live):
            timers.extend(self._open_rounds(steps, job))
        written = {job: taken for job, taken in steps.items() if not taken.may_wait}
        if written:
            for taken in written.values():
                self._sums.spill(taken.live.facts.job_id, inputs_of(taken.live.phase))
            with self._store.transaction() as tx:
                for taken in written.values():
                    taken.write(tx, self._clock.now())
        for job, taken in steps.items():
            self._published |= taken.published
            if isinstance(taken.live.phase, Ended):
                self._ends.keep(taken.live.view)
                self._sums.forget(job)
                del self._live[job]
                self._presence.forget(job)
            else:
                self._live[job] = taken.live
                self._sums.forget(job, oldest_round(taken.live.phase))
                self._sums.settle(job, inputs_of(taken.live.phase))
        return (*timers, *(effect for taken in steps.values() for effect in with_links(taken.outward, self._artifacts)))

    def _step(self, steps: dict[JobId, Steps], job: JobId, event: ev.MachineEvent) -> Phase:
        if job not in steps:
            steps[job] = Steps(self._live[job])
        steps[job].take(ev.Stamped(self._clock.now(), event))
        phase = steps[job].live.phase
        wanted = inputs_to_keep(phase) if isinstance(phase, Rounding) else None
        if wanted is None or not isinstance(phase, Rounding):
            return phase
        facts, number = self._live[job].facts, phase.record.number
        try:
            total = self._artifacts.put(self._sums.total(facts.setup(number), wanted).astype("<u8").tobytes())
        except LeptonError as error:
            if error.reason == "DISK":  # full, say: the same batch is tried again
                raise
            return self._step(
                steps, job, ev.AbortRequested(f"round {number}: inputs were lost: {error}", "coordinator")
            )
        return self._step(steps, job, ev.TotalKept(number, total))

    def _open_rounds(self, steps: dict[JobId, Steps], job: JobId) -> Iterator[ev.Effect]:
        """Begin the round that can begin, and open the one that can be opened; timers for what has to wait."""
        live = self._live[job]
        phase = steps[job].live.phase if job in steps else live.phase
        if isinstance(phase, Waiting):
            cohort = self._presence.cohort(live.facts, phase.roll, phase.roll.eligible)
            until = self._presence.waits_until(job, phase.roll.eligible, self._clock.now()) if cohort else 0.0
            if until > self._clock.now():
                yield ev.SetTimer(_return_key(job), until)
            elif cohort:
                if phase.roll.ahead is None or not self._presence.serves(phase.roll, phase.roll.ahead, cohort):
                    self._step(steps, job, ev.RoundOpened(cohort))
                phase = self._step(steps, job, ev.RoundBegun())
        if isinstance(phase, Rounding) and opens_ahead(live.facts, phase):
            cohort = self._presence.cohort(live.facts, phase.roll, phase.roll.willing)
            if cohort:
                self._step(steps, job, ev.RoundOpened(cohort))


def _return_key(job: JobId) -> str:
    """Timer: members that were just lost have had time to come back."""
    return f"{job}/return"
