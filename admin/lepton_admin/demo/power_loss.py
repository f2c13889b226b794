"""One member loses power in the middle of a round, after its keys and before its upload, and comes back.

The protocol has to show that the sum of the others is still exact, so the member must die before its upload, however
fast a round is. While a full round is past its uploads the member's training process is stopped: then the next round
waits for it, its shares dealt and its upload missing, and the kill cannot come too late. A round whose uploads began
before the process was stopped shows nothing; the one after it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lepton_core.views import JobEvent, RoundView

#: How often the moment may be missed before the demo goes on without it.
MOST_ATTEMPTS = 4
#: Seconds without an event after which a round waits for the stopped member.
QUIET_S = 1.0


@dataclass
class PowerLoss:
    """Watches a job's events, and stops, kills and restarts one member at the right moments.

    `stop` stops the member's training process and tells whether it could; `kill` and `restart` act on the whole member.
    """

    owner: str
    #: First round in which it may happen.
    from_round: int
    #: Only a round of the full cohort can lose a member and still have enough.
    cohort: int
    stop: Callable[[], bool]
    kill: Callable[[], None]
    restart: Callable[[], None]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.time
    #: Rounds in which the member was killed.
    rounds: list[int] = field(default_factory=list)
    #: Step in which the coordinator noticed, by round.
    noticed: dict[int, str] = field(default_factory=dict)
    #: True from the kill until the coordinator has noticed it, or the round has ended.
    is_down: bool = False
    #: When the training process was stopped, in seconds since the epoch, 0 if it could not be; None before.
    stopped: float | None = None
    _newest: JobEvent | None = None

    def take(self, event: JobEvent) -> None:
        """Act on one event of the job."""
        self._newest = event
        if self.is_down:
            self._while_down(event)
        elif self.stopped is not None:
            # What is uploaded in this round was learnt after the stop.
            if event.kind == "step" and event.step == "input" and event.time > self.stopped:
                self._lose(event.round)
        elif self._is_near(event):
            self.stopped = self.clock() if self.stop() else 0.0

    def look(self) -> None:
        """Act on silence; call it now and then: a round that began before the stop may wait for the member too."""
        newest = self._newest
        if newest is not None and self.stopped and not self.is_down and self.clock() - newest.time > QUIET_S:
            self._lose(newest.round)

    def happened(self) -> bool:
        """True once a member was lost before its upload."""
        return "input" in self.noticed.values()

    def _is_near(self, event: JobEvent) -> bool:
        """Whether the next round may be the one, and this one has its uploads."""
        return (
            event.kind == "step"
            and event.step == "consistency"
            and event.round + 1 >= self.from_round
            and event.cohort >= self.cohort
            and not self.happened()
            and len(self.rounds) < MOST_ATTEMPTS
        )

    def _lose(self, number: int) -> None:
        self.kill()
        self.is_down, self.stopped = True, None
        self.rounds.append(number)
        self.say(f"--- SIGKILL to {self.owner}: its shares are dealt, its upload is not here")
        self.restart()
        self.say(f"--- {self.owner} starts again from its disk; its secrets of round {number} are gone")

    def _while_down(self, event: JobEvent) -> None:
        if event.round != self.rounds[-1]:
            return
        if event.kind == "dropped" and event.owner == self.owner:
            self.noticed[event.round] = event.step
            self.is_down = False
        elif event.kind in {"round", "aborted-round"}:
            # The round ended before its loss was noticed: the kill came after its last message.
            self.is_down = False


def recovered(rounds: tuple[RoundView, ...], owner: str) -> list[RoundView]:
    """Completed rounds that lost the owner before its upload, with its masks taken off by reconstruction."""
    return [
        view
        for view in rounds
        if view.state == "completed"
        and view.pair_masks_reconstructed >= 1
        and any(lost.owner == owner and lost.step == "input" for lost in view.dropped)
    ]


def came_back(rounds: tuple[RoundView, ...], owner: str, after: int) -> int:
    """The first round after `after` whose sum holds the owner again; 0 if there is none."""
    return min((view.round for view in rounds if view.round > after and owner in view.survivors), default=0)
