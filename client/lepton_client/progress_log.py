"""The daemon's log of transfers that take long: a line now and then, of names and numbers alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lepton_protos.incoming import Progress

#: A transfer that is over sooner is not told of.
FIRST_LINE_S = 2.0
#: Between two lines of one transfer.
NEXT_LINE_S = 5.0


def progress_log(log: Any, *, now_s: Callable[[], float] = time.monotonic) -> Callable[[str], Progress]:
    """For each transfer by its name, what its progress is told."""

    def of(what: str) -> Progress:
        began_s = now_s()
        line_s = began_s + FIRST_LINE_S

        def tell(done: int, size: int) -> None:
            nonlocal line_s
            now = now_s()
            if now >= line_s or (done >= size and now - began_s >= FIRST_LINE_S):
                line_s = now + NEXT_LINE_S
                log.info("transfer", what=what, bytes=done, of=size, seconds=round(now - began_s, 1))

        return tell

    return of
