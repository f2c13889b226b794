"""What is told of a running round: its step, and whom it waits for."""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

from lepton_core.ids import MemberId
from lepton_core.secagg.server_phases import (
    AwaitingAdverts,
    AwaitingInputs,
    AwaitingModel,
    AwaitingShares,
    AwaitingSignatures,
    AwaitingUnmaskings,
    Closed,
    Failed,
    Phase,
)
from lepton_core.secagg.steps import Step


def step_of(phase: Phase) -> Step:
    """The answer that is waited for; of a round that is over, the last one."""
    match phase:
        case AwaitingAdverts():
            return Step.ADVERT
        case AwaitingShares() | AwaitingModel():
            return Step.SHARE
        case AwaitingInputs():
            return Step.INPUT
        case AwaitingSignatures():
            return Step.CONSISTENCY
        case AwaitingUnmaskings() | Closed() | Failed():
            return Step.UNMASK
        case _:
            assert_never(phase)


def waiting_for(phase: Phase) -> tuple[MemberId, ...]:
    """Members that should answer and have not, the lost ones left out; sorted."""
    expected: Collection[MemberId]
    answered: Collection[MemberId]
    match phase:
        case AwaitingAdverts():
            expected, answered = phase.opening.invited, phase.adverts
        case AwaitingShares():
            expected, answered = phase.cohort.members, phase.shares
        case AwaitingInputs():
            expected, answered = phase.shares, phase.trailers
        case AwaitingSignatures():
            expected, answered = phase.survivors.survivors, phase.signatures
        case AwaitingUnmaskings():
            expected, answered = phase.signatures, phase.unmaskings
        case AwaitingModel() | Closed() | Failed():
            return ()
        case _:
            assert_never(phase)
    return tuple(sorted(set(expected) - set(answered) - set(phase.absent.lost)))


def candidates(phase: Phase) -> tuple[MemberId, ...]:
    """Members that may still be in the sum, the lost ones left out; sorted."""
    able: Collection[MemberId]
    match phase:
        case AwaitingAdverts():
            able = phase.opening.invited
        case AwaitingShares():
            able = phase.cohort.members
        case AwaitingModel() | AwaitingInputs():
            able = phase.shares
        case AwaitingSignatures() | AwaitingUnmaskings():
            return phase.survivors.survivors
        case Closed():
            return phase.result.survivors
        case Failed():
            return ()
        case _:
            assert_never(phase)
    return tuple(sorted(set(able) - set(phase.absent.lost)))
