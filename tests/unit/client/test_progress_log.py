"""The daemon's log of transfers: nothing of short ones, a line now and then of long ones."""

from __future__ import annotations

import io
import json

import pytest

from lepton_client.logs import open_log
from lepton_client.progress_log import NEXT_LINE_S, progress_log


@pytest.fixture
def lines():
    """`tell(seconds, done, size)` of one transfer, and the lines it made."""
    stream, now = io.StringIO(), [100.0]
    tell = progress_log(open_log(stream), now_s=lambda: now[0])("upload of round 7")

    def at(seconds: float, done: int, size: int = 1_000) -> list[dict[str, object]]:
        now[0] = 100.0 + seconds
        tell(done, size)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return at


def test_a_short_transfer_is_not_told_of(lines):
    lines(0.1, 500)
    assert lines(1.9, 1_000) == []


def test_a_long_transfer_has_a_line_every_few_seconds_and_one_at_its_end(lines):
    for tenth in range(200):
        found = lines(tenth / 10, tenth)
    assert len(found) == 1 + int((20 - 2) / NEXT_LINE_S)
    found = lines(20.5, 1_000)
    assert (found[-1]["bytes"], found[-1]["of"], found[-1]["what"]) == (1_000, 1_000, "upload of round 7")


def test_a_line_has_names_and_numbers_alone(lines):
    assert set(lines(3.0, 10)[0]) <= {"what", "bytes", "of", "seconds", "event", "level", "timestamp", "time"}
