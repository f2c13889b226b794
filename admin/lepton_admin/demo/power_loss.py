"""One member loses power in the middle of a round, after its keys and before its upload, and comes back.

The protocol has to show that the sum of the others is still exact. A kill that came too late, after the upload, shows
nothing; then the loss is tried again in a later round with the full cohort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lepton_core.views import JobEvent, RoundView

#: How often the moment may be missed before the demo goes on without it.
MOST_ATTEMPTS = 4


@dataclass
class PowerLoss:
    """Watches a job's events, and kills and restarts one member at the right moments.

    `kill` and `restart` act on the member's process.
    """

    owner: str
    #: First round in which it may happen.
    from_round: int
    #: Only a round of the full cohort can lose a member and still have enough.
    cohort: int
    kill: Callable[[], None]
    restart: Callable[[], None]
    say: Callable[[str], None]
    #: Rounds in which the member was killed.
    rounds: list[int] = field(default_factory=list)
    #: Step in which the coordinator noticed, by round.
    noticed: dict[int, str] = field(default_factory=dict)
    #: True from the kill until the coordinator has noticed it, or the round has ended.
    is_down: bool = False

    def take(self, event: JobEvent) -> None:
        """Act on one event of the job."""
        if self.is_down:
            self._while_down(event)
        elif self._is_the_moment(event):
            self.kill()
            self.is_down = True
            self.rounds.append(event.round)
            self.say(f"--- SIGKILL to {self.owner}: its shares are dealt, its upload is not here")
            self.restart()
            self.say(f"--- {self.owner} starts again from its disk; its secrets of round {event.round} are gone")

    def happened(self) -> bool:
        """True once a member was lost before its upload."""
        return "input" in self.noticed.values()

    def _is_the_moment(self, event: JobEvent) -> bool:
        return (
            event.kind == "step"
            and event.step == "input"
            and event.round >= self.from_round
            and event.cohort >= self.cohort
            and not self.happened()
            and len(self.rounds) < MOST_ATTEMPTS
        )

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
