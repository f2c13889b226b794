"""What pure code asks of the world: time and randomness, passed in as arguments."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time, for deadlines and audit rows."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        ...


class Randomness(Protocol):
    """A source of secret random bytes."""

    def token(self, length: int) -> bytes:
        """`length` fresh uniform bytes."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        return time.time()


class SystemRandomness:
    """The operating system's cryptographic generator; what production uses."""

    def token(self, length: int) -> bytes:
        """`length` fresh uniform bytes."""
        return os.urandom(length)
