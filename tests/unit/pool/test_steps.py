"""What members encode and what everybody decodes is the mean that the job asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_compression.update import derive_dither, encode_with_report, kept_indices
from lepton_core.errors import CodecError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.ports import SystemRandomness
from lepton_core.ring import Words
from lepton_core.secagg.terms import LARGEST_COHORT
from lepton_pool.measured import MEASURED_LANES
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.steps import decode_mean, encode_update
from lepton_pool.terms import derive_ring_plan, derive_terms
from lepton_pool.weighting import FULL_WEIGHT, WEIGHT_LANES, weight_of

SEED = bytes(range(32))
RNG = np.random.default_rng(5)
MEMBERS = tuple(MemberId(bytes([number]) * 16) for number in range(8))


def make_job(**aggregation: Any) -> Job:
    return Job.model_validate(
        {
            "name": "test",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/",
                "features": [{"concept": f"f{index}"} for index in range(30)],
                "target": {"concept": "t", "positive": "yes"},
            },
            "model": {"kind": "mlp", "hidden": [20]},
            "privacy": {"mode": "none"},
            "aggregation": {"min_cohort": 3, "max_cohort": 8, "profile": "exact", **aggregation},
        }
    )


def updates_of(job: Job, count: int) -> list[Vector]:
    length = model_layout(architecture_of(job)).length
    return [(RNG.standard_normal(length) * 0.5 / np.sqrt(length)).astype(np.float32) for _ in range(count)]


def mean_of(job: Job, updates: list[Vector], rows: list[int]) -> Vector:
    words = words_of(job, updates, rows)
    assert len(words) == derive_terms(job, bytes(32)).words
    return decode_mean(job, words, MEMBERS[: len(rows)], SEED).mean


def words_of(job: Job, updates: list[Vector], rows: list[int]) -> Words:
    words = np.zeros(derive_terms(job, bytes(32)).words, dtype=np.uint64)
    for member, update, own in zip(MEMBERS, updates, rows, strict=False):
        words += encode_update(job, update, own, member=member, codec_seed=SEED, randomness=SystemRandomness())
    return words


WEIGHTED = {"weighting": "rows", "most_rows": 400}


def test_a_mean_weighted_by_rows_is_that_of_federated_averaging() -> None:
    job, rows = make_job(**WEIGHTED), [400, 100, 37, 0, 900]
    updates = updates_of(job, len(rows))
    expected = np.average(updates, axis=0, weights=np.minimum(rows, 400))
    assert np.abs(mean_of(job, updates, rows) - expected).max() < 2e-5


def test_where_all_count_alike_rows_change_nothing() -> None:
    job = make_job()
    updates = updates_of(job, 4)
    assert np.abs(mean_of(job, updates, [1, 10, 0, 1000]) - np.mean(updates, axis=0)).max() < 2e-5


def test_an_update_is_clipped_before_it_is_weighed() -> None:
    # A member of few rows gets no more than its share of the bound, however long its update is.
    job = make_job(**WEIGHTED, update_norm=1.0)
    long, short = (update * factor for update, factor in zip(updates_of(job, 2), (100.0, 1.0), strict=True))
    clipped = long / np.linalg.norm(long)
    expected = np.average([clipped, short, short], axis=0, weights=[100, 400, 400])
    assert np.abs(mean_of(job, [long, short, short], [100, 400, 400]) - expected).max() < 2e-5


def test_the_weight_is_a_lane_of_its_own_and_wide_enough_for_the_largest_cohort() -> None:
    job = make_job(**WEIGHTED)
    groups = derive_terms(job, bytes(32)).lane_groups
    assert groups[1:] == (WEIGHT_LANES, MEASURED_LANES)
    assert derive_terms(make_job(), bytes(32)).lane_groups == (groups[0], MEASURED_LANES)
    assert 2**WEIGHT_LANES.bits > LARGEST_COHORT * FULL_WEIGHT
    assert [weight_of(job, rows) for rows in (0, 1, 200, 400, 10**9)] == [0, 164, 32768, 65535, 65535]


def test_a_round_in_which_nobody_has_rows_has_no_mean() -> None:
    job = make_job(**WEIGHTED)
    with pytest.raises(CodecError, match="weights") as refused:
        mean_of(job, updates_of(job, 3), [0, 0, 0])
    assert refused.value.where == "aggregation.weighting"


def test_weights_that_so_many_members_cannot_have_are_refused() -> None:
    job = make_job(**WEIGHTED)
    words = words_of(job, updates_of(job, 3), [400] * 3)
    decode_mean(job, words, MEMBERS[:3], SEED)
    words[-1 - MEASURED_LANES.words] += np.uint64(1)
    with pytest.raises(CodecError, match="weights"):
        decode_mean(job, words, MEMBERS[:3], SEED)


def test_words_of_another_length_are_refused() -> None:
    for job in (make_job(), make_job(**WEIGHTED)):
        words = words_of(job, updates_of(job, 3), [400] * 3)
        for bad in (words[:-1], np.append(words, words[-1:])):
            with pytest.raises(CodecError):
                decode_mean(job, bad, MEMBERS[:3], SEED)


def test_federated_averaging_of_nobody_is_refused() -> None:
    with pytest.raises(CodecError, match="nobody"):
        decode_mean(make_job(), np.zeros(1, np.uint64), (), SEED)


def test_the_sum_tells_how_much_was_clipped_and_how_far_it_is_from_the_updates() -> None:
    job = make_job(profile="tiny", update_norm=0.3)
    updates = updates_of(job, 4)
    updates[0] *= np.float32(10.0)
    updates[1:] = [update * np.float32(0.1) for update in updates[1:]]
    measured = decode_mean(job, words_of(job, updates, [1] * 4), MEMBERS[:4], SEED).measured
    plan = derive_ring_plan(job)
    reports = [
        encode_with_report(update, plan, SEED, SystemRandomness(), dither=derive_dither(SEED, member))[1]
        for update, member in zip(updates, MEMBERS, strict=False)
    ]
    assert measured is not None
    assert measured.clipped_members == 1
    assert measured.saturated_share == pytest.approx(np.mean([one.saturated_fraction for one in reports]), abs=1e-4)
    assert measured.squared_error == pytest.approx(np.mean([one.squared_error for one in reports]), rel=0.01)


def test_a_report_that_no_members_can_give_is_left_out_and_the_mean_stays() -> None:
    job = make_job()
    words = words_of(job, updates_of(job, 3), [1] * 3)
    mean = decode_mean(job, words, MEMBERS[:3], SEED).mean
    words[-1] += np.uint64(2**31)
    spoilt = decode_mean(job, words, MEMBERS[:3], SEED)
    assert spoilt.measured is None
    assert np.array_equal(spoilt.mean, mean)


def test_a_private_job_measures_nothing_of_its_members() -> None:
    private = {"mode": "record-local", "noise_multiplier": 1.0}
    job = Job.model_validate(make_job().model_dump() | {"privacy": private})
    assert len(derive_terms(job, bytes(32)).lane_groups) == 1
    assert decode_mean(job, words_of(job, updates_of(job, 3), [1] * 3), MEMBERS[:3], SEED).measured is None


def test_only_the_rows_that_all_draw_come_back_and_by_their_tensor_s_share() -> None:
    job = make_job(kept_fraction=0.3, mask="rows")
    updates = updates_of(job, 3)
    mean, plan = mean_of(job, updates, [1] * 3), derive_ring_plan(job)
    kept = kept_indices(plan, SEED)
    assert set(np.flatnonzero(mean)) <= set(kept.tolist())
    assert plan.row_groups
    first = plan.row_groups[0]
    share = first.kept_rows / first.rows
    inside = kept[kept < first.rows * first.row_length]
    assert np.abs(mean[inside] * share - np.mean(updates, axis=0)[inside]).max() < 2e-5
