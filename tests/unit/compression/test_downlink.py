"""What goes down: exact snapshots, and differences that lead everybody to the same model, bit for bit."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compression.update.delta import apply_delta, delta_bytes, encode_delta
from lepton_compression.update.floats import is_half, pack_floats, unpack_floats
from lepton_core.errors import CodecError
from tests.property.budget import examples

SEED, DIGEST = bytes(range(32)), bytes(range(32, 64))
LENGTHS = [1, 2, 15, 16, 17, 997, 4095, 4096, 4097, 20_011]


def model_of(length: int, number: int = 0) -> np.ndarray:
    return (np.random.default_rng(number).standard_normal(length) * 0.05).astype(np.float32)


def halves_of(length: int, number: int = 0) -> np.ndarray:
    return model_of(length, number).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_snapshot_is_exact_and_half_as_long_where_half_precision_is_enough(length):
    for model in (model_of(length), halves_of(length)):
        assert np.array_equal(unpack_floats(pack_floats(model), length), model)
    if length > 4000:
        assert len(pack_floats(halves_of(length))) < 2.0 * length
        assert len(pack_floats(model_of(length))) < 4.0 * length


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60))
def test_any_finite_model_comes_back_bit_for_bit(values):
    model = np.array(values, dtype=np.float32)
    assert unpack_floats(pack_floats(model), len(model)).tobytes() == model.tobytes() or 0.0 in model


@pytest.mark.parametrize("length", LENGTHS)
def test_everybody_who_applies_a_difference_holds_the_same_half_precision_model(length):
    base, target = halves_of(length), halves_of(length) + model_of(length, 1) * np.float32(0.01)
    delta = encode_delta(base, target, base_digest=DIGEST, seed=SEED)
    found = apply_delta(base, DIGEST, delta)
    assert len(delta) == delta_bytes(length)
    assert is_half(found)
    assert np.array_equal(found, apply_delta(base.copy(), DIGEST, delta))
    assert np.linalg.norm(found - target) <= 0.03 * np.linalg.norm(target - base) + 1e-3 * np.linalg.norm(target)


def test_what_is_left_out_does_not_add_up_because_the_server_carries_it():
    held, exact = halves_of(5000), halves_of(5000).astype(np.float64)
    for number in range(60):
        exact += 1e-5 * np.random.default_rng(number).standard_normal(5000)  # far below half a unit of the last place
        seed = hashlib.sha256(b"%d" % number).digest()
        delta = encode_delta(held, exact.astype(np.float32), base_digest=DIGEST, seed=seed)
        held = apply_delta(held, DIGEST, delta)
    assert np.abs(held - exact).max() < 2e-4  # the spacing of halves near 0.2


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(25, 1000))
def test_a_difference_to_itself_changes_nothing(length, number):
    base = halves_of(length, number)
    assert np.array_equal(apply_delta(base, DIGEST, encode_delta(base, base, base_digest=DIGEST, seed=SEED)), base)


def test_what_is_not_such_a_difference_is_refused():
    base = halves_of(100)
    delta = encode_delta(base, model_of(100), base_digest=DIGEST, seed=SEED)
    for bad in (b"", delta[:-1], delta + b"x"):
        with pytest.raises(CodecError, match="another length"):
            apply_delta(base, DIGEST, bad)
    with pytest.raises(CodecError, match="another model"):
        apply_delta(base, SEED, delta)
    with pytest.raises(CodecError, match="not such"):
        apply_delta(base, DIGEST, b"LPD9" + delta[4:])
    for step in (float("nan"), float("inf"), -1.0):
        with pytest.raises(CodecError, match="step"):
            apply_delta(base, DIGEST, delta[:16] + struct.pack("<d", step) + delta[24:])
    with pytest.raises(CodecError, match="half precision"):
        apply_delta(base, DIGEST, delta[:16] + struct.pack("<d", 1e9) + delta[24:])
    for changes in ({"seed": SEED[:31]}, {"base_digest": b""}):
        with pytest.raises(CodecError):
            encode_delta(base, base, **{"base_digest": DIGEST, "seed": SEED, **changes})


def test_what_is_not_such_a_snapshot_is_refused_before_it_is_unpacked():
    packed = pack_floats(model_of(1000))
    for bad in (b"", packed[:10], packed[:-1], packed + b"x", b"LPF9" + packed[4:]):
        with pytest.raises(CodecError):
            unpack_floats(bad, 1000)
    for length in (0, 999, 10**12):
        with pytest.raises(CodecError):
            unpack_floats(packed, length)
    bomb = packed[:20] + zstandard.ZstdCompressor().compress(bytes(2**26))
    with pytest.raises(CodecError, match="another size"):
        unpack_floats(bomb, 1000)
    unsized = packed[:20] + zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**22))
    with pytest.raises(CodecError):
        unpack_floats(unsized, 1000)
    with pytest.raises(CodecError, match="not finite"):
        pack_floats(np.array([np.nan], dtype=np.float32))
