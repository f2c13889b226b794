"""Who shares pair masks and secrets with whom, and how many holders rebuild a secret.

Up to 64 members everybody is everybody's neighbour. Beyond, each has k neighbours: the Harary graph over a
permutation that the roster's root and the coordinator's nonce draw. The coordinator commits to its nonce before it
knows a key, and every member computes the graph itself, so that nobody chooses who stands beside whom.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lepton_core.errors import InputError
from lepton_core.ids import MemberId
from lepton_core.secagg.parameters import Assumptions, Parameters, require_parameters, search
from lepton_core.secagg.terms import (
    COMPLETE_GRAPH_LIMIT,
    LARGEST_COHORT,
    SMALLEST_COHORT,
    Terms,
    complete_graph_threshold,
    labelled_hash,
)


@dataclass(frozen=True)
class Graph:
    """The neighbourhoods of one roster, and the numbers that go with them. Made by `draw_graph`."""

    #: Sorted.
    members: tuple[MemberId, ...]
    #: t: how many holders rebuild a secret.
    threshold: int
    #: How many neighbours must deal to a member, and sign the survivor set, before it goes on. In the complete graph
    #: t - 1, since it counts itself; in a sparse one t, itself not counted.
    quorum: int
    #: Fewest survivors for which the graph was made.
    staying: int
    #: The permutation around which a sparse graph's neighbours lie; empty in the complete graph.
    circle: tuple[MemberId, ...] = ()
    #: k of a sparse graph.
    degree: int = 0
    #: Place of each member on the circle.
    places: Mapping[MemberId, int] = field(default_factory=dict, repr=False, compare=False)

    def neighbours(self, me: MemberId) -> tuple[MemberId, ...]:
        """The members that share a pair mask with `me`, sorted; symmetric: a is b's neighbour if b is a's.

        Raises:
            InputError: `me` is not a member.
        """
        others = tuple(member for member in self.holders(me) if member != me)
        if not self.circle and len(others) == len(self.members):
            raise _stranger(me)
        return others

    def holders(self, dealer: MemberId) -> tuple[MemberId, ...]:
        """Who holds a share of the dealer's secrets: its neighbours and itself, sorted; the Shamir x is 1 + index.

        Raises:
            InputError: the dealer is not a member of a sparse graph.
        """
        if not self.circle:
            return self.members
        place = self.places.get(dealer)
        if place is None:
            raise _stranger(dealer)
        first, after = place - self.degree // 2, place + self.degree // 2 + 1
        if first >= 0 and after <= len(self.circle):
            return tuple(sorted(self.circle[first:after]))
        return tuple(sorted(self.circle[spot % len(self.circle)] for spot in range(first, after)))

    def least_survivors(self, min_cohort: int) -> int:
        """Fewest survivors whose sum may be revealed, with this minimum cohort."""
        return max(self.threshold, self.staying, min_cohort)


def draw_graph(roster_root: bytes, server_nonce: bytes, members: Sequence[MemberId], terms: Terms) -> Graph:
    """The graph of a roster: complete, or sparse over members in the order of a hash of root, nonce and member.

    Raises:
        InputError: a size without a graph, or numbers that it does not allow.
    """
    if not roster_root or not server_nonce:
        raise InputError("the graph needs the roster's root and the coordinator's nonce", where="graph")
    ordered = tuple(sorted(members))
    parameters = choose_parameters(len(ordered), terms)
    if parameters is None:
        t = threshold(len(ordered), terms.corruption)
        return Graph(ordered, t, quorum=t - 1, staying=t)
    seed = hashlib.sha256(labelled_hash(b"lepton/secagg/v1/graph", roster_root, server_nonce))

    def draw(member: MemberId) -> bytes:
        drawn = seed.copy()
        drawn.update(member)
        return drawn.digest()

    circle = tuple(sorted(ordered, key=draw))
    return Graph(
        ordered,
        parameters.threshold,
        quorum=parameters.threshold,
        staying=_assumptions(len(ordered), terms).staying,
        circle=circle,
        degree=parameters.neighbours,
        places={member: place for place, member in enumerate(circle)},
    )


def choose_parameters(members: int, terms: Terms) -> Parameters | None:
    """Neighbours and threshold of a cohort under these terms; None stands for the complete graph.

    Sizes up to 64 have the complete graph, and larger ones that no sparse graph serves. Numbers that the terms give
    are used beyond 64 members, and are believed as little as anything else.

    Raises:
        InputError: a size without a graph, given numbers that break a condition, or assumptions that even the complete
            graph does not serve; tells the nearest numbers that would do.
    """
    require_size(members)
    if members <= COMPLETE_GRAPH_LIMIT:
        return None
    assumed = _assumptions(members, terms)
    if terms.neighbours:
        given = Parameters(terms.neighbours, terms.threshold)
        require_parameters(given, assumed)
        return given
    found = search(assumed)
    if found is None and threshold(members, terms.corruption) > assumed.staying:
        raise InputError(
            "more members may drop out than any graph allows",
            where=f"{members} members",
            expected=f"a threshold of {threshold(members, terms.corruption)} members that stay",
            got=f"{assumed.staying} with dropout {terms.dropout}",
            hint=_nearest(members, terms),
            reason="INFEASIBLE",
        )
    return found


def require_size(members: int) -> None:
    """Refuse a cohort that has no graph.

    Raises:
        InputError: fewer than 3, where a sum tells too much, or more than a roster may list.
    """
    if not SMALLEST_COHORT <= members <= LARGEST_COHORT:
        raise InputError(
            "a cohort of this size cannot be aggregated",
            where="cohort",
            expected=f"{SMALLEST_COHORT} to {LARGEST_COHORT} members",
            got=str(members),
            hint=f"set aggregation.max_cohort to at most {LARGEST_COHORT}",
            reason="COHORT_SIZE",
        )


def threshold(members: int, corruption: float) -> int:
    """Threshold t of the complete graph: how many holders rebuild a secret, from its size and the share of colluders.

    At least floor(2n/3) + 1, and 2t > n + floor(corruption n), so that a lying coordinator and its colluders cannot
    gather t signatures, or t shares, for two survivor sets: the two groups would share an honest member, which
    signs and answers once. Always at most n for corruption below 1/2.
    Source: Bonawitz et al. 2017, theorem 6.5; Bell et al. 2020, section 4 (here the own share counts).

    Raises:
        InputError: a size without a graph, or a corruption outside [0, 1/2).
    """
    require_size(members)
    if not 0.0 <= corruption < 0.5:
        raise InputError("corruption must leave an honest majority", expected="0 <= corruption < 0.5")
    colluders = math.floor(corruption * members)
    return max(complete_graph_threshold(members), (members + colluders) // 2 + 1)


def _assumptions(members: int, terms: Terms) -> Assumptions:
    return Assumptions(members, terms.corruption, terms.dropout, terms.security_bits)


def _nearest(members: int, terms: Terms) -> str:
    """The largest dropout in whole percents, below the one asked for, with which there is a graph."""
    t = threshold(members, terms.corruption)
    percent = (
        kept
        for kept in range(math.ceil(100 * terms.dropout) - 1, -1, -1)
        if members - members * kept // 100 >= t
        or search(Assumptions(members, terms.corruption, kept / 100, terms.security_bits)) is not None
    )
    return f"assume a dropout of at most {next(percent, 0)} %, or invite at most {COMPLETE_GRAPH_LIMIT} members"


def _stranger(me: MemberId) -> InputError:
    return InputError("not a member of the roster", where=f"member {me.hex()}")
