"""What encoding has cost a round's members, as numbers that only the sum shows: clipped, saturated, squared error.

Only in a job without privacy, whose sums are published as they are: each member adds three numbers in lanes of their
own, masked like the rest. A private job tells what the public numbers lead one to expect, and nothing measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_compression.update import EncodeReport, RingPlan
from lepton_core.job import Job
from lepton_core.ring import Lanes
from lepton_core.secagg.terms import LaneGroup

#: 1 if the norm was clipped; the share of saturated values; the squared error over the expected one.
MEASURED_LANES = LaneGroup(length=3, bits=32)
#: The largest of a member's numbers: the largest cohort's sum has room in a lane.
_MOST = 2**16 - 1
#: Units of the squared error's ratio to the expected one; 256 and more times the expected are told as that.
_RATIO_UNIT = 2**8


@dataclass(frozen=True)
class Measured:
    """Means over the members of a round; a member alone is never told."""

    #: Members whose update was longer than the job's bound.
    clipped_members: int
    #: Share of rotated values beyond the plan's scale, 0 to 1.
    saturated_share: float
    #: E = sum (x - x_hat)^2 of one member's kept coordinates.
    squared_error: float


def is_measured(job: Job) -> bool:
    """True if members add these lanes."""
    return job.aggregation.secure and job.privacy.mode == "none"


def measured_lanes(report: EncodeReport, plan: RingPlan) -> Lanes:
    """One member's three numbers, shape (3,), int64 in [0, 2^16)."""
    ratio = report.squared_error / _expected_squared_error(plan)
    return np.array(
        [
            int(report.norm_clipped),
            round(report.saturated_fraction * _MOST),
            min(round(ratio * _RATIO_UNIT), _MOST),
        ],
        dtype=np.int64,
    )


def measured_of(total: Lanes, members: int, plan: RingPlan) -> Measured | None:
    """What the sum of so many members' numbers says; None for one that no members' numbers give.

    A member that lies here spoils a report and nothing else.
    """
    clipped, saturated, ratio = (int(value) for value in total)
    if not (0 <= clipped <= members and 0 <= saturated <= members * _MOST and 0 <= ratio <= members * _MOST):
        return None
    return Measured(
        clipped_members=clipped,
        saturated_share=saturated / (members * _MOST),
        squared_error=ratio / (members * _RATIO_UNIT) * _expected_squared_error(plan),
    )


def _expected_squared_error(plan: RingPlan) -> float:
    return plan.expected_encoding_error * plan.kept_norm**2
