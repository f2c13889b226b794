import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import CodecError
from lepton_core.lane_widths import LANE_BITS, lanes_per_word, words_for
from lepton_core.ring import pack, unpack

int64s = st.integers(-(2**63), 2**63 - 1)


def reference_words(values, bits):
    """sum_j v_j 2^(jb) mod 2^64 in Python's integers."""
    per_word = 64 // bits
    return [
        sum(value << (lane * bits) for lane, value in enumerate(values[start : start + per_word])) % 2**64
        for start in range(0, len(values), per_word)
    ]


@given(st.lists(int64s, max_size=70), st.sampled_from(LANE_BITS))
def test_pack_is_the_linear_map_for_integers_of_any_sign_and_size(values, bits):
    words = pack(np.array(values, dtype=np.int64), bits)
    assert words.dtype == np.uint64
    assert words.tolist() == reference_words(values, bits)


@given(st.lists(st.tuples(int64s, int64s), max_size=40), st.sampled_from(LANE_BITS))
def test_packing_a_sum_gives_the_sum_of_the_packings(pairs, bits):
    one = np.array([pair[0] for pair in pairs], dtype=np.int64)
    two = np.array([pair[1] for pair in pairs], dtype=np.int64)
    assert np.array_equal(pack(one + two, bits), pack(one, bits) + pack(two, bits))


@pytest.mark.parametrize("bits", LANE_BITS)
@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 63, 64, 65, 4095, 4096, 50_001, 100_000])
def test_lanes_in_range_come_back(length, bits):
    values = np.random.default_rng(length).integers(0, 2**bits, length)
    before = values.copy()
    words = pack(values, bits)
    assert len(words) == words_for(length, bits)
    assert np.array_equal(unpack(words, bits, length), values)
    assert np.array_equal(values, before)


@pytest.mark.parametrize("bits", LANE_BITS)
def test_the_largest_value_of_every_lane_comes_back(bits):
    values = np.full(3 * lanes_per_word(bits), 2**bits - 1)
    assert np.array_equal(unpack(pack(values, bits), bits, len(values)), values)


@pytest.mark.parametrize("bits", LANE_BITS)
def test_values_of_a_strided_view_are_packed_like_their_copy(bits):
    values = np.arange(200, dtype=np.int64)[::3]
    assert np.array_equal(pack(values, bits), pack(values.copy(), bits))


@pytest.mark.parametrize("bits", [0, 1, 7, 11, 20, 33, 64, -8])
def test_other_widths_are_refused(bits):
    with pytest.raises(CodecError, match="not a lane width"):
        lanes_per_word(bits)
    with pytest.raises(CodecError, match="not a lane width"):
        pack(np.zeros(4, dtype=np.int64), bits)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 2), dtype=np.int64), np.zeros(4, dtype=np.uint64), np.zeros(4, dtype=np.float64)]
)
def test_values_of_another_shape_or_type_are_refused(values):
    with pytest.raises(CodecError, match="vector of int64"):
        pack(values, 16)


@pytest.mark.parametrize(
    "words", [np.zeros(2, dtype=np.uint64), np.zeros(4, dtype=np.uint64), np.zeros((3, 1), dtype=np.uint64)]
)
def test_words_of_another_length_are_refused(words):
    with pytest.raises(CodecError, match="another length"):
        unpack(words, 16, 12)


def test_words_of_another_type_are_refused():
    with pytest.raises(CodecError, match="int64"):
        unpack(np.zeros(3, dtype=np.int64), 16, 12)
