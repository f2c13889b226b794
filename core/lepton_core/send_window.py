"""How many chunks of an upload may be on their way unacknowledged: one on a slow line, more where one would idle it.

What is unacknowledged when a connection breaks is sent again, so it is kept to one chunk and what the line and both
ends carry in a round trip. Times are arguments, in seconds of any steady clock.
"""

from __future__ import annotations

import math
from collections import deque

#: What waking up both ends may take beyond the round trip; a chunk that takes longer to send is alone on its way.
SLACK_S = 0.03
#: At most so many chunks; with 1 MiB chunks, 1 Gbit/s over a round trip of 65 ms.
MOST_CHUNKS = 8
#: Weight of the newest chunk in what a chunk takes.
_NEWEST = 0.25
#: No chunk takes less: clocks are coarse.
_LEAST_S = 1e-4


class SendWindow:
    """The unacknowledged chunks of one upload.

    Guarantees: never more than `MOST_CHUNKS` are unacknowledged, and no second one while a chunk takes longer than
    `round_trip_s + SLACK_S`; before the first acknowledgement there is one.
    """

    def __init__(self, acknowledged: int, round_trip_s: float) -> None:
        #: Bytes that the receiver has confirmed.
        self.acknowledged = acknowledged
        self._round_trip_s = round_trip_s
        #: End and time of each chunk on its way.
        self._sent: deque[tuple[int, float]] = deque()
        self._last_s = -math.inf
        self._chunk_s: float | None = None

    @property
    def chunks(self) -> int:
        """Chunks that may be unacknowledged now."""
        if self._chunk_s is None:
            return 1
        return min(MOST_CHUNKS, 1 + int((self._round_trip_s + SLACK_S) / self._chunk_s))

    @property
    def is_open(self) -> bool:
        """True if another chunk may be sent."""
        return len(self._sent) < self.chunks

    def sent(self, end: int, now_s: float) -> None:
        """A chunk that ends at byte `end` was handed over."""
        self._sent.append((end, now_s))

    def acknowledge(self, received: int, now_s: float) -> None:
        """The receiver has everything up to byte `received`."""
        self.acknowledged = max(self.acknowledged, received)
        while self._sent and self._sent[0][0] <= received:
            _, sent_s = self._sent.popleft()
            self._round_trip_s = min(self._round_trip_s, now_s - sent_s)
            # A chunk begins to take the line when it was sent, or when the one before was through.
            took_s = max(_LEAST_S, now_s - max(sent_s + self._round_trip_s, self._last_s))
            self._chunk_s = took_s if self._chunk_s is None else self._chunk_s + _NEWEST * (took_s - self._chunk_s)
            self._last_s = now_s
