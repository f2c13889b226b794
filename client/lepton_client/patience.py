"""How long a transfer may be silent before it is tried again: a connection can die without a word to its reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: Longest silence of a first try, in seconds: 1 MiB over 0.6 Mbit/s.
QUIET_S = 15.0


class SilenceError(Exception):
    """Nothing came for so long."""


class Patience:
    """Of one transfer; what it allows doubles with each silence, so that a line of any speed gets a chunk through."""

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        #: What the next try allows, in seconds.
        self.quiet_s = quiet_s

    def lost(self) -> SilenceError:
        """What a silence is: the next try may be silent for twice as long."""
        silent_s, self.quiet_s = self.quiet_s, 2.0 * self.quiet_s
        return SilenceError(f"nothing for {silent_s:g} s")

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[Callable[[], None]]:
        """Cancels what is awaited inside after a silence; what it gives is called whenever something came.

        Raises:
            SilenceError: nothing did for too long.
        """
        quiet_s, now = self.quiet_s, asyncio.get_running_loop().time
        silence = asyncio.timeout(quiet_s)

        def heard() -> None:
            silence.reschedule(now() + quiet_s)

        try:
            async with silence:
                yield heard
        except TimeoutError:
            if not silence.expired():
                raise
            raise self.lost() from None
