"""Codecs of updates that nothing masks keep their tables: unbiased or fed back, as exact and as short as they say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compression.update import (
    Eden,
    Float16,
    Float32,
    RingPlan,
    Sign,
    TopK,
    decode_plain_update,
    encode_plain_update,
    payload_bytes,
)
from lepton_compression.update.eden import expected_error
from lepton_compression.update.framing import HEADER_BYTES
from lepton_core.errors import CodecError
from tests.property.budget import examples

SEED = bytes(range(32))
CODECS = [
    Float32(),
    Float16(),
    *(Eden(bits) for bits in (0.3, 1.0, 1.6, 2.0, 4.0, 7.5, 8.0)),
    TopK(0.01),
    TopK(0.3),
    Sign(),
]
LENGTHS = [1, 2, 15, 16, 17, 997, 4095, 4096, 4097, 20_011]
SHAPES = {
    "gaussian": lambda generator, length: generator.standard_normal(length),
    "heavy-tailed": lambda generator, length: generator.standard_t(3, length),
    "sparse": lambda generator, length: generator.standard_normal(length) * (generator.random(length) < 0.02),
    "correlated": lambda generator, length: np.cumsum(generator.standard_normal(length)),
    "constant": lambda _, length: np.ones(length),
}


def seed_of(number: int) -> bytes:
    return hashlib.sha256(b"plain codec test %d" % number).digest()


def make_update(length: int, shape: str = "heavy-tailed", number: int = 0) -> np.ndarray:
    values = SHAPES[shape](np.random.default_rng(number), length)
    return (values / (np.linalg.norm(values) or 1.0)).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_an_update_comes_back_as_far_off_as_its_encoding_says(codec, length):
    update = make_update(length)
    before = update.copy()
    encoded = encode_plain_update(codec, update, SEED)
    found = decode_plain_update(codec, encoded.payload, length, SEED)
    assert len(encoded.payload) == payload_bytes(codec, length)
    assert (found.shape, found.dtype) == ((length,), np.float32)
    assert np.array_equal(encoded.residual, update - found)
    assert encoded.squared_error == pytest.approx(float(np.sum((update.astype(np.float64) - found) ** 2)), rel=1e-5)
    assert np.array_equal(update, before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("bits", "most"), [(1.0, 0.571), (2.0, 0.133), (3.0, 0.0358), (4.0, 0.0096), (6.0, 6.4e-4), (8.0, 4.2e-5)]
)
def test_eden_errs_as_its_table_says_whatever_the_shape(shape, bits, most):
    update = make_update(2**16, shape)
    found = [encode_plain_update(Eden(bits), update, seed_of(number)).squared_error for number in range(3)]
    assert np.mean(found) == pytest.approx(most, rel=0.04)


@pytest.mark.parametrize("bits", [0.1, 0.5, 1.0, 1.3, 3.0])
def test_eden_is_unbiased_so_that_the_error_of_a_mean_falls_with_the_senders(bits):
    update, senders = make_update(4096), 200
    total = np.zeros(4096)
    for number in range(senders):
        payload = encode_plain_update(Eden(bits), update, seed_of(number)).payload
        total += decode_plain_update(Eden(bits), payload, 4096, seed_of(number))
    error = float(np.sum((total / senders - update) ** 2))
    assert error * senders == pytest.approx(expected_error(bits), rel=0.12)


def test_whole_bits_are_as_short_as_they_say_and_fractions_lie_between():
    sizes = [payload_bytes(Eden(bits), 2**20) for bits in (0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)]
    expected = [bits * 2**17 for bits in (0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)]
    assert sizes == pytest.approx(expected, abs=40)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.2, 1.0]))
@settings(max_examples=examples(40, 1000))
def test_top_k_keeps_the_largest_and_of_equal_ones_the_first(length, number, fraction):
    update = np.random.default_rng(number).integers(-3, 4, length).astype(np.float32)
    found = decode_plain_update(TopK(fraction), encode_plain_update(TopK(fraction), update, SEED).payload, length, SEED)
    kept = max(1, round(length * fraction))
    order = sorted(range(length), key=lambda place: (-abs(update[place]), place))[:kept]
    expected = np.zeros(length, dtype=np.float32)
    expected[order] = update[order]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("codec", [TopK(0.05), Sign()], ids=str)
def test_fed_back_errors_do_not_add_up_over_the_rounds(codec):
    update, rounds = make_update(1000), 400
    residual, total = None, np.zeros(1000)
    for number in range(rounds):
        encoded = encode_plain_update(codec, update, seed_of(number), residual=residual)
        total += decode_plain_update(codec, encoded.payload, 1000, seed_of(number))
        residual = encoded.residual
    assert np.linalg.norm(total / rounds - update) < 0.12
    once = decode_plain_update(codec, encode_plain_update(codec, update, SEED).payload, 1000, SEED)
    assert np.linalg.norm(once - update) > 0.3


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_no_plain_codec_may_be_added_up_under_masks(codec):
    assert codec.ring_summable is False
    assert RingPlan.ring_summable is True


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_zero_update_comes_back_as_zero(codec):
    nothing = np.zeros(100, dtype=np.float32)
    assert not decode_plain_update(codec, encode_plain_update(codec, nothing, SEED).payload, 100, SEED).any()


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(codec, bad):
    update = make_update(100)
    update[7] = bad
    with pytest.raises(CodecError, match="not finite"):
        encode_plain_update(codec, update, SEED)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_what_is_not_such_a_payload_is_refused(codec):
    payload = encode_plain_update(codec, make_update(1000), SEED).payload
    for bad in (b"", payload[:-1], payload + b"x", payload[: HEADER_BYTES - 1]):
        with pytest.raises(CodecError, match="another length"):
            decode_plain_update(codec, bad, 1000, SEED)
    with pytest.raises(CodecError, match="another seed"):
        decode_plain_update(codec, payload, 1000, bytes(32))
    with pytest.raises(CodecError, match="this version"):
        decode_plain_update(codec, b"LPU9" + payload[4:], 1000, SEED)
    with pytest.raises(CodecError, match="another codec"):
        decode_plain_update(codec, payload[:4] + b"\x63" + payload[5:], 1000, SEED)
    with pytest.raises(CodecError, match="codec seed"):
        decode_plain_update(codec, payload, 1000, SEED[:31])


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("length", [0, -1, 10**12])
def test_claims_of_impossible_lengths_are_refused_before_memory_is_taken(codec, length):
    payload = encode_plain_update(codec, make_update(1000), SEED).payload
    with pytest.raises(CodecError):
        decode_plain_update(codec, payload, length, SEED)


@pytest.mark.parametrize("codec", [Eden(0.0), Eden(8.5), Eden(float("nan")), TopK(0.0), TopK(1.5)], ids=str)
def test_parameters_out_of_range_are_refused(codec):
    with pytest.raises(CodecError):
        payload_bytes(codec, 1000)


def test_a_value_beyond_half_precision_is_refused():
    with pytest.raises(CodecError, match="half precision"):
        encode_plain_update(Float16(), np.array([1.0, 7e4], dtype=np.float32), SEED)


def test_forged_bodies_are_refused():
    top = bytearray(encode_plain_update(TopK(0.003), make_update(1000), SEED).payload)
    top[HEADER_BYTES : HEADER_BYTES + 4] = (2**31).to_bytes(4, "little")
    with pytest.raises(CodecError, match="places"):
        decode_plain_update(TopK(0.003), bytes(top), 1000, SEED)
    for codec in (Eden(2.0), Sign()):
        forged = bytearray(encode_plain_update(codec, make_update(1000), SEED).payload)
        forged[HEADER_BYTES : HEADER_BYTES + 4] = np.float32(np.nan).tobytes()
        with pytest.raises(CodecError, match="scale"):
            decode_plain_update(codec, bytes(forged), 1000, SEED)


@pytest.mark.parametrize("codec", [Float32(), Eden(4.0)], ids=str)
def test_a_residual_is_refused_by_codecs_without_feedback(codec):
    with pytest.raises(CodecError, match="no error feedback"):
        encode_plain_update(codec, make_update(10), SEED, residual=np.zeros(10, dtype=np.float32))
    with pytest.raises(CodecError, match="residual of another length"):
        encode_plain_update(Sign(), make_update(10), SEED, residual=np.zeros(11, dtype=np.float32))


@pytest.mark.parametrize("codec", [TopK(0.05), Sign()], ids=str)
def test_what_is_longer_than_may_be_sent_is_left_for_later(codec):
    update, residual = make_update(1000), 5.0 * make_update(1000, number=1)
    encoded = encode_plain_update(codec, update, SEED, residual=residual, longest=0.25)
    found = decode_plain_update(codec, encoded.payload, 1000, SEED)
    assert np.linalg.norm(found.astype(np.float64)) == pytest.approx(0.25, rel=1e-6)
    assert encoded.residual == pytest.approx(update + residual - found, abs=1e-6)
    shorter = encode_plain_update(codec, update, SEED, residual=residual, longest=100.0)
    assert shorter.payload == encode_plain_update(codec, update, SEED, residual=residual).payload


@pytest.mark.parametrize("codec", [Float32(), Float16(), Eden(4.0)], ids=str)
def test_a_codec_that_leaves_nothing_for_later_cannot_keep_to_a_longest_norm(codec):
    with pytest.raises(CodecError, match="longest norm"):
        encode_plain_update(codec, make_update(100), SEED, longest=0.5)


@pytest.mark.parametrize("longest", [0.0, -1.0, float("nan")])
def test_a_longest_norm_that_leaves_nothing_to_send_is_refused(longest):
    with pytest.raises(CodecError, match="longest norm"):
        encode_plain_update(Sign(), make_update(100), SEED, longest=longest)
