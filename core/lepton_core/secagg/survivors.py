"""Whose inputs can be in one sum: those that agree, two by two, on having a pair mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from lepton_core.ids import MemberId


def symmetric_core(
    paired: Mapping[MemberId, frozenset[MemberId]], around: Mapping[MemberId, tuple[MemberId, ...]]
) -> tuple[MemberId, ...]:
    """The inputs left when, again and again, the one with most disagreements over pair masks goes; sorted.

    Two neighbours whose inputs are both in the sum must each have a pair mask with the other, or it would not cancel
    (and step 3 would be refused). Nobody can tell whether a dealer sealed a bad share or its holder only says so. In a
    tie the one that lacks shares leaves: everybody else holds its own shares, so that its masks can be taken away.
    A further tie leaves by the smaller id, so that a replay drops the same.

    paired: each input's reported U1; around: each member's neighbours.
    """
    left = set(paired)
    while True:
        conflicts = {
            member: sum(
                1
                for other in around[member]
                if other in left and not (other in paired[member] and member in paired[other])
            )
            for member in sorted(left)
        }
        if not any(conflicts.values()):
            return tuple(sorted(left))
        lacking = {member: sum(1 for other in around[member] if other in left - paired[member]) for member in conflicts}
        left.remove(max(conflicts, key=lambda member: (conflicts[member], lacking[member])))


def unrecoverable(
    survivors: Collection[MemberId], paired: Mapping[MemberId, Collection[MemberId]], threshold: int
) -> tuple[MemberId, ...]:
    """Members outside the sum with whom survivors have pair masks, but whose shares too few survivors hold; sorted."""
    holding = Counter(other for member in survivors for other in paired[member] if other not in survivors)
    return tuple(sorted(member for member, count in holding.items() if count < threshold))
