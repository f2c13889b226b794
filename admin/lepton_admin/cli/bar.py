"""A bar for transfers that take long: on standard error, only where somebody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lepton_admin.cli.options import OutputFormat

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from lepton_admin.link import CoordinatorLink

#: A transfer that is over sooner shows nothing.
SHOWN_AFTER_S = 2.0


@contextmanager
def transfer_bar(link: CoordinatorLink, output: OutputFormat, what: str) -> Iterator[None]:
    """Show what the link transfers meanwhile; nothing for a program, or where standard error is no terminal."""
    if output is OutputFormat.JSON or not sys.stderr.isatty():
        yield
        return
    before, bar = link.progress, TransferBar(what)
    link.progress = bar.tell
    try:
        yield
    finally:
        link.progress = before
        bar.close()


class TransferBar:
    """One bar a transfer, which appears once the transfer has taken a while."""

    def __init__(self, what: str, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._now_s = now_s
        self._began_s: float | None = None
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def tell(self, done: int, size: int) -> None:
        """So many of so many bytes are transferred."""
        now_s = self._now_s()
        if self._began_s is None:
            self._began_s = now_s
        if self._bars is None and now_s - self._began_s >= SHOWN_AFTER_S and done < size:
            self._bars = _bars()
            self._bars.start()
        if self._bars is not None:
            if self._task is None:
                self._task = self._bars.add_task(self._what, total=size)
            self._bars.update(self._task, completed=done)
        if done >= size:
            self.close()

    def close(self) -> None:
        """Take the bar away; the next transfer has one of its own."""
        if self._bars is not None:
            self._bars.stop()
        self._began_s, self._bars, self._task = None, None, None


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
