"""How much a member's update counts in the mean: all alike, or by its rows, as a number that only the sum shows.

A weight w is min(rows, most_rows) / most_rows as 16-bit fixed point, 65535 being 1. The member clips its update to the
public norm, multiplies it by w and adds w itself in a lane of its own; the decoder divides one sum by the other.
"""

from __future__ import annotations

from lepton_core.errors import CodecError
from lepton_core.job import Job
from lepton_core.secagg.terms import LaneGroup

#: The weight of `most_rows` rows, and of everybody where all count alike.
FULL_WEIGHT = 2**16 - 1
#: Where a masked input holds the weight: 32 bits have room for the largest cohort's sum.
WEIGHT_LANES = LaneGroup(length=1, bits=32)


def is_weighted(job: Job) -> bool:
    """True if members' weights differ, and travel in lanes of their own."""
    return job.aggregation.weighting == "rows"


def weight_of(job: Job, rows: int) -> int:
    """The weight of a member with so many rows, from 0 to `FULL_WEIGHT`."""
    most = job.aggregation.most_rows
    if most is None:
        return FULL_WEIGHT
    return round(FULL_WEIGHT * min(rows, most) / most)


def require_weight_sum(total: int, members: int) -> int:
    """The sum of so many members' weights, if it is one that something can be divided by.

    Raises:
        CodecError: nobody had any rows, or no members' weights give this sum.
    """
    if not 1 <= total <= members * FULL_WEIGHT:
        raise CodecError(
            "a sum of weights that cannot be divided by",
            where="aggregation.weighting",
            expected=f"1 to {members * FULL_WEIGHT} of {members} members",
            got=str(total),
            hint="" if total else "no member of the round has rows, or most_rows is far above everybody's rows",
        )
    return total
