"""Updates in the plain come back as they were sent, bounded and weighed, and nothing else is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compression.update import SEED_BYTES, Sign, TopK, payload_bytes
from lepton_compression.update.framing import HEADER_BYTES
from lepton_core.errors import CodecError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.payload import encode_payload
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.plain import codec_of, encode_fed_back, encode_plain, mean_plain, parse_plain, plain_lanes
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
    lanes, weights = plain_lanes(job)
    found = []
    for _ in range(30):  # a coordinate may lie far out, and one in a hundred errors is a third above the mean
        payload = encode_payload(encode_plain(job, update, 7, SystemRandomness()))
        vector, weight = parse_plain(job, payload)
        found.append(vector)
        assert len(payload) == 8 * (lanes.words + weights.words)
        assert weight == 7
    errors = [np.sum((vector - update) ** 2) / np.sum(update**2) for vector in found]
    assert np.mean(errors) == pytest.approx(error, rel=0.3) or error == 1e-6
    assert np.abs(found[0] - update).max() < 1e-3 or error != 1e-6
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


# Codecs that feed back -------------------------------------------------------------------------------------------

FEEDING = [{"codec": "topk", "fraction": 0.1}, {"codec": "topk"}, {"codec": "sign"}]


def make_feeding(features: int = 4, **aggregation: Any) -> Job:
    return make_job(features, min_cohort=4, max_cohort=4, **aggregation)


def test_a_top_k_job_sends_a_hundredth_unless_it_says_otherwise() -> None:
    assert codec_of(make_feeding(codec="topk")) == TopK(0.01)
    assert codec_of(make_feeding(codec="topk", fraction=0.3)) == TopK(0.3)
    assert codec_of(make_feeding(codec="sign")) == Sign()


@pytest.mark.parametrize("codec", FEEDING)
def test_what_is_sent_and_what_is_left_are_the_clipped_update_and_what_was_left_before(codec: dict) -> None:
    job = make_feeding(999, **codec)
    for norm, factor in ((0.5, 1.0), (4.0, 0.25)):
        update, before = update_of(job, norm), update_of(job, 3.0)
        kept = before.copy()
        sent = encode_fed_back(job, update, 7, SystemRandomness(), residual=before)
        found, weight = parse_plain(job, encode_payload(sent.words))
        assert weight == 7
        assert np.linalg.norm(found.astype(np.float64)) <= 1.0 + 1e-6
        assert sent.residual == pytest.approx(update * factor + before - found, abs=1e-6)
        assert np.array_equal(before, kept)
        assert len(sent.words) == derive_terms(job, bytes(32)).words
    first = encode_fed_back(job, update, 7, SystemRandomness(), residual=None)
    zeros = encode_fed_back(job, update, 7, SystemRandomness(), residual=np.zeros_like(update))
    assert np.array_equal(first.residual, zeros.residual)


@pytest.mark.parametrize("codec", FEEDING)
def test_a_job_that_feeds_back_never_sends_an_update_without_what_was_left_before(codec: dict) -> None:
    job = make_feeding(**codec)
    with pytest.raises(CodecError, match="earlier ones left out"):
        encode_plain(job, update_of(job, 0.5), 1, SystemRandomness())
    plain = make_job()
    with pytest.raises(CodecError, match="longest norm"):
        encode_fed_back(plain, update_of(plain, 0.5), 1, SystemRandomness(), residual=None)


@pytest.mark.parametrize("codec", FEEDING)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_sent_nor_kept(codec: dict, bad: float) -> None:
    job = make_feeding(100, **codec)
    good, spoilt = update_of(job, 0.5), update_of(job, 0.5)
    spoilt[3] = bad
    for update, residual in ((spoilt, None), (good, spoilt)):
        with pytest.raises(CodecError, match="not finite"):
            encode_fed_back(job, update, 1, SystemRandomness(), residual=residual)
    with pytest.raises(CodecError, match="another length"):
        encode_fed_back(job, good, 1, SystemRandomness(), residual=good[:-1])


@pytest.mark.parametrize("codec", FEEDING)
def test_a_forged_payload_that_was_fed_back_is_refused(codec: dict) -> None:
    job = make_feeding(100, **codec)
    payload = encode_payload(encode_fed_back(job, update_of(job, 0.9), 1, SystemRandomness(), residual=None).words)
    parse_plain(job, payload)
    body = SEED_BYTES + HEADER_BYTES
    values = slice(body, body + 4) if codec["codec"] == "sign" else slice(_end(job) - 4, _end(job))
    for number in (np.nan, np.inf, -np.inf, 3e38, 2.0):  # the last is a longer update than any may be
        forged = bytearray(payload)
        forged[values] = np.float32(number).tobytes()
        with pytest.raises(CodecError), np.errstate(over="ignore"):
            parse_plain(job, bytes(forged))
    for bad in (payload[:-1], payload[:-8], payload + bytes(8), b"", payload[: body + 4]):
        with pytest.raises(CodecError, match="another length"):
            parse_plain(job, bad)
    for place in (0, 33, 50):  # the seed, the magic, the number of values
        forged = bytearray(payload)
        forged[place] ^= 1
        with pytest.raises(CodecError):
            parse_plain(job, bytes(forged))


def _end(job: Job) -> int:
    return SEED_BYTES + payload_bytes(codec_of(job), model_layout(architecture_of(job)).length)


def test_places_that_no_sender_keeps_are_refused() -> None:
    job = make_feeding(2000, codec="topk", fraction=0.001)  # so few that their places are numbers
    payload = encode_payload(encode_fed_back(job, update_of(job, 0.9), 1, SystemRandomness(), residual=None).words)
    place = SEED_BYTES + HEADER_BYTES
    for forged in (payload[place + 4 : place + 8] + payload[place : place + 4], (2001).to_bytes(4, "little") * 2):
        with pytest.raises(CodecError, match="no sender keeps"):
            parse_plain(job, payload[:place] + forged + payload[place + 8 :])
