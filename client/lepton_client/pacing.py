"""When an update may leave, so that the time it took to learn it tells nothing of the records that were drawn.

A training step takes longer the more records its sample has. The daemon holds every update of a private job until a
fixed time after its training began: the job's pace, a public-looking number from the grid 2^(k/2) milliseconds. It is
set by the first round, a fifth above what that took, and raised only by a round that took longer than the pace. So an
observer learns when the pace was raised, some half powers of two over a whole job, and never a round's own time.
"""

from __future__ import annotations

import math

#: The grid's finest step, in seconds; training that is faster is as fast.
_LEAST_S = 1e-3
#: What a round may take longer than the slowest before, without raising the pace.
_MARGIN = 1.2
#: Share of a step's deadline that is never waited beyond: an update that comes late is worse than one that tells.
_MOST_OF_DEADLINE = 0.5


class Pace:
    """One job's pace; it is never lowered."""

    def __init__(self) -> None:
        #: Seconds from the beginning of training to the release; 0 before the first round.
        self._pace_s = 0.0

    def wait_s(self, elapsed_s: float, deadline_s: float) -> float:
        """How long to hold an update that took so long to learn, in a step of this deadline; at least 0."""
        if elapsed_s > self._pace_s:
            steps = math.ceil(2.0 * math.log2(max(1.0, _MARGIN * elapsed_s / _LEAST_S)))
            self._pace_s = _LEAST_S * 2.0 ** (steps / 2.0)
        return max(0.0, min(self._pace_s, _MOST_OF_DEADLINE * deadline_s) - elapsed_s)
