"""The machine of a round, by the job: secure aggregation, or in the plain where the job and every owner say so."""

from __future__ import annotations

from lepton_core.ids import MemberId, RoundNumber
from lepton_core.plain import server as plain
from lepton_core.secagg import server as secure
from lepton_core.secagg import server_events as pe
from lepton_core.secagg import server_phases, server_status
from lepton_core.secagg.messages import ServerMessage
from lepton_core.secagg.steps import Step
from lepton_server.jobs.phases import Facts, PlainPhase, RoundPhase

Effect = pe.Effect | plain.Effect
Finished = pe.Finished | plain.Finished


def start(facts: Facts, number: RoundNumber, cohort: tuple[MemberId, ...]) -> tuple[RoundPhase, tuple[Effect, ...]]:
    """Open a round with these members."""
    setup, invited = facts.setup(number), {member: facts.peers[member].identity for member in cohort}
    if facts.job.aggregation.secure:
        return secure.start(setup, facts.nonce(number), invited)
    return plain.start(setup, invited)


def step(phase: RoundPhase, event: pe.Event) -> tuple[RoundPhase, tuple[Effect, ...]]:
    """The next phase, and what the job must do."""
    return plain.step(phase, event) if isinstance(phase, PlainPhase) else secure.step(phase, event)


def outstanding(phase: RoundPhase, member: MemberId) -> ServerMessage | None:
    """What the member should be told now, as often as it asks."""
    return plain.outstanding(phase, member) if isinstance(phase, PlainPhase) else secure.outstanding(phase, member)


def awaits_start(phase: RoundPhase, member: MemberId) -> bool:
    """True while the member should be invited."""
    return plain.awaits_start(phase, member) if isinstance(phase, PlainPhase) else secure.awaits_advert(phase, member)


def step_of(phase: RoundPhase) -> Step:
    """The answer that is waited for; of a round that is over, the last one."""
    return Step.INPUT if isinstance(phase, PlainPhase) else server_status.step_of(phase)


def waiting_for(phase: RoundPhase) -> tuple[MemberId, ...]:
    """Members that should answer and have not, the lost ones left out; sorted."""
    return plain.waiting_for(phase) if isinstance(phase, PlainPhase) else server_status.waiting_for(phase)


def candidates(phase: RoundPhase) -> tuple[MemberId, ...]:
    """Members that may still be in the sum; sorted."""
    return plain.candidates(phase) if isinstance(phase, PlainPhase) else server_status.candidates(phase)


def frozen_survivors(phase: RoundPhase) -> tuple[MemberId, ...] | None:
    """The members whose masked inputs make the sum, once that can change no more; None before, and in the plain."""
    return phase.survivors.survivors if isinstance(phase, server_phases.AwaitingSignatures) else None
