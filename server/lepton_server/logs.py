"""The coordinator's log: one line an event on standard error, for people at a terminal and as JSON elsewhere.

Tracebacks are plain: never the values of local variables, which may be keys, signatures or tokens.
"""

from __future__ import annotations

import sys
from typing import TextIO

import structlog
from structlog.typing import Processor


def configure_logs(stream: TextIO | None = None) -> None:
    """Direct the whole process's log; called once, by the command that is the process."""
    target = stream if stream is not None else sys.stderr
    last: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if target.isatty()
        else structlog.processors.JSONRenderer()
    )
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        last,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(20),
        # Looked up for each line: the process's standard error may have been replaced since.
        logger_factory=lambda *_names: structlog.WriteLogger(stream if stream is not None else sys.stderr),
        cache_logger_on_first_use=False,
    )
