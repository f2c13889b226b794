"""What a watcher of a job sees: a live table on a terminal, one line an event when piped, JSON lines on request."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from lepton_admin.cli.answer import console, score, write_line
from lepton_admin.cli.options import OutputFormat
from lepton_core.errors import FaultError
from lepton_core.views import JobEvent, JobState

#: Rounds shown at once in the table; earlier ones are left out, and on a low screen more of them while it lives.
ROUNDS_SHOWN = 24
#: How often a stream that cannot be opened is tried again: about 80 s in all, enough to start a coordinator anew.
MOST_RETRIES = 20
#: Pause before a stream that ended without an error is opened again.
REOPEN_S = 0.05


@dataclass
class RoundRow:
    """One line of the live table."""

    round: int
    cohort: int = 0
    phase: str = ""
    dropped: list[str] = field(default_factory=list)
    accuracy: float = -1.0
    auc: float = -1.0
    epsilon: float = 0.0
    bytes_up: int = 0


@dataclass
class Scoreboard:
    """A job as its events have told it so far."""

    job: str
    state: str = "matching"
    can: list[str] = field(default_factory=list)
    #: Owner and why.
    cannot: list[tuple[str, str]] = field(default_factory=list)
    rounds: dict[int, RoundRow] = field(default_factory=dict)
    reason: str = ""
    #: Number of the last event taken in; a watcher goes on after it.
    sequence: int = 0

    def take(self, event: JobEvent) -> None:
        """Take in one event; those already taken in change nothing."""
        if event.sequence <= self.sequence:
            return
        self.sequence = event.sequence
        match event.kind:
            case "matched":
                self.can.append(event.owner)
            case "refused":
                self.cannot.append((event.owner, event.message))
            case "started":
                self.state = "running"
            case "finished" | "failed" | "aborted":
                self.state, self.reason = event.kind, event.message
        if event.round > 0:
            self._take_round(event)

    def _take_round(self, event: JobEvent) -> None:
        row = self.rounds.setdefault(event.round, RoundRow(event.round))
        row.cohort = event.cohort or row.cohort
        row.bytes_up = max(row.bytes_up, event.bytes_up)
        match event.kind:
            case "step":
                row.phase = event.step
            case "dropped":
                row.dropped.append(f"{event.owner} ({event.step})" if event.step else event.owner)
            case "round":
                row.phase = "evaluating"
            case "aborted-round":
                row.phase = "aborted"
            case "model":
                row.phase = "done"
                row.accuracy, row.auc, row.epsilon = event.accuracy, event.auc, event.epsilon

    def ended(self) -> bool:
        """True if nothing more will come."""
        return self.state in (JobState.FINISHED, JobState.FAILED, JobState.ABORTED)

    def table(self, rounds_shown: int = ROUNDS_SHOWN) -> Any:
        """The rich table of now; all of its columns fit into 80 characters."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        made = Table(
            title=f"{self.job}: {self.state}",
            box=box.SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            collapse_padding=True,
            pad_edge=False,
        )
        made.add_column("round", justify="right", no_wrap=True)
        made.add_column("cohort", justify="right", no_wrap=True)
        made.add_column("phase", min_width=10, no_wrap=True)
        made.add_column("dropped", min_width=15, overflow="fold")
        for column in ("accuracy", "AUC", "epsilon", "bytes up"):
            made.add_column(column, justify="right", min_width=5, no_wrap=True)
        for row in list(self.rounds.values())[-rounds_shown:]:
            made.add_row(
                str(row.round),
                str(row.cohort),
                row.phase,
                ", ".join(row.dropped) or "-",
                score(row.accuracy),
                score(row.auc),
                f"{row.epsilon:.2f}" if row.epsilon > 0 else "-",
                f"{row.bytes_up:,}" if row.bytes_up else "-",
            )
        return Group(made, *(Text(f"left out: {why}") for _, why in self.cannot))


class Watcher:
    """Shows events in the way that fits; use it in `with`.

    `say` shows a line about what is done around the job, such as the start of a process.
    """

    def __init__(self, job: str, output: OutputFormat, *, silent: bool = False) -> None:
        self.board = Scoreboard(job)
        self._silent = silent
        self._as_json = output is OutputFormat.JSON
        self._live: Any = None
        #: True once the table is drawn for the last time.
        self._closing = False

    def __enter__(self) -> Self:
        if not self._silent and not self._as_json and sys.stdout.isatty():
            from rich.live import Live

            screen = console()
            self._live = Live(
                get_renderable=lambda: self.live_table(screen),
                console=screen,
                refresh_per_second=8,
                vertical_overflow="crop",
                transient=False,
            )
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the table as it is now, so that other lines may follow; a second close does nothing."""
        if self._live is not None:
            self._closing = True
            self._live.stop()
            self._live = None

    def live_table(self, screen: Any) -> Any:
        """The table with as many rounds as the screen has lines for: what scrolled out could not be drawn over."""
        if not self._closing:
            lines = screen.height
            for rounds_shown in range(min(ROUNDS_SHOWN, len(self.board.rounds), max(1, lines - 5)), 1, -1):
                table = self.board.table(rounds_shown)
                if len(screen.render_lines(table)) < lines:
                    return table
        return self.board.table(ROUNDS_SHOWN if self._closing else 1)

    def take(self, event: JobEvent) -> None:
        """Take in and show one event."""
        if event.sequence <= self.board.sequence:
            return
        self.board.take(event)
        if self._silent:
            return
        if self._as_json:
            sys.stdout.write(json.dumps(dataclasses.asdict(event), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        elif self._live is None:
            write_line(line_of(event))

    def say(self, text: str) -> None:
        """Show a line that is no event of the job; JSON readers are spared it."""
        if self._silent or self._as_json:
            return
        if self._live is not None:
            self._live.console.print(text, highlight=False)
        else:
            write_line(text)


def line_of(event: JobEvent) -> str:
    """One event as one line."""
    parts = [time.strftime("%H:%M:%S", time.localtime(event.time)), f"{event.kind:<9}"]
    if event.round > 0:
        parts.append(f"round {event.round:<3}")
    parts.append(event.message)
    if event.bytes_up > 0 and event.kind == "round":
        parts.append(f"{event.bytes_up:,} bytes up")
    return "  ".join(parts)


def follow(
    events: Callable[[int], Iterable[JobEvent]],
    take: Callable[[JobEvent], None],
    board: Scoreboard,
    *,
    between: Callable[[], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Feed every event of a job to `take`, which keeps the board, until it has ended.

    `events(after)` opens the stream; one that is lost or ends early is opened again where it was, after `between()`.
    `say` is told when a stream cannot be opened.

    Raises:
        FaultError: the coordinator stayed away through all retries.
    """
    failures = 0
    while not board.ended():
        before = board.sequence
        try:
            for event in events(board.sequence):
                take(event)
        except FaultError as error:
            failures = 0 if board.sequence > before else failures + 1
            if failures > MOST_RETRIES:
                raise
            if failures == 1 and say is not None:
                say(f"{error.message}; trying again for a while")
            time.sleep(min(5.0, 0.2 * 2**failures))
        else:
            failures = 0
            if not board.ended():
                time.sleep(REOPEN_S)
        if between is not None:
            between()
