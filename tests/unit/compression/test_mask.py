import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lepton_compression.update import derive_plan, kept_indices, mask
from lepton_core.errors import CodecError


def make_plan(model_length, kept_fraction):
    return derive_plan(
        model_length=model_length, kept_fraction=kept_fraction, profile="default", update_norm=1.0, members_max=10
    )


def seed_of(number):
    return hashlib.sha256(b"mask test %d" % number).digest()


def reference(length, kept, seed):
    """The docstring of `kept_indices` in plain Python integers."""
    key = hashlib.sha256(b"lepton/codec/v1/mask" + seed).digest()
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * length))
    index_bits = (length - 1).bit_length()
    keys = [
        (int.from_bytes(stream[8 * i : 8 * i + 8], "little") >> index_bits << index_bits) | i for i in range(length)
    ]
    return sorted(sorted(range(length), key=keys.__getitem__)[:kept])


@pytest.mark.parametrize("length", [1, 2, 16, 97, 4097, 70_001])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.999, 1.0])
def test_kept_indices_are_those_of_the_smallest_keys(length, fraction):
    plan = make_plan(length, fraction)
    kept = kept_indices(plan, seed_of(length))
    assert kept.dtype == np.int64
    assert kept.tolist() == reference(length, plan.kept_length, seed_of(length))


def test_a_cut_outside_the_expected_bracket_gives_the_same_indices(monkeypatch):
    plan = make_plan(50_000, 0.37)
    expected = kept_indices(plan, seed_of(1))
    monkeypatch.setattr(mask, "_BRACKET_SIGMAS", -0.9)
    narrow = mask._select(plan, seed_of(1), 0, 10)
    assert narrow is None
    assert np.array_equal(kept_indices(plan, seed_of(1)), expected)


def test_every_coordinate_is_kept_equally_often_over_seeds():
    plan = make_plan(64, 0.25)
    counts = np.zeros(64)
    rounds = 4000
    for number in range(rounds):
        counts[kept_indices(plan, seed_of(number))] += 1
    chi_square = float((((counts - rounds / 4) ** 2) / (rounds / 4)).sum())
    # Each count is binomial with variance 3/4 of its mean and the sum is fixed: chi-square is .75 * 64 / 63 * chi2(63).
    assert 20.0 < chi_square / 0.75 < 120.0


def test_pairs_of_coordinates_are_kept_together_as_often_as_chance_has_it():
    plan = make_plan(64, 0.5)
    both = sum({3, 4} <= set(kept_indices(plan, seed_of(number)).tolist()) for number in range(4000))
    expected = 4000 * (32 / 64) * (31 / 63)
    assert abs(both - expected) < 5 * expected**0.5


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_length_is_refused(seed):
    with pytest.raises(CodecError, match="32 bytes"):
        kept_indices(make_plan(100, 0.5), seed)
