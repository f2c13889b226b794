"""A running job in memory, and the steps it takes in one transaction: what is written, and what is left to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from lepton_core.errors import NotFoundError
from lepton_core.ids import Digest, JobId
from lepton_core.secagg.messages import Advert, ConsistencySignature, ShareMessage
from lepton_core.views import JobView
from lepton_server.jobs import events as ev
from lepton_server.jobs import machine
from lepton_server.jobs.journal import decode_checkpoint, decode_event, encode_checkpoint, encode_event
from lepton_server.jobs.phases import Aggregating, Facts, Phase, Rounding, Waiting
from lepton_server.jobs.show import job_view
from lepton_server.store.port import JobRecord, Transaction

#: A digest where a job's canonical bytes spell one: its evaluation set or its first weights, whatever wrote the job.
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Live:
    """What the store's checkpoint and journal rebuild, and what is not in the journal yet."""

    facts: Facts
    phase: Phase
    #: As it was last written.
    view: JobView
    #: Journal entries of a step that goes on. Lost in a crash, their senders are asked again and answer the same.
    unwritten: tuple[bytes, ...] = ()
    #: Journal entries of the round that is opened and not begun: a checkpoint does not hold it, so they stay behind it.
    ahead: tuple[bytes, ...] = ()


class Steps:
    """The steps of one job in one transaction. Nothing happens to the job in memory until the caller takes `live`."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._effects: list[ev.Effect] = []
        self._checkpoint: bytes | None = None
        #: True while nothing has to be written yet.
        self.may_wait = True

    @classmethod
    def begin(cls, facts: Facts) -> Self:
        """A job that was just submitted."""
        phase, effects = machine.start(facts)
        steps = cls(Live(facts, phase, job_view(facts, phase)))
        steps._checkpoint = encode_checkpoint(facts, None)
        steps._effects.extend(effects)
        return steps

    def take(self, stamped: ev.Stamped) -> None:
        """One event."""
        live = self.live
        phase, effects = machine.step(live.facts, live.phase, stamped)
        if not effects and phase == live.phase:
            return  # replaying it would change nothing, and nobody may fill memory or journal with such
        entry = encode_event(live.facts.job_id, stamped)
        entries, ahead = (*live.unwritten, entry), self._ahead(live, phase, stamped.event, entry)
        if isinstance(phase, Waiting) and not isinstance(live.phase, Waiting):
            self._checkpoint, entries = encode_checkpoint(live.facts, phase), ahead
        self.live = replace(live, phase=phase, unwritten=entries, ahead=ahead)
        self._effects.extend(effects)
        self.may_wait = self.may_wait and _may_wait(stamped.event, effects)

    @staticmethod
    def _ahead(live: Live, phase: Phase, event: ev.MachineEvent, entry: bytes) -> tuple[bytes, ...]:
        """The entries that rebuild the round ahead after this event."""
        before, after = live.phase.roll.ahead, phase.roll.ahead
        if after is None:
            return ()
        if isinstance(event, ev.RoundOpened):
            return (entry,)
        return live.ahead if after is before else (*live.ahead, entry)

    def write(self, tx: Transaction, now: float) -> None:
        """Checkpoint, journal and views; what was written over within this transaction is written once."""
        facts, live = self.live.facts, self.live
        if self._checkpoint is not None:
            tx.put_checkpoint(facts.job_id, self._checkpoint)
        if live.unwritten:
            tx.append_journal(facts.job_id, live.unwritten)
        for round_view in {
            effect.view.round: effect.view for effect in self._effects if isinstance(effect, ev.RecordRound)
        }.values():
            tx.put_round(round_view)
        for model in {
            effect.view.version: effect.view for effect in self._effects if isinstance(effect, ev.RecordModel)
        }.values():
            tx.put_model(model)
        for effect in self._effects:
            if isinstance(effect, ev.Announce):
                tx.add_event(effect.event)
            elif isinstance(effect, ev.Audit):
                tx.append_audit(now, effect.actor, effect.action, f"job {facts.job_id}", effect.detail)
        view = job_view(facts, live.phase)
        if view != live.view or self._checkpoint is not None:
            membership = Digest(facts.terms.membership_digest.hex())
            tx.put_job(JobRecord(facts.job_id, facts.job.canonical(), membership, view))
        self.live = replace(live, view=view, unwritten=())

    @property
    def published(self) -> set[str]:
        """The models and links among the effects."""
        views = (effect.view for effect in self._effects if isinstance(effect, ev.RecordModel))
        return {digest for view in views for digest in (view.digest, view.link)}

    @property
    def outward(self) -> tuple[ev.Effect, ...]:
        """The effects that are still to be performed: rows are written already."""
        return tuple(
            effect for effect in self._effects if not isinstance(effect, ev.RecordModel | ev.RecordRound | ev.Audit)
        )


def rebuild(tx: Transaction, job: JobId) -> Live:
    """The job as its checkpoint and journal tell it.

    Raises:
        NotFoundError: there is no checkpoint.
        FaultError: written by another version.
    """
    checkpoint = tx.checkpoint(job)
    if checkpoint is None:
        raise NotFoundError("a job without a checkpoint", where=f"job {job}")
    facts, waiting = decode_checkpoint(checkpoint)
    phase: Phase = waiting if waiting is not None else machine.start(facts)[0]
    steps = Steps(Live(facts, phase, job_view(facts, phase)))
    for entry in tx.journal(job):
        steps.take(decode_event(entry))
    return replace(steps.live, view=job_view(facts, steps.live.phase), unwritten=())


def _may_wait(event: ev.MachineEvent, effects: tuple[ev.Effect, ...]) -> bool:
    """True for a message that its sender repeats when asked again, and that nothing follows from yet."""
    return (
        isinstance(event, ev.RoundMessage)
        and (event.inline or isinstance(event.message, Advert | ShareMessage | ConsistencySignature))
        and all(isinstance(effect, ev.RunAdd) for effect in effects)
    )


def artifacts_named(tx: Transaction, running: Sequence[Live]) -> frozenset[str]:
    """Every artifact that a job names: what running jobs work with, and the models and submitted bytes of all."""
    named = set(artifacts_in_use(running))
    for live in running:
        if isinstance(live.phase, Rounding | Aggregating):
            named.update(live.phase.record.payloads.values())
    for record in tx.jobs():
        named.update(_DIGEST.findall(record.canonical.decode()))
    return frozenset(named | artifacts_published(tx))


def artifacts_published(tx: Transaction) -> set[str]:
    """Every model and link that a job has recorded, running or ended."""
    views = (view for record in tx.jobs() for view in tx.models(record.job))
    return {digest for view in views for digest in (view.digest, view.link)}


def artifacts_in_use(running: Iterable[Live]) -> frozenset[str]:
    """Artifacts of running jobs that are no masked inputs; a round's end must not delete them as such."""
    kept: set[str] = set()
    for live in running:
        roll, evaluation = live.phase.roll, live.facts.job.evaluation
        kept.update(view.digest for view in roll.unevaluated)
        if roll.optimizer is not None:
            kept.add(roll.optimizer)
        if roll.snapshot is not None:
            kept.add(roll.snapshot)
        if roll.model is not None:
            kept |= {roll.model.digest, roll.model.link}
        if isinstance(live.phase, Rounding | Aggregating) and live.phase.record.total is not None:
            kept.add(live.phase.record.total)
        if evaluation is not None:
            kept.add(evaluation.digest)
        if live.facts.job.model.initial is not None:
            kept.add(live.facts.job.model.initial)
    return frozenset(kept)
