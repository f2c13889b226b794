"""What one step of the job machine has decided so far: the roll as it will be, and the effects in order."""

from __future__ import annotations

from dataclasses import replace

from lepton_core.ids import Digest, MemberId, ModelVersion, RoundNumber
from lepton_core.session import JobClosed, Published, RoundClosed, RoundOutcome
from lepton_core.views import JobEvent, JobState, ModelView
from lepton_server.jobs import events as ev
from lepton_server.jobs.phases import Facts, Roll, RoundRecord
from lepton_server.jobs.show import round_view


class Draft:
    """Collects within one step; the step returns `roll` inside a new phase, and `effects`."""

    def __init__(self, facts: Facts, roll: Roll, time: float) -> None:
        self.facts = facts
        self.roll = roll
        #: Of the event, seconds since the epoch.
        self.time = time
        self._effects: list[ev.Effect] = []

    @property
    def effects(self) -> tuple[ev.Effect, ...]:
        """The effects so far, in order."""
        return tuple(self._effects)

    def add(self, effect: ev.Effect) -> None:
        """One more effect."""
        self._effects.append(effect)

    def set_timer(self, key: str, at: float) -> None:
        """Ask for a timer."""
        self.add(ev.SetTimer(key, at))

    def audit(self, actor: str, action: str, detail: str) -> None:
        """A row of the audit log."""
        self.add(ev.Audit(actor, action, detail))

    def announce(
        self,
        kind: str,
        message: str,
        *,
        record: RoundRecord | None = None,
        model: ModelView | None = None,
        owner: str = "",
        step: str = "",
    ) -> None:
        """Tell the job's watchers."""
        self.roll = replace(self.roll, events=self.roll.events + 1)
        told = model if model is not None else self.roll.model
        sent = len(record.payloads) * self.facts.terms.payload_bytes + record.message_bytes if record is not None else 0
        self.add(
            ev.Announce(
                JobEvent(
                    sequence=self.roll.events,
                    time=self.time,
                    job=self.facts.job_id,
                    kind=kind,
                    round=record.number if record is not None else (told.round if told is not None else 0),
                    model_version=told.version if told is not None else 0,
                    message=message,
                    owner=owner,
                    step=step,
                    cohort=len(record.cohort) if record is not None else 0,
                    accuracy=told.accuracy if told is not None else -1.0,
                    auc=told.auc if told is not None else -1.0,
                    epsilon=told.epsilon if told is not None else 0.0,
                    bytes_up=sent,
                )
            )
        )

    def take_model(self, view: ModelView, *, optimizer: Digest | None, snapshot: Digest | None = None) -> None:
        """A new newest model version; its metrics are asked for."""
        unevaluated = (*self.roll.unevaluated, view)
        self.roll = replace(self.roll, model=view, optimizer=optimizer, snapshot=snapshot, unevaluated=unevaluated)
        self.add(ev.RecordModel(view))
        self.add(ev.RunEvaluate(self.facts.job_id, self.facts.job, ModelVersion(view.version), Digest(view.digest)))

    def record_round(
        self,
        record: RoundRecord,
        *,
        state: str,
        step: str,
        reason: str = "",
        waiting_for: tuple[MemberId, ...] = (),
        survivors: tuple[MemberId, ...] = (),
        done: ev.AggregateDone | None = None,
    ) -> None:
        """The round's row as it now stands."""
        view = round_view(
            self.facts,
            record,
            self.roll.version,
            state=state,
            step=step,
            reason=reason,
            awaited=waiting_for,
            survivors=survivors,
            done=done,
            ended=self.time if state != "running" else 0.0,
        )
        self.add(ev.RecordRound(view))

    def close_round(
        self,
        member: MemberId,
        number: RoundNumber,
        outcome: RoundOutcome,
        reason: str,
        published: Published | None = None,
    ) -> None:
        """Tell a member that the round is over for it."""
        self.add(ev.Tell(member, RoundClosed(self.facts.job_id, number, outcome, reason, published)))

    def close_job(self, state: JobState, reason: str) -> None:
        """Tell every member that the job is over."""
        for member in sorted(self.facts.peers):
            self.add(ev.Tell(member, JobClosed(self.facts.job_id, state.value, reason)))

    def forget_payloads(self, record: RoundRecord) -> None:
        """Masked words, and their sum if it is there, that nothing needs any more."""
        digests = {*record.payloads.values(), *([record.total] if record.total is not None else [])}
        if digests:
            self.add(ev.ForgetPayloads(tuple(sorted(digests))))
