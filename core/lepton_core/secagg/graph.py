"""Who shares pair masks and secrets with whom, and how many holders rebuild a secret."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lepton_core.errors import InputError
from lepton_core.ids import MemberId
from lepton_core.secagg.terms import COMPLETE_GRAPH_LIMIT, SMALLEST_COHORT, complete_graph_threshold


def require_size(members: int) -> None:
    """Refuse a cohort that has no graph in this version.

    Raises:
        InputError: fewer than 3, where a sum tells too much, or more than 64.
    """
    if not SMALLEST_COHORT <= members <= COMPLETE_GRAPH_LIMIT:
        raise InputError(
            "a cohort of this size cannot be aggregated",
            where="cohort",
            expected=f"{SMALLEST_COHORT} to {COMPLETE_GRAPH_LIMIT} members",
            got=str(members),
            hint=f"set aggregation.max_cohort to at most {COMPLETE_GRAPH_LIMIT}",
            reason="COHORT_SIZE",
        )


def neighbours(
    roster_root: bytes, server_nonce: bytes, members: Sequence[MemberId], me: MemberId
) -> tuple[MemberId, ...]:
    """The members that share a pair mask with `me`, sorted; symmetric: a is b's neighbour if b is a's.

    Up to 64 members: everybody else. Root and nonce seed the permutation of sparse graphs, of which this version
    has none.

    Raises:
        InputError: a size without a graph, or `me` is not a member.
    """
    require_size(len(members))
    if me not in members:
        raise InputError("not a member of the roster", where=f"member {me.hex()}")
    if not roster_root or not server_nonce:
        raise InputError("the graph needs the roster's root and the coordinator's nonce", where="graph")
    return tuple(sorted(member for member in members if member != me))


def holders(around: Sequence[MemberId], dealer: MemberId) -> tuple[MemberId, ...]:
    """Who holds a share of the dealer's secrets: its neighbours and itself, sorted; the Shamir x is 1 + index."""
    return tuple(sorted((*around, dealer)))


def threshold(members: int, corruption: float) -> int:
    """t: how many holders rebuild a secret, from the size and the assumed share of colluders alone.

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
