import functools
import hashlib

import numpy as np
import pytest

from lepton_compression.update.rotation import Rotation
from lepton_core.errors import CodecError

LENGTHS = [
    16,
    32,
    48,
    112,
    128,
    256,
    496,
    512,
    1008,
    2048,
    4080,
    4096,
    4112,
    8176,
    8192,
    12_304,
    16_384,
    32_000,
    65_536,
    90_000,
    pytest.param(1_100_000, marks=pytest.mark.nightly),
]
SEED = bytes(range(32))


@functools.cache
def sylvester(size):
    """(-1)^popcount(i & j) / sqrt(size), by definition."""
    index = np.arange(size)
    crossed = index[:, None] & index[None, :]
    parity = np.zeros_like(crossed)
    while crossed.any():
        parity ^= crossed & 1
        crossed >>= 1
    return (1.0 - 2.0 * parity) / np.sqrt(size)


def reference(vector, seed):
    """The docstring of the module, one coordinate at a time."""
    length = len(vector)
    blocks, tail_length = divmod(length, 4096)
    key = int.from_bytes(hashlib.sha256(b"lepton/codec/v1/rotation" + seed).digest()[:16], "little")
    mixed = 0 if blocks < 4 else 4 if blocks < 16 else 16
    sign_words, second_words = -(-length // 64), 64 * blocks if mixed else 0
    words = [int(word) for word in np.random.Philox(key=key).random_raw(sign_words + second_words + 1 + tail_length)]
    signs = np.array([1 - 2 * (words[i // 64] >> (i % 64) & 1) for i in range(length)])
    tail_places = []
    if tail_length:
        stride = length // tail_length
        tail_places = [words[sign_words + second_words] % stride + stride * i for i in range(tail_length)]
    in_tail = set(tail_places)
    out = np.array([vector[i] for i in range(length) if i not in in_tail] + [0.0] * tail_length)
    cut = blocks * 4096
    keys = words[sign_words + second_words + 1 :]
    for place, source in enumerate(sorted(range(tail_length), key=keys.__getitem__)):
        out[cut + place] = vector[tail_places[source]]
    out *= signs
    if blocks:
        grid = out[:cut].reshape(4096, blocks)
        if mixed:
            width = blocks // mixed
            for window in range(width):
                columns = [window * mixed + k for k in range(mixed)]
                grid[:, columns] = grid[:, columns] @ sylvester(mixed)
            grid *= np.array([1 - 2 * (words[sign_words + i // 64] >> (i % 64) & 1) for i in range(cut)]).reshape(
                4096, blocks
            )
            for window in range(width):
                columns = [blocks - mixed * width + k * width + window for k in range(mixed)]
                grid[:, columns] = grid[:, columns] @ sylvester(mixed)
        out[:cut] = (sylvester(4096) @ grid).reshape(-1)
    size = 2048
    while size >= 16:
        if tail_length & size:
            out[cut : cut + size] = sylvester(size) @ out[cut : cut + size]
            cut += size
        size //= 2
    return out


@pytest.mark.parametrize("length", [16, 48, 1008, 2048, 4080, 4096, 4112, 12_304, 16_384, 20_496, 69_648])
def test_rotation_is_what_its_definition_says(length):
    vector = np.random.default_rng(length).standard_normal(length)
    assert np.allclose(Rotation(SEED, length).forward(vector), reference(vector, SEED), atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_inverse_undoes_forward_and_norms_are_kept(length, dtype, tolerance):
    vector = np.random.default_rng(length).standard_normal(length).astype(dtype)
    before = vector.copy()
    rotation = Rotation(SEED, length)
    rotated = rotation.forward(vector)
    assert rotated.dtype == dtype
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector), rel=tolerance)
    assert np.allclose(rotation.inverse(rotated), vector, atol=tolerance, rtol=0)
    assert np.array_equal(vector, before)


@pytest.mark.parametrize("blocks", [1, 3, 5, 16, 37, 100])
def test_integers_of_33_bits_rotate_without_any_rounding(blocks):
    length = 4096 * blocks
    largest = 2**33
    steps = np.random.default_rng(0).choice([-largest, largest - 1, largest], length).astype(np.float64)
    rotation = Rotation(SEED, length)
    # Rounding anywhere on the way would not be undone to the last bit, nor keep the sum of squares as integers do.
    unit = 64 * (1 if blocks < 4 else 4 if blocks < 16 else 16)
    back = rotation.inverse(steps) * unit
    assert np.array_equal(back, np.rint(back))
    assert sum(int(value) ** 2 for value in back) == unit**2 * sum(int(value) ** 2 for value in steps)


def test_a_single_hot_value_of_a_large_vector_is_spread_over_all_of_it():
    vector = np.zeros(2**20, dtype=np.float32)
    vector[123_456] = 1024.0
    assert np.allclose(np.abs(Rotation(SEED, 2**20).forward(vector)), 1.0, atol=1e-5)


def test_a_hot_input_of_a_square_layer_is_spread_over_all_blocks():
    vector = np.zeros((512, 512), dtype=np.float32)
    vector[:, 37] = 1.0  # the period 512 is a multiple of the 64 blocks: a bare stride would put all into one block
    energies = (Rotation(SEED, vector.size).forward(vector.reshape(-1)).reshape(4096, 64) ** 2).sum(axis=0)
    assert energies.max() < 2.0 * energies.mean()


def test_seeds_give_rotations_of_their_own():
    vector = np.random.default_rng(0).standard_normal(4112).astype(np.float32)
    one, other = Rotation(SEED, 4112).forward(vector), Rotation(bytes(32), 4112).forward(vector)
    assert abs(float(one @ other)) < 0.1 * float(one @ one)


@pytest.mark.parametrize("length", [0, -16, 8, 17, 4095])
def test_a_length_that_is_no_multiple_of_sixteen_is_refused(length):
    with pytest.raises(CodecError, match="multiple of 16"):
        Rotation(SEED, length)


def test_a_vector_of_another_length_is_refused():
    rotation = Rotation(SEED, 32)
    with pytest.raises(CodecError, match="another length"):
        rotation.forward(np.zeros(48, dtype=np.float32))
    with pytest.raises(CodecError, match="another length"):
        rotation.inverse(np.zeros((32, 1), dtype=np.float32))
