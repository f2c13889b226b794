"""Does the moment at which an update leaves depend on how long it took to learn it? Only when the pace is raised."""

from __future__ import annotations

import math
import random

import pytest

from lepton_client.pacing import Pace


def released_at(pace: Pace, elapsed_s: float, deadline_s: float = 60.0) -> float:
    return elapsed_s + pace.wait_s(elapsed_s, deadline_s)


def test_rounds_of_different_length_are_released_at_one_time() -> None:
    pace, times = Pace(), random.Random(1)
    first = released_at(pace, 0.1)
    assert 0.12 <= first < 0.12 * math.sqrt(2)
    assert {round(released_at(pace, times.uniform(0.001, 0.12)), 9) for _ in range(200)} == {round(first, 9)}


def test_the_pace_lies_on_a_grid_of_half_powers_of_two_and_is_never_lowered() -> None:
    pace = Pace()
    paces = [released_at(pace, elapsed) for elapsed in (0.01, 0.3, 0.05, 0.31, 0.002)]
    assert paces[0] < paces[1] == pytest.approx(paces[2]) == pytest.approx(paces[3]) == pytest.approx(paces[4])
    for one in paces:
        steps = 2 * math.log2(one / 1e-3)
        assert steps == pytest.approx(round(steps), abs=1e-6)


def test_two_sites_whose_rows_differ_by_little_have_one_pace() -> None:
    assert released_at(Pace(), 0.100) == pytest.approx(released_at(Pace(), 0.101))


def test_nothing_is_held_beyond_half_of_the_deadline() -> None:
    pace = Pace()
    assert released_at(pace, 14.0, deadline_s=30.0) == pytest.approx(15.0)
    assert pace.wait_s(20.0, 30.0) == 0.0
    assert pace.wait_s(29.0, 30.0) == 0.0


def test_training_of_no_time_at_all_is_held_for_a_moment() -> None:
    assert released_at(Pace(), 0.0) == 0.0
    assert released_at(Pace(), 1e-6) == pytest.approx(1e-3)
