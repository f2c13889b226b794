import hashlib

import numpy as np
import pytest

from lepton_compression.update.rotation import Rotation
from lepton_core.errors import CodecError

LENGTHS = [16, 32, 48, 112, 128, 256, 496, 512, 1008, 2048, 4080, 4096, 4112, 8176, 8192, 12_304, 90_000]
SEED = bytes(range(32))


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
    sign_words = -(-length // 64)
    words = [int(word) for word in np.random.Philox(key=key).random_raw(sign_words + 256 + 1 + tail_length)]
    signs = np.array([1 - 2 * (words[i // 64] >> (i % 64) & 1) for i in range(length)])
    turns = words[sign_words : sign_words + 256]
    tail_places = []
    if tail_length:
        stride = length // tail_length
        tail_places = [words[sign_words + 256] % stride + stride * i for i in range(tail_length)]
    in_tail = set(tail_places)
    head = [vector[i] for i in range(length) if i not in in_tail]
    out = np.zeros(length)
    for row in range(4096 if blocks else 0):
        turn = turns[row // 16] % blocks
        for column in range(blocks):
            out[row * blocks + column] = head[row * blocks + (column + turn) % blocks]
    keys = words[sign_words + 257 :]
    cut = blocks * 4096
    for place, source in enumerate(sorted(range(tail_length), key=keys.__getitem__)):
        out[cut + place] = vector[tail_places[source]]
    out *= signs
    if blocks:
        out[:cut] = (sylvester(4096) @ out[:cut].reshape(4096, blocks)).reshape(-1)
    size = 2048
    while size >= 16:
        if tail_length & size:
            out[cut : cut + size] = sylvester(size) @ out[cut : cut + size]
            cut += size
        size //= 2
    return out


@pytest.mark.parametrize("length", [16, 48, 1008, 2048, 4080, 4096, 4112, 8176, 12_304])
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


@pytest.mark.parametrize("length", [4096, 3 * 4096, 100 * 4096])
def test_whole_blocks_of_integers_rotate_back_without_any_rounding(length):
    steps = np.random.default_rng(0).integers(-(2**38), 2**38, length).astype(np.float64)
    exact = reference(steps, SEED) if length == 4096 else None
    rotated = Rotation(SEED, length).forward(steps)
    assert np.array_equal(rotated * 64, np.rint(rotated * 64))
    assert exact is None or np.array_equal(np.rint(exact * 64), rotated * 64)


def test_a_hot_input_of_a_square_layer_is_spread_over_all_blocks():
    vector = np.zeros((512, 512), dtype=np.float32)
    vector[:, 37] = 1.0  # the period 512 is a multiple of the 64 blocks: a bare stride would put all into one block
    energies = (Rotation(SEED, vector.size).forward(vector.reshape(-1)).reshape(4096, 64) ** 2).sum(axis=0)
    assert energies.max() < 8.0 * energies.mean()


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
