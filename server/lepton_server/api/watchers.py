"""Who waits for a job's next event."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lepton_core.ids import JobId


class Watchers:
    """A bell a watcher. Bells say that there is something to read, never what: events are read from the store."""

    def __init__(self) -> None:
        self._bells: dict[JobId, set[asyncio.Event]] = {}

    def ring(self, job: JobId) -> None:
        """Wake everybody who watches the job."""
        for bell in self._bells.get(job, ()):
            bell.set()

    @contextmanager
    def watch(self, job: JobId) -> Iterator[asyncio.Event]:
        """A bell that rings while the block runs; clear it before reading."""
        bell = asyncio.Event()
        bells = self._bells.setdefault(job, set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells:
                self._bells.pop(job, None)
