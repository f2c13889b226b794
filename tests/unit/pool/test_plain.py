"""Updates in the plain come back as they were sent, bounded and weighed, and nothing else is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import CodecError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.payload import encode_payload
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.plain import encode_plain, mean_plain, parse_plain, plain_lanes
from lepton_pool.steps import encode_update
from lepton_pool.terms import derive_terms
from lepton_pool.weighting import FULL_WEIGHT

RNG = np.random.default_rng(5)

MEMBER = MemberId(bytes(16))


def make_job(features: int = 4, **aggregation: Any) -> Job:
    return Job.model_validate(
        {
            "name": "test",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/",
                "features": [{"concept": f"f{index}"} for index in range(features)],
                "target": {"concept": "t", "positive": "yes"},
            },
            "model": {"kind": "logistic"},
            "privacy": {"mode": "none"},
            "aggregation": {"min_cohort": 3, "max_cohort": 8, "secure": False, **aggregation},
        }
    )


def update_of(job: Job, norm: float) -> Vector:
    update = RNG.standard_normal(model_layout(architecture_of(job)).length)
    return (update * (norm / np.linalg.norm(update))).astype(np.float32)


@given(features=st.integers(1, 9), weight=st.integers(0, FULL_WEIGHT), norm=st.floats(0.0, 1.0))
def test_an_update_within_the_bound_comes_back_bit_for_bit_with_its_weight(
    features: int, weight: int, norm: float
) -> None:
    job = make_job(features)
    update = update_of(job, norm)
    words = encode_plain(job, update, weight, SystemRandomness())
    assert len(words) == derive_terms(job, bytes(32)).words
    found, told = parse_plain(job, encode_payload(words))
    assert told == weight
    assert np.array_equal(found, update) or abs(np.linalg.norm(update) - 1.0) < 1e-6


@pytest.mark.parametrize("norm", [1.0, 1.5, 1e6, 1e30])
def test_a_longer_update_is_clipped_before_it_leaves(norm: float) -> None:
    job = make_job(100)
    update = update_of(job, norm)
    found, _ = parse_plain(job, encode_payload(encode_plain(job, update, 1, SystemRandomness())))
    assert np.linalg.norm(found.astype(np.float64)) <= 1.0 + 1e-6
    assert np.allclose(found, update / norm, atol=1e-6)


def test_the_mean_is_that_of_federated_averaging() -> None:
    job, rows = make_job(50, weighting="rows", most_rows=400), [400, 100, 37, 0, 900]
    updates = [update_of(job, 0.5) for _ in rows]
    payloads = [
        encode_payload(
            encode_update(job, update, own, member=MEMBER, codec_seed=bytes(32), randomness=SystemRandomness())
        )
        for update, own in zip(updates, rows, strict=True)
    ]
    expected = np.average(updates, axis=0, weights=np.minimum(rows, 400))
    assert np.abs(mean_plain(job, payloads) - expected).max() < 1e-5
    equal = make_job(50)
    payloads = [
        encode_payload(
            encode_update(equal, update, 1, member=MEMBER, codec_seed=bytes(32), randomness=SystemRandomness())
        )
        for update in updates
    ]
    assert np.abs(mean_plain(equal, payloads) - np.mean(updates, axis=0)).max() < 1e-7


def test_members_without_any_rows_have_no_mean() -> None:
    job = make_job(weighting="rows", most_rows=400)
    payloads = [encode_payload(encode_plain(job, update_of(job, 0.5), 0, SystemRandomness())) for _ in range(3)]
    with pytest.raises(CodecError, match="weights"):
        mean_plain(job, payloads)


def forged(job: Job, update: Vector, weight: int = 1) -> bytes:
    """What a member could send that does not keep to `encode_plain`."""
    padded = np.zeros(len(update) + len(update) % 2, dtype="<f4")
    padded[: len(update)] = update
    return padded.tobytes() + weight.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("value", "weight"),
    [(np.nan, 1), (np.inf, 1), (0.5, 1), (3e38, 1), (0.1, FULL_WEIGHT + 1)],
)
def test_an_update_that_no_honest_member_sends_is_refused(value: float, weight: int) -> None:
    job = make_job(100)
    with pytest.raises(CodecError), np.errstate(over="ignore"):
        parse_plain(job, forged(job, np.full(101, value, dtype=np.float32), weight))


def test_bytes_of_another_length_are_refused() -> None:
    job = make_job()
    payload = encode_payload(encode_plain(job, update_of(job, 0.5), 1, SystemRandomness()))
    for bad in (payload[:-1], payload[:-8], payload + bytes(8), b""):
        with pytest.raises(CodecError, match="length"):
            parse_plain(job, bad)
    for update in (np.zeros(4, np.float32), np.zeros(5), np.full(5, np.nan, np.float32)):
        with pytest.raises(CodecError):
            encode_plain(job, update, 1, SystemRandomness())


@pytest.mark.parametrize(
    ("codec", "error"),
    [({"codec": "float16"}, 1e-6), ({"codec": "eden"}, 0.0096), ({"codec": "eden", "bits": 1.5}, 0.317)],
)
def test_an_encoded_update_comes_back_as_near_as_its_codec_says_and_is_as_short(codec: dict, error: float) -> None:
    job = make_job(1000, **codec)
    update = update_of(job, 0.5)
    payload = encode_payload(encode_plain(job, update, 7, SystemRandomness()))
    lanes, weights = plain_lanes(job)
    found, weight = parse_plain(job, payload)
    assert len(payload) == 8 * (lanes.words + weights.words)
    assert weight == 7
    assert np.sum((found - update) ** 2) == pytest.approx(error * np.sum(update**2), rel=0.3) or error == 1e-6
    assert np.abs(found - update).max() < 1e-3 or error != 1e-6
    assert len(payload) < len(encode_payload(encode_plain(make_job(1000), update, 7, SystemRandomness())))


@pytest.mark.parametrize("codec", [{"codec": "float16"}, {"codec": "eden"}, {"codec": "eden", "bits": 0.3}])
def test_a_forged_encoded_update_is_refused(codec: dict) -> None:
    job = make_job(100, **codec)
    payload = bytearray(encode_payload(encode_plain(job, update_of(job, 0.9), 1, SystemRandomness())))
    for place in (0, 33, 50):  # the seed, the magic, the number of values
        forged = bytearray(payload)
        forged[place] ^= 1
        with pytest.raises(CodecError):
            parse_plain(job, bytes(forged))
    longer = make_job(100, update_norm=1e3, **codec)
    too_long = encode_payload(encode_plain(longer, update_of(job, 100.0), 1, SystemRandomness()))
    with pytest.raises(CodecError, match="no member sends"):
        parse_plain(job, too_long)


def test_the_mean_of_many_members_is_nearer_than_each_of_them() -> None:
    job = make_job(200, codec="eden", bits=2.0)
    update = update_of(job, 0.5)
    payloads = [encode_payload(encode_plain(job, update, 1, SystemRandomness())) for _ in range(60)]
    error = np.sum((mean_plain(job, payloads) - update) ** 2) / np.sum(update**2)
    assert error < 3.0 * 0.133 / 60
