"""Does a plan's expected duration follow the line, the payload, the rows and the rounds?"""

from __future__ import annotations

import pytest

from lepton_admin.estimate import Line, expected_duration, in_words
from lepton_pool.terms import lane_groups
from tests.unit.client.owners import make_distributed_job, make_job


def test_a_round_takes_three_exchanges_and_the_payload_both_ways() -> None:
    job = make_job()
    payload = 8 * sum(group.words for group in lane_groups(job))
    duration = expected_duration(job, Line(mbit_s=8.0, round_trip_ms=200.0), rows=1)
    assert duration.exchanges_s == pytest.approx(0.6)
    assert duration.upload_s == duration.download_s == pytest.approx(payload / 1e6)
    assert duration.job_s == pytest.approx(3 * duration.round_s)


def test_more_rows_steps_and_a_slower_line_take_longer() -> None:
    job = make_job(model={"kind": "mlp", "hidden": (64,)})
    fast, slow = (expected_duration(job, Line(mbit_s=speed), rows=1000) for speed in (100.0, 1.0))
    assert slow.upload_s == pytest.approx(100 * fast.upload_s)
    assert expected_duration(job, Line(), rows=2000).training_s == pytest.approx(2 * fast.training_s)
    twice = make_job(model={"kind": "mlp", "hidden": (64,)}, training={"local_steps": 4})
    assert expected_duration(twice, Line(), rows=1000).training_s == pytest.approx(2 * fast.training_s)


def test_every_mode_has_a_duration() -> None:
    free = {"privacy": {"mode": "none", "noise_multiplier": None}}
    jobs = [make_distributed_job(), make_distributed_job("client-distributed"), make_job(**free)]
    jobs.append(make_job(**free, training={"batching": "epochs", "local_steps": 5}))
    jobs.append(make_job(**free, aggregation={"secure": False}))
    assert all(expected_duration(job, Line(), rows=100).round_s > 0.1 for job in jobs)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.126, "0.13 seconds"),
        (99.0, "99 seconds"),
        (115.0, "115 seconds"),
        (150.0, "2.5 minutes"),
        (3 * 3600.0, "3 hours"),
        (86_400.0 * 3.14, "3.1 days"),
        (86_400.0 * 250, "250 days"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
