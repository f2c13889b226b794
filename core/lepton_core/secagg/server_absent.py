"""Who is not waited for in a round, and who takes no further part: bookkeeping of the coordinator, without state."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from lepton_core.ids import MemberId
from lepton_core.secagg.server_events import Dropped
from lepton_core.secagg.server_phases import Absent
from lepton_core.secagg.steps import Step
from lepton_core.secagg.transcript import DroppedMember


def awaited(expected: Collection[MemberId], answered: Collection[MemberId], absent: Absent) -> bool:
    """True while somebody who is expected has neither answered nor been lost."""
    if len(answered) + len(absent.lost) < len(expected):  # nobody answers who is not expected
        return True
    return any(member not in answered and member not in absent.lost for member in expected)


def drop(
    absent: Absent, expected: Iterable[MemberId], answered: Collection[MemberId], which: Step
) -> tuple[Absent, tuple[Dropped, ...]]:
    """Everybody who was expected and has not answered takes no further part."""
    dropped = tuple(
        DroppedMember(member, which, absent.lost.get(member, "no answer before the deadline"))
        for member in sorted(expected)
        if member not in answered
    )
    return Absent(absent.lost, absent.dropped + dropped), tuple(map(told, dropped))


def told(dropped: DroppedMember) -> Dropped:
    """The effect that tells a member it was dropped."""
    return Dropped(dropped.member, dropped.step, dropped.reason)


def lose(absent: Absent, member: MemberId, reason: str) -> Absent:
    """Do not wait for the member any more."""
    return replace(absent, lost={**absent.lost, member: reason})


def back(absent: Absent, member: MemberId) -> Absent:
    """The member is there after all."""
    if member not in absent.lost:
        return absent
    return replace(absent, lost={other: reason for other, reason in absent.lost.items() if other != member})
