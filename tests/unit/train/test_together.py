"""Is a round of noise in shares central DP-SGD but for rounding: the same update, and the same variance?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lepton_client.train.alone import train_alone
from lepton_client.train.dpsgd import PrivateModule
from lepton_client.train.rows import Rows
from lepton_client.train.together import train_together
from lepton_compression.update import SecretKeystream
from lepton_compression.update.noised import round_to_integers
from lepton_core.errors import InputError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.ports import SystemRandomness
from lepton_core.ring import Words, pack
from lepton_core.secagg.simulate import run_round
from lepton_pool.models import architecture_of, initial_vector
from lepton_pool.steps import decode_mean, encode_update
from lepton_pool.terms import derive_noise_plan, derive_terms, lane_groups
from tests.protocol.seeded import SeededRandomness, make_identities

SEED = bytes(range(32))
MEMBERS = tuple(MemberId(bytes([number]) * 16) for number in range(5))
CLIP, RATE, ROWS = 0.5, 0.8, 40


def make_job(**changes: Any) -> Job:
    document: dict[str, Any] = {
        "name": "test",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": "https://example.org/",
            "features": [{"concept": f"f{index}"} for index in range(12)],
            "target": {"concept": "t", "classes": ["a", "b", "c"]},
        },
        "model": {"kind": "mlp", "hidden": [9]},
        "training": {"rounds": 3, "learning_rate": RATE, "batching": "all", "expected_rows": ROWS},
        "privacy": {
            "mode": "record-distributed",
            "delta": 1e-4,
            "clip_norm": CLIP,
            "noise_multiplier": 2.0,
        },
        "aggregation": {"min_cohort": 5, "max_cohort": 8},
    }
    for section, values in changes.items():
        document[section] = {**document[section], **values}
    return Job.model_validate(document)


def parts_of(seed: int = 1) -> list[Rows]:
    random = np.random.default_rng(seed)
    parts = []
    for count in (10, 25, 40, 55, 70):
        features = random.standard_normal((count, 12)).astype(np.float32)
        parts.append(Rows(features, np.argmax(features[:, :3], axis=1).astype(np.float32)))
    return parts


def naive_sum(job: Job, rows: Rows) -> np.ndarray[Any, Any]:
    """Each record's gradient by itself, clipped in float64, one after another."""
    from lepton_pool.models import build_model

    module = build_model(architecture_of(job))
    start = torch.from_numpy(initial_vector(architecture_of(job)))
    torch.nn.utils.vector_to_parameters(start, module.parameters())
    total = np.zeros(len(start))
    for features, target in zip(rows.features, rows.target, strict=True):
        module.zero_grad()
        logits = module(torch.from_numpy(features)[None])
        torch.nn.functional.cross_entropy(logits, torch.tensor([int(target)])).backward()
        one = np.concatenate([p.grad.numpy().ravel() for p in module.parameters()]).astype(np.float64)
        total += one * min(1.0, CLIP / float(np.linalg.norm(one)))
    return total


def test_without_noise_a_round_is_the_central_step_on_the_same_records_up_to_rounding() -> None:
    job, parts = make_job(), parts_of()
    plan, model = derive_noise_plan(job), initial_vector(architecture_of(job))
    stream = SecretKeystream(SEED)
    words = np.zeros(sum(group.words for group in lane_groups(job)), dtype=np.uint64)
    for rows in parts:
        one = PrivateModule(job).clipped_sum(model, None, rows, sampling_rate=1.0)
        words += pack(round_to_integers(one, plan, SEED, stream), plan.ring.lane_bits)
    found = decode_mean(job, words, MEMBERS, SEED).mean
    pooled = Rows(np.concatenate([p.features for p in parts]), np.concatenate([p.target for p in parts]))
    # Central DP-SGD with the public denominator of five sites.
    central = -RATE / (5 * ROWS) * naive_sum(job, pooled)
    # Each site's rounding errs by less than a level at each value, by half a level in the root mean square at most.
    level = RATE / (5 * ROWS) / plan.levels_per_unit
    assert np.sqrt(np.mean((found - central) ** 2)) <= level * np.sqrt(5) / 2 * 1.2
    assert np.linalg.norm(central) > 100 * np.linalg.norm(found - central)


