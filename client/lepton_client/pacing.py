"""When an update may leave, so that the time it took to learn it tells nothing of the records that were drawn.

A training step takes longer the more records its sample has. The daemon holds every update of a private job until a
fixed time after its training began: the job's pace, a number of the grid 2^(k/2) milliseconds a fifth above the slowest
of some rounds. A round that takes longer than the pace raises it; every sixteenth round sets it anew, so that one slow
round does not slow down the rest of the job. The first round, in which the model is built, sets its own. So an observer
learns one number of a coarse grid in sixteen rounds, and when the pace was raised; never a round's own time.
"""

from __future__ import annotations

import math

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

    def __init__(self) -> None:
        #: Seconds from the beginning of training to the release; 0 where the next round sets it.
        self._pace_s = 0.0
        #: Of the rounds since the pace was set, the slowest, in seconds, and how many there were.
        self._slowest_s = 0.0
        self._rounds = 0
        self._is_first = True

    def wait_s(self, elapsed_s: float, deadline_s: float) -> float:
        """How long to hold an update that took so long to learn, in a step of this deadline; at least 0."""
        if elapsed_s > self._pace_s:
            self._pace_s = _on_grid(elapsed_s)
        wait_s = max(0.0, min(self._pace_s, _MOST_OF_DEADLINE * deadline_s) - elapsed_s)
        self._slowest_s, self._rounds = max(self._slowest_s, elapsed_s), self._rounds + 1
        if self._is_first:
            self._is_first, self._pace_s, self._slowest_s, self._rounds = False, 0.0, 0.0, 0
        elif self._rounds == _WINDOW:
            self._pace_s, self._slowest_s, self._rounds = _on_grid(self._slowest_s), 0.0, 0
        return wait_s


def _on_grid(elapsed_s: float) -> float:
    """The least number of the grid that is a margin above so many seconds."""
    steps = math.ceil(2.0 * math.log2(max(1.0, _MARGIN * elapsed_s / _LEAST_S)))
    return float(_LEAST_S * 2.0 ** (steps / 2.0))
