"""What a compute engine offers: work of a named kind in, a handle out."""

from __future__ import annotations

from typing import Protocol

from lepton_pool.frames import Frame


class Handle(Protocol):
    """A piece of work that was submitted."""

    async def result(self) -> Frame:
        """Waits for the result.

        Raises:
            LeptonError: whatever the work raised, as its own class.
            FaultError: the deadline passed, the worker died, or the work was cancelled.
        """
        ...

    def cancel(self) -> None:
        """Gives the work up, done or not; safe to call twice."""
        ...


class Engine(Protocol):
    """Runs the kinds of `lepton_pool.kinds`."""

    async def start(self) -> None:
        """Makes ready; cheap to call again."""
        ...

    def submit(self, kind: str, inputs: Frame, *, deadline_s: float) -> Handle:
        """Starts the work; the deadline counts from now."""
        ...

    async def close(self) -> None:
        """Gives up all work and leaves no process behind."""
        ...
