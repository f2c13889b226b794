"""How many chunks an upload has on its way: one on a slow line, enough to fill a fast or a long one."""

from __future__ import annotations

import heapq

import pytest

from lepton_core.send_window import MOST_CHUNKS, SLACK_S, SendWindow

CHUNK = 2**20


def carry(chunk_s: float, round_trip_s: float, chunks: int = 400) -> tuple[float, int]:
    """An upload over a line that takes so long for a chunk and a round trip: seconds, and most chunks on their way."""
    window, now, line_free, sent = SendWindow(0, round_trip_s), 0.0, 0.0, 0
    arriving: list[tuple[float, int]] = []
    most = 0
    while window.acknowledged < chunks * CHUNK:
        while window.is_open and sent < chunks:
            sent += 1
            line_free = max(line_free, now) + chunk_s
            heapq.heappush(arriving, (line_free + round_trip_s, sent * CHUNK))
            window.sent(sent * CHUNK, now)
            most = max(most, sent - window.acknowledged // CHUNK)
        now, received = heapq.heappop(arriving)
        window.acknowledge(received, now)
    return now, most


@pytest.mark.parametrize(("chunk_s", "round_trip_s"), [(0.1, 0.02), (0.05, 0.005), (1.0, 0.3), (0.2, 0.15)])
def test_on_a_line_where_a_chunk_takes_longer_than_a_round_trip_there_is_one(chunk_s, round_trip_s):
    assert chunk_s > round_trip_s + SLACK_S
    assert carry(chunk_s, round_trip_s)[1] == 1


@pytest.mark.parametrize(("chunk_s", "round_trip_s"), [(0.01, 0.05), (0.002, 0.001), (0.015, 0.1)])
def test_a_fast_or_long_line_is_kept_busy_by_no_more_than_it_carries(chunk_s, round_trip_s):
    seconds, most = carry(chunk_s, round_trip_s)
    assert seconds < 1.25 * (400 * chunk_s + round_trip_s)
    assert 1 < most <= min(MOST_CHUNKS, 2 + (round_trip_s + SLACK_S) / chunk_s)


def test_a_line_that_becomes_slow_has_one_again():
    window, now = SendWindow(0, 0.001), 0.0
    for number in range(1, 60):
        window.sent(number * CHUNK, now)
        now += 0.002 if number < 30 else 0.2
        window.acknowledge(number * CHUNK, now)
        assert window.chunks > 1 or number >= 30
    assert window.chunks == 1


def test_an_acknowledgement_may_speak_of_several_chunks_and_an_older_one_changes_nothing():
    window = SendWindow(CHUNK, 0.01)
    window.sent(2 * CHUNK, 1.0)
    assert not window.is_open
    window.acknowledge(2 * CHUNK, 1.1)
    window.acknowledge(CHUNK, 1.2)
    assert window.is_open
    assert window.acknowledged == 2 * CHUNK
