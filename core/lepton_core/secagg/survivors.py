"""Whose inputs can be in one sum: those that agree, two by two, on having a pair mask."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush

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
    #: Who disagrees with whom, and how many dealers each lacks; a member without a disagreement is in neither.
    conflicts: dict[MemberId, set[MemberId]] = defaultdict(set)
    lacking: Counter[MemberId] = Counter()
    for member, partners in paired.items():
        for other in around[member]:
            if other in left and other not in partners:
                conflicts[member].add(other)
                conflicts[other].add(member)
                lacking[member] += 1

    def rank(member: MemberId) -> tuple[int, int, MemberId]:
        return -len(conflicts[member]), -lacking[member], member

    queue = [rank(member) for member in conflicts]
    heapify(queue)
    while queue:
        entry = heappop(queue)
        member = entry[2]
        if member not in left or not conflicts[member] or entry != rank(member):
            continue  # gone, agreed with by now, or ranked anew
        left.remove(member)
        for other in conflicts[member]:
            conflicts[other].discard(member)
            if member not in paired[other]:
                lacking[other] -= 1
            heappush(queue, rank(other))
    return tuple(sorted(left))


def unrecoverable(
    answering: Collection[MemberId],
    survivors: Collection[MemberId],
    paired: Mapping[MemberId, Collection[MemberId]],
    threshold: int,
) -> tuple[MemberId, ...]:
    """Members with a mask in the sum of whose secret too few of those that will answer hold a share; sorted.

    A survivor's own mask is in the sum, and it holds a share of its own seed; of a lost member the survivors' pair
    masks with it are.
    """
    needed = {*survivors, *(other for member in survivors for other in paired[member])}
    holding = Counter(dealer for member in answering for dealer in (member, *paired[member]))
    return tuple(sorted(member for member in needed if holding[member] < threshold))
