"""Does the moment at which an update leaves depend on how long it took to learn it? Only when the pace is raised."""

from __future__ import annotations

import math
import random

import pytest

from lepton_client.pacing import Pace
from lepton_core.job import Job
from tests.unit.client.owners import make_distributed_job, make_job


def released_at(pace: Pace, elapsed_s: float, deadline_s: float = 60.0) -> float:
    return elapsed_s + pace.wait_s(elapsed_s, deadline_s)


def begun(*first_s: float, sampled: bool = True) -> Pace:
    """A pace after the first round, which sets its own, and these."""
    pace = Pace(sampled=sampled)
    for elapsed_s in (3.0, *first_s):
        released_at(pace, elapsed_s)
    return pace


def test_rounds_of_different_length_are_released_at_one_time() -> None:
    pace, times = begun(), random.Random(1)
    first = released_at(pace, 0.1)
    assert 0.12 <= first < 0.12 * math.sqrt(2)
    # Of the sixteenth round the next pace follows, which has the same place on the grid.
    released = {round(released_at(pace, times.choice((0.1, times.uniform(0.001, 0.1)))), 9) for _ in range(200)}
    assert released == {round(first, 9)}


def test_a_slower_round_raises_the_pace_at_once_and_later_ones_lower_it_after_sixteen() -> None:
    pace = begun(0.01)
    assert released_at(pace, 0.3) >= 0.3
    raised = [released_at(pace, 0.01) for _ in range(14)]
    assert len({round(one, 9) for one in raised}) == 1
    assert raised[0] >= 0.36
    still = [released_at(pace, 0.01) for _ in range(16)]
    assert {round(one, 9) for one in still} == {round(raised[0], 9)}
    assert released_at(pace, 0.01) < 0.02


def test_where_every_round_takes_all_records_a_slow_one_holds_no_other_back() -> None:
    pace, times = begun(0.1, sampled=False), random.Random(2)
    assert released_at(pace, 0.5) == 0.5  # by a busy machine: it does the work of all others
    usual = [released_at(pace, times.uniform(0.08, 0.12)) for _ in range(14)]
    assert len({round(one, 9) for one in usual}) == 1
    assert 0.12 <= usual[0] < 0.12 * math.sqrt(2)
    for _ in range(8):  # of sixteen, seven are slow: the pace stays what it was
        assert released_at(pace, 0.1) == pytest.approx(usual[0])
    for _ in range(7):
        assert released_at(pace, 0.5) == 0.5
    assert released_at(pace, 0.1) == pytest.approx(usual[0])
    assert released_at(pace, 0.1) == pytest.approx(usual[0])


def test_where_every_round_takes_all_records_the_pace_follows_what_is_usual() -> None:
    pace = begun(0.1, sampled=False)
    for _ in range(15):
        released_at(pace, 0.4)
    assert 0.48 <= released_at(pace, 0.01) < 0.48 * math.sqrt(2)
    for _ in range(15):
        released_at(pace, 0.01)
    assert 0.012 <= released_at(pace, 0.001) < 0.012 * math.sqrt(2)


@pytest.mark.parametrize("sampled", [True, False])
def test_every_pace_lies_on_a_grid_of_half_powers_of_two(sampled: bool) -> None:
    pace = begun(0.9, sampled=sampled)
    for elapsed in (0.01, 0.3, 0.05, 0.31, 0.002, 0.9):
        steps = 2 * math.log2(released_at(pace, elapsed) / 1e-3)
        assert steps == pytest.approx(round(steps), abs=1e-6)


def test_the_first_round_which_builds_the_model_does_not_slow_the_rest() -> None:
    assert released_at(Pace(sampled=True), 3.0) >= 3.6
    assert released_at(begun(), 0.05) < 0.1


def test_two_sites_whose_rows_differ_by_little_have_one_pace() -> None:
    assert released_at(begun(), 0.100) == pytest.approx(released_at(begun(), 0.101))


def test_nothing_is_held_beyond_half_of_the_deadline() -> None:
    pace = begun()
    assert released_at(pace, 14.0, deadline_s=30.0) == pytest.approx(15.0)
    assert pace.wait_s(20.0, 30.0) == 0.0
    assert pace.wait_s(29.0, 30.0) == 0.0


def test_training_of_no_time_at_all_is_held_for_a_moment() -> None:
    assert released_at(Pace(sampled=True), 0.0) == pytest.approx(1e-3)
    assert released_at(Pace(sampled=True), 1e-6) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("job", "sampled"),
    [
        (make_distributed_job(), False),
        (make_distributed_job(training={"batching": "poisson", "sampling_rate": 0.5, "local_steps": 1}), True),
        (make_distributed_job("client-distributed"), True),
        (make_job(training={"sampling_rate": 1.0}), False),
        (make_job(training={"sampling_rate": 0.5}), True),
    ],
)
def test_rounds_are_held_one_by_one_unless_each_takes_all_of_a_sites_records(job: Job, sampled: bool) -> None:
    pace = Pace.of(job)
    for elapsed_s in (3.0, 0.1, 0.5):  # the first builds the model, the second sets the pace
        released = released_at(pace, elapsed_s)
    assert (released > 0.5) is sampled
