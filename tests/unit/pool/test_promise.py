"""Do jobs with distributed noise keep their promise, by the event that owners charge and the words members send?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_core.errors import JobError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.ports import SystemRandomness
from lepton_core.privacy.accountant import Observer
from lepton_core.privacy.events import SampledGaussian, SummedDiscreteGaussian
from lepton_core.privacy.plan import required_noise
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.promise import (
    epsilon_after,
    epsilon_if_all_collude,
    plan_privacy,
    promised_epsilon,
    round_event,
    rounds_event,
)
from lepton_pool.steps import decode_mean, encode_update
from lepton_pool.terms import derive_noise_plan, derive_ring_plan, derive_terms, expected_encoding

SEED = bytes(range(32))


def make_job(mode: str = "record-distributed", *, colluders: int = 2, **training: Any) -> Job:
    cohort = {"min_cohort": 100, "max_cohort": 128} if mode == "client-distributed" else {"min_cohort": 8}
    recipe = {"batching": "all", "expected_rows": 100} if mode == "record-distributed" else {}
    document: dict[str, Any] = {
        "name": "test",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": "https://example.org/",
            "features": [{"concept": f"f{index}"} for index in range(64)],
            "target": {"concept": "t", "classes": [f"v{index}" for index in range(10)]},
        },
        "model": {"kind": "logistic"},
        "training": {"rounds": 60, "learning_rate": 0.25, **recipe, **training},
        "privacy": {
            "mode": mode,
            "epsilon": 2.0,
            "delta": 1e-4,
            "noise_multiplier": 1.0,
            "colluders": 0 if mode == "record-local" else colluders,
            "unit": "member" if mode == "client-distributed" else "record",
        },
        "aggregation": {"max_cohort": 12, **cohort},
    }
    job = Job.model_validate(document)
    document["privacy"]["noise_multiplier"] = required_noise(job.privacy, job.training)
    return Job.model_validate(document)


MODES = ("record-local", "record-distributed", "client-distributed")


@pytest.mark.parametrize("mode", MODES)
def test_derived_noise_keeps_the_promise_and_hardly_more(mode: str) -> None:
    job = make_job(mode)
    assert 1.98 < promised_epsilon(job) <= 2.0


def test_the_noise_of_sixty_sums_is_that_of_the_design() -> None:
    assert make_job().privacy.noise_multiplier == 14.7


def test_noise_a_digit_smaller_does_not_keep_it() -> None:
    job = make_job()
    weaker = job.model_copy(update={"privacy": job.privacy.model_copy(update={"noise_multiplier": 14.6})})
    assert promised_epsilon(weaker) > 2.0


def test_the_charged_event_is_that_of_the_terms_everybody_signs() -> None:
    job = make_job()
    event, terms = round_event(job), derive_terms(job, bytes(32))
    assert isinstance(event, SummedDiscreteGaussian)
    assert (event.contributors, event.colluders) == (terms.min_cohort, 2)
    assert event.dimension == terms.lane_groups[0].length == derive_ring_plan(job).padded_length
    assert terms.lane_groups[0].bits == derive_noise_plan(job).ring.lane_bits
    assert rounds_event(job, 60) == SummedDiscreteGaussian(
        sensitivity=event.sensitivity,
        share_variance=event.share_variance,
        contributors=8,
        colluders=2,
        dimension=event.dimension,
        steps=60,
    )


def test_a_members_selection_by_the_coordinator_amplifies_nothing() -> None:
    job = make_job("client-distributed", sampling_rate=0.1)
    event = round_event(job)
    assert isinstance(event, SummedDiscreteGaussian)
    assert event.sampling_rate == 1.0
    assert job.privacy.noise_multiplier == 14.7


def test_a_poisson_sample_is_counted_by_its_rate() -> None:
    event = round_event(make_job(batching="poisson", local_steps=1, sampling_rate=0.25))
    assert isinstance(event, SummedDiscreteGaussian)
    assert event.sampling_rate == 0.25


def test_local_noise_is_counted_as_before() -> None:
    job = make_job("record-local", local_steps=5, sampling_rate=0.25)
    assert rounds_event(job, 3) == SampledGaussian(job.privacy.noise_multiplier or 0.0, 0.25, 15)
    assert rounds_event(job, 0) is None
    with pytest.raises(JobError, match="without distributed noise"):
        derive_noise_plan(job)


def test_who_sees_more_shares_of_noise_learns_more() -> None:
    job = make_job()
    sums, colluders = (epsilon_after(job, 60, observer) for observer in (Observer.SUMS, Observer.COLLUDERS))
    assert sums < colluders < epsilon_if_all_collude(job, 60)
    assert epsilon_if_all_collude(make_job("record-local"), 60) == promised_epsilon(make_job("record-local"))


@pytest.mark.parametrize("mode", MODES)
def test_a_plan_tells_epsilon_by_round_up_to_the_promise(mode: str) -> None:
    job = make_job(mode)
    plan = plan_privacy(job)
    assert plan is not None
    assert plan.by_round[-1] == (60, promised_epsilon(job))
    spent = [epsilon for _, epsilon in plan.by_round]
    assert spent == sorted(spent)
    assert plan.epsilon_against_sums <= plan.epsilon <= plan.epsilon_if_all_collude
    assert plan.contributors == {"record-local": 0, "record-distributed": 8, "client-distributed": 100}[mode]


def test_a_job_without_privacy_has_no_plan() -> None:
    job = make_job("record-local")
    free = Job.model_validate(job.model_dump() | {"privacy": {"mode": "none"}})
    assert plan_privacy(free) is None
    assert promised_epsilon(free) == epsilon_if_all_collude(free, 3) == 0.0


def test_the_decoded_mean_is_a_step_against_the_gradients_over_the_public_denominator() -> None:
    job = make_job()
    length = model_layout(architecture_of(job)).length
    random = np.random.default_rng(3)
    members = tuple(MemberId(bytes([number]) * 16) for number in range(10))
    sums = [random.standard_normal(length) for _ in members]
    words = np.zeros(derive_terms(job, bytes(32)).words, dtype=np.uint64)
    for member, one in zip(members, sums, strict=True):
        words += encode_update(job, one, 0, member=member, codec_seed=SEED, randomness=SystemRandomness())
    found = decode_mean(job, words, members, SEED, self_test=True).mean
    expected = -0.25 / 100 * np.mean(sums, axis=0)
    plan = derive_noise_plan(job)
    deviation = 0.25 / 100 * np.sqrt(plan.share_variance / 10) / plan.levels_per_unit
    assert np.std(found - expected) == pytest.approx(deviation, rel=0.12)
    assert np.abs(found - expected).max() < 6 * deviation


def test_the_view_of_an_encoding_tells_its_integers() -> None:
    told = expected_encoding(make_job())
    assert "21-bit integers with noise" in told.codec
    assert told.bits_per_parameter == pytest.approx(64 / 3, rel=0.02)