def test_with_noise_a_round_has_the_variance_of_the_central_step_at_the_charged_sensitivity() -> None:
    job, parts = make_job(), parts_of()
    plan, model = derive_noise_plan(job), initial_vector(architecture_of(job))
    sums = [PrivateModule(job).clipped_sum(model, None, rows, sampling_rate=1.0) for rows in parts]
    expected = -RATE / (5 * ROWS) * np.sum(sums, axis=0)
    squares = []
    for number in range(30):
        seed = bytes([number]) * 32
        words = np.zeros(sum(group.words for group in lane_groups(job)), dtype=np.uint64)
        for member, one in zip(MEMBERS, sums, strict=True):
            words += encode_update(job, one, 0, member=member, codec_seed=seed, randomness=SystemRandomness())
        squares.append(np.mean((decode_mean(job, words, MEMBERS, seed).mean - expected) ** 2))
    central = (2.0 * CLIP * plan.inflation * RATE / (5 * ROWS)) ** 2
    # 30 draws of some 150 values: a standard deviation of 2 %.
    assert float(np.mean(squares)) == pytest.approx(central, rel=0.1)


def test_one_record_more_moves_a_sites_sum_by_at_most_the_clipping_norm() -> None:
    job, rows = make_job(), parts_of()[2]
    module, model = PrivateModule(job), initial_vector(architecture_of(job))
    whole = module.clipped_sum(model, None, rows, sampling_rate=1.0)
    for left_out in range(0, 40, 7):
        others = np.delete(np.arange(40), left_out)
        less = module.clipped_sum(model, None, Rows(rows.features[others], rows.target[others]), sampling_rate=1.0)
        assert np.linalg.norm(whole - less) <= CLIP * (1 + 2**-12)


def test_only_kept_coordinates_are_in_the_sum_and_its_records_are_clipped_on_them_alone() -> None:
    job, rows = make_job(), parts_of()[1]
    module, model = PrivateModule(job), initial_vector(architecture_of(job))
    kept = np.arange(0, len(model), 3)
    total = module.clipped_sum(model, kept, rows, sampling_rate=1.0)
    others = np.delete(np.arange(len(model)), kept)
    assert not total[others].any()
    assert np.linalg.norm(total[kept]) > 0


def test_a_sample_holds_each_record_with_its_chance() -> None:
    rows = Rows(np.ones((400, 12), dtype=np.float32), np.zeros(400, dtype=np.float32))
    job = make_job(training={"batching": "poisson", "local_steps": 1, "sampling_rate": 0.25, "expected_rows": 400})
    module, model = PrivateModule(job), initial_vector(architecture_of(job))
    whole = float(np.linalg.norm(module.clipped_sum(model, None, rows, sampling_rate=1.0)))
    shares = [
        float(np.linalg.norm(module.clipped_sum(model, None, rows, sampling_rate=0.25))) / whole for _ in range(50)
    ]
    # All rows are alike, so that the norm counts them: 100 of 400, with a standard deviation of 8.7.
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)
    assert 0.010 < np.std(shares) < 0.035


def test_a_federation_learns_as_much_as_a_curator_with_the_same_noise() -> None:
    job = make_job(training={"rounds": 40}, privacy={"noise_multiplier": 6.0})
    parts, held_out = parts_of(), parts_of(2)[4]
    pooled = Rows(np.concatenate([p.features for p in parts]), np.concatenate([p.target for p in parts]))
    from lepton_pool.evaluate import evaluate

    def accuracy(model: np.ndarray[Any, Any]) -> float:
        return evaluate(architecture_of(job), model, held_out.features, held_out.target).accuracy

    together = np.mean([accuracy(train_together(job, parts, [40] * 5)) for _ in range(4)])
    central = np.mean([accuracy(train_alone(job, pooled)) for _ in range(4)])
    assert central > 0.6
    assert together == pytest.approx(central, abs=0.12)


def test_a_sum_under_masks_trains_the_same_model_as_one_in_the_clear() -> None:
    job, parts = make_job(training={"rounds": 2}), parts_of()
    keys = make_identities(len(parts))

    def add_masked(words: Sequence[Words]) -> Words:
        inputs = {key.member: own for key, own in zip(keys, words, strict=True)}
        ended = run_round(keys, inputs, derive_terms(job, bytes(32)), SystemRandomness())
        assert len(ended.survivors) == len(parts)
        return np.concatenate(ended.groups)

    in_clear = train_together(job, parts, [40] * 5, randomness=SeededRandomness("one"))
    masked = train_together(job, parts, [40] * 5, randomness=SeededRandomness("one"), add_up=add_masked)
    assert np.array_equal(masked, in_clear)
    assert not np.array_equal(masked, train_together(job, parts, [40] * 5, randomness=SeededRandomness("other")))


def test_fewer_owners_than_the_noise_is_for_are_refused() -> None:
    with pytest.raises(InputError, match="not a cohort of this job"):
        train_together(make_job(), parts_of()[:4], [40] * 4)
