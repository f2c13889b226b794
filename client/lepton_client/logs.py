"""The daemon's log: one line an event on standard error, for people at a terminal and as JSON elsewhere.

No value from records, no count of rows, no update and no secret is ever given to it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO, TypeAlias

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

#: What the client's modules log to.
Log: TypeAlias = "FilteringBoundLogger"


def open_log(stream: TextIO | None = None) -> Log:
    """A log on the stream, standard error by default."""
    import structlog  # a tenth of a second, which commands that keep no log would pay for

    target = stream if stream is not None else sys.stderr
    last: Processor = structlog.dev.ConsoleRenderer() if target.isatty() else structlog.processors.JSONRenderer()
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(target),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    return log
