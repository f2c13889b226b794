"""A plan without a job promises what a job's own noise would."""

from __future__ import annotations

import pytest

from lepton_core.errors import InputError
from lepton_core.privacy.plan import plan_sums, told_rounds
from lepton_pool.promise import plan_privacy
from tests.unit.pool.test_promise import make_job


def test_a_plan_of_sums_is_that_of_a_job_with_the_same_numbers() -> None:
    job = plan_privacy(make_job())
    assert job is not None
    planned = plan_sums(2.0, 1e-4, 60, contributors=8, colluders=2)
    assert planned.noise_multiplier == job.noise_multiplier
    assert planned.epsilon == pytest.approx(job.epsilon, rel=1e-6)
    assert planned.epsilon_against_sums == pytest.approx(job.epsilon_against_sums, rel=1e-6)
    assert planned.epsilon_if_all_collude == pytest.approx(job.epsilon_if_all_collude, rel=1e-6)
    assert [number for number, _ in planned.by_round] == [number for number, _ in job.by_round]


def test_a_sample_costs_no_more_than_all_records() -> None:
    whole, sampled = (plan_sums(8.0, 1e-4, 50, contributors=5, sampling_rate=rate) for rate in (1.0, 0.05))
    assert sampled.noise_multiplier < whole.noise_multiplier
    assert sampled.epsilon <= 8.0


def test_a_plan_out_of_range_is_refused() -> None:
    for change in ({"epsilon": 0.0}, {"delta": 1.0}, {"contributors": 3, "colluders": 3}, {"sampling_rate": 0.0}):
        numbers = {"epsilon": 2.0, "delta": 1e-4, "contributors": 4, "colluders": 0, "sampling_rate": 1.0} | change
        with pytest.raises(InputError):
            plan_sums(
                numbers["epsilon"],
                numbers["delta"],
                10,
                contributors=int(numbers["contributors"]),
                colluders=int(numbers["colluders"]),
                sampling_rate=numbers["sampling_rate"],
            )


def test_the_rounds_told_end_with_the_last() -> None:
    assert told_rounds(3) == [1, 2, 3]
    assert told_rounds(100)[-1] == 100
    assert len(told_rounds(100_000)) == 10
