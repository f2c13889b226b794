"""When an update may leave, so that the time it took to learn it tells nothing of the records that were drawn.

A training step takes longer the more records it is made of. The daemon holds every update of a private job until a
fixed time after its training began: the job's pace, a number of the grid 2^(k/2) milliseconds a fifth above what some
rounds took, which every sixteenth round sets anew. The first round, in which the model is built, sets its own.

- Where each round draws its records, the pace is set by the slowest of the sixteen, and a round that takes longer
  raises it: an observer learns one number of a coarse grid in sixteen rounds, and when the pace was raised; never a
  round's own time.
- Where every round takes all of them, each does the same work, and what one takes longer than the usual is the
  machine's doing: the pace is set by the median, and a slower round leaves when it is done.
"""

from __future__ import annotations

import math
import statistics

from lepton_core.job import Job
from lepton_core.privacy.rules import RECORD_MODES

#: The grid's finest step, in seconds; training that is faster is as fast.
_LEAST_S = 1e-3
#: What a round may take longer than the slowest before, without raising the pace.
_MARGIN = 1.2
#: Share of a step's deadline that is never waited beyond: an update that comes late is worse than one that tells.
_MOST_OF_DEADLINE = 0.5


#: Rounds after which the pace is set anew, by the slowest of them.
_WINDOW = 16


class Pace:
    """One job's pace."""

    def __init__(self, *, sampled: bool) -> None:
        """`sampled`: each round draws its records, so that every round's own time is to be hidden."""
        self._sampled = sampled
        #: Seconds from the beginning of training to the release; 0 where the next round sets it.
        self._pace_s = 0.0
        #: What the rounds since the pace was set took, in seconds.
        self._taken_s: list[float] = []
        self._is_first = True

    @classmethod
    def of(cls, job: Job) -> Pace:
        """The pace of a private job."""
        takes_all = job.privacy.mode in RECORD_MODES and job.training.record_rate >= 1.0
        return cls(sampled=not takes_all)

    def wait_s(self, elapsed_s: float, deadline_s: float) -> float:
        """How long to hold an update that took so long to learn, in a step of this deadline; at least 0."""
        if self._pace_s == 0.0 or (self._sampled and elapsed_s > self._pace_s):
            self._pace_s = _on_grid(elapsed_s)
        wait_s = max(0.0, min(self._pace_s, _MOST_OF_DEADLINE * deadline_s) - elapsed_s)
        self._taken_s.append(elapsed_s)
        if self._is_first:
            self._is_first, self._pace_s, self._taken_s = False, 0.0, []
        elif len(self._taken_s) == _WINDOW:
            usual_s = max(self._taken_s) if self._sampled else statistics.median(self._taken_s)
            self._pace_s, self._taken_s = _on_grid(usual_s), []
        return wait_s


def _on_grid(elapsed_s: float) -> float:
    """The least number of the grid that is a margin above so many seconds."""
    steps = math.ceil(2.0 * math.log2(max(1.0, _MARGIN * elapsed_s / _LEAST_S)))
    return float(_LEAST_S * 2.0 ** (steps / 2.0))
