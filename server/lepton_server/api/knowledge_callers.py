"""How much one caller may ask: a rate, and a number of requests at once. Pure; the time is an argument."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from lepton_core.errors import RefusedError

#: Callers that are remembered; who is forgotten starts anew with a full allowance.
_MOST_CALLERS = 10_000


@dataclass(frozen=True)
class CallerLimits:
    """What one caller may ask."""

    requests_per_s: float = 10.0
    #: Requests that may come together after a pause.
    burst: int = 20
    at_once: int = 4


@dataclass
class _Allowance:
    #: Requests that may come now.
    left: float
    #: When `left` was right, in seconds.
    time: float
    running: int = 0


class Callers:
    """Token buckets, one a caller. Use it in one thread."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits = limits
        #: Heard of last at the end.
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    @contextlib.contextmanager
    def asking(self, caller: str, *, now: float) -> Iterator[None]:
        """Count a request while it runs; `now` in seconds never goes back.

        Raises:
            RefusedError: `reason` is RATE or CONCURRENCY.
        """
        allowance = self._allowances.get(caller)
        if allowance is None:
            allowance = self._allowances[caller] = _Allowance(self._limits.burst, now)
            self._forget_idle()
        self._allowances.move_to_end(caller)
        grown = allowance.left + (now - allowance.time) * self._limits.requests_per_s
        allowance.left, allowance.time = min(float(self._limits.burst), grown), now
        if allowance.left < 1.0:
            raise RefusedError(
                "too many requests",
                where=caller,
                expected=f"at most {self._limits.requests_per_s:g} a second, {self._limits.burst} together",
                got="more",
                hint="wait a second, and ask for more with each request",
                reason="RATE",
            )
        if allowance.running >= self._limits.at_once:
            raise RefusedError(
                "too many requests at once",
                where=caller,
                expected=f"at most {self._limits.at_once} that have not been answered",
                got="more",
                hint="wait for the answers",
                reason="CONCURRENCY",
            )
        allowance.left -= 1.0
        allowance.running += 1
        try:
            yield
        finally:
            allowance.running -= 1

    def _forget_idle(self) -> None:
        for caller in [*self._allowances][: max(0, len(self._allowances) - _MOST_CALLERS)]:
            if self._allowances[caller].running == 0:
                del self._allowances[caller]
