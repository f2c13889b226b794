import hashlib
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lepton_compression.update import decode_sum, derive_plan, encode, kept_indices, mask
from lepton_core.errors import CodecError
from lepton_core.ports import SystemRandomness


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
    narrow = mask._select(b"lepton/codec/v1/mask", seed_of(1), (50_000, plan.kept_length), (0, 10))
    assert narrow is None
    assert np.array_equal(kept_indices(plan, seed_of(1)), expected)


def test_every_coordinate_is_kept_equally_often_over_seeds():
    plan = make_plan(64, 0.25)
    assert plan.kept_length == 16
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


SHAPES = ((32, 7), (32,), (10, 4, 3, 3), (10,), ())


def row_plan(fraction):
    length = sum(math.prod(shape) for shape in SHAPES)
    return derive_plan(
        model_length=length,
        kept_fraction=fraction,
        profile="default",
        update_norm=1.0,
        members_max=10,
        shapes=SHAPES,
    )


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_whole_rows_are_kept_so_many_of_each_tensor(fraction):
    plan = row_plan(fraction)
    kept = np.zeros(plan.model_length, dtype=bool)
    kept[kept_indices(plan, seed_of(3))] = True
    assert np.count_nonzero(kept) == plan.kept_length
    start = 0
    for shape in SHAPES:
        rows = shape[0] if shape else 1
        of_tensor = kept[start : start + math.prod(shape)].reshape(rows, -1)
        assert (of_tensor.all(axis=1) | ~of_tensor.any(axis=1)).all()
        assert np.count_nonzero(of_tensor.all(axis=1)) == math.ceil(fraction * rows)
        start += math.prod(shape)


def test_rows_are_drawn_anew_by_every_seed_and_alike_by_one():
    plan = row_plan(0.5)
    assert np.array_equal(kept_indices(plan, seed_of(1)), kept_indices(plan, seed_of(1)))
    assert not np.array_equal(kept_indices(plan, seed_of(1)), kept_indices(plan, seed_of(2)))


def test_kept_rows_are_stretched_by_their_own_tensor_s_share_so_that_the_mean_over_rounds_is_unbiased():
    plan = row_plan(0.3)
    update = np.random.default_rng(0).standard_normal(plan.model_length).astype(np.float32) / plan.model_length
    rounds, total = 600, np.zeros(plan.model_length)
    for number in range(rounds):
        lanes = encode(update, plan, seed_of(number), SystemRandomness())
        total += decode_sum(lanes, 1, plan, seed_of(number))
    spread = float(np.sum((total / rounds - update) ** 2) / np.sum(update.astype(np.float64) ** 2))
    # Of 10 rows 3 are kept, of 32 ten: a value's variance is x^2 (1 - p) / p, about 2.3 x^2 a round.
    assert spread < 2.0 * 2.34 / rounds


def test_shapes_that_are_not_the_model_s_are_refused():
    with pytest.raises(CodecError, match="no encoding") as refused:
        derive_plan(
            model_length=100, kept_fraction=0.5, profile="tiny", update_norm=1.0, members_max=3, shapes=((9, 11),)
        )
    assert refused.value.where == "shapes"
