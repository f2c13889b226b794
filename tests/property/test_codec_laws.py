import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lepton_compression.update import decode_sum, derive_dither, derive_plan, encode, encode_with_report, kept_indices
from lepton_compression.update.rotation import Rotation
from lepton_core.ports import SystemRandomness
from lepton_core.ring import pack, unpack
from tests.property.budget import examples

RANDOM = SystemRandomness()

seeds = st.binary(min_size=32, max_size=32)
lengths = st.sampled_from([1, 2, 15, 16, 17, 31, 97, 997, 2039, 4095, 4096, 4097, 8191, 12_301])


@st.composite
def plans(draw, length=None):
    return derive_plan(
        model_length=draw(lengths) if length is None else length,
        kept_fraction=draw(st.sampled_from([1.0, 0.9, 0.5, 0.1])),
        profile=draw(st.sampled_from(["exact", "default", "lean", "tiny"])),
        update_norm=draw(st.sampled_from([1e-12, 0.1, 1.0, 300.0, 1e12])),
        members_max=draw(st.integers(1, 255)),
        dithered=draw(st.booleans()),
    )


def make_updates(plan, members, number, norm):
    generator = np.random.default_rng(number)
    values = generator.standard_t(2, (members, plan.model_length))
    return (values * (norm / np.linalg.norm(values, axis=1, keepdims=True))).astype(np.float32)


def expected_mean(plan, seed, updates):
    kept = kept_indices(plan, seed)
    mean = np.zeros(plan.model_length)
    mean[kept] = np.mean(updates, axis=0, dtype=np.float64)[kept] * (plan.model_length / plan.kept_length)
    return mean


@given(plans(), seeds, st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(60, 2000))
def test_the_sum_of_encodings_decodes_to_the_mean_through_packed_words(plan, seed, members, number):
    members = min(members, plan.members_max)
    updates = make_updates(plan, members, number, 0.99 * plan.scale)
    dithers = [derive_dither(seed, bytes([member])) for member in range(members)] if plan.dithered else [None] * members
    words = np.zeros_like(pack(np.zeros(plan.padded_length, dtype=np.int64), plan.lane_bits))
    for update, dither in zip(updates, dithers, strict=True):
        words += pack(encode(update, plan, seed, RANDOM, dither=dither), plan.lane_bits)
    total = unpack(words, plan.lane_bits, plan.padded_length)
    mean = decode_sum(total, members, plan, seed, dithers=dithers if plan.dithered else ())
    level = 2 * plan.scale / plan.max_value
    gain = plan.model_length / plan.kept_length
    # A value errs by less than a level, dithered by half a level; float32 adds a few units in its last place.
    bound = level * plan.padded_length**0.5 * (0.51 if plan.dithered else 1.0) + 1e-5 * plan.scale
    assert np.linalg.norm(mean - expected_mean(plan, seed, updates)) <= bound * gain


@given(
    plans(length=97),
    seeds,
    npst.arrays(np.float32, 97, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
)
def test_any_finite_update_gives_lanes_in_range_and_a_bounded_mean(plan, seed, update):
    before = update.copy()
    dither = derive_dither(seed, b"member") if plan.dithered else None
    lanes, report = encode_with_report(update, plan, seed, RANDOM, dither=dither)
    assert lanes.dtype == np.int64
    assert lanes.shape == (plan.padded_length,)
    assert lanes.min() >= 0
    assert lanes.max() <= plan.max_value
    assert 0.0 <= report.saturated_fraction <= plan.padded_length / plan.kept_length
    assert np.array_equal(update, before)
    mean = decode_sum(lanes, 1, plan, seed, dithers=[dither] if dither else [])
    level = 2 * plan.scale / plan.max_value
    largest = (plan.kept_norm + level * plan.padded_length**0.5) * plan.model_length / plan.kept_length
    assert np.linalg.norm(mean.astype(np.float64)) <= largest * (1 + 1e-5)


@given(lengths, st.floats(0.001, 1.0), seeds)
def test_kept_indices_are_sorted_distinct_in_range_and_of_the_planned_number(length, fraction, seed):
    plan = derive_plan(model_length=length, kept_fraction=fraction, profile="default", update_norm=1.0, members_max=10)
    kept = kept_indices(plan, seed)
    assert kept.shape == (plan.kept_length,)
    assert kept[0] >= 0
    assert kept[-1] < length
    assert (np.diff(kept) > 0).all()


@given(st.integers(1, 900), seeds, st.integers(0, 2**32 - 1))
@settings(max_examples=examples(30, 1000))
def test_rotation_is_linear_orthonormal_and_undone_by_its_inverse(sixteens, seed, number):
    length = 16 * sixteens
    rotation = Rotation(seed, length)
    one, two = np.random.default_rng(number).standard_normal((2, length))
    rotated = rotation.forward(one)
    assert np.isclose(rotated @ rotation.forward(two), one @ two, rtol=0, atol=1e-9 * length)
    assert np.allclose(rotation.forward(one + 3 * two), rotated + 3 * rotation.forward(two), rtol=0, atol=1e-10)
    assert np.allclose(rotation.inverse(rotated), one, rtol=0, atol=1e-12)


@given(plans(), seeds, st.integers(0, 2**32 - 1))
@settings(max_examples=examples(25, 1000))
def test_decoding_depends_on_nothing_but_the_sum(plan, seed, number):
    members = min(3, plan.members_max)
    generator = np.random.default_rng(number)
    lanes = generator.integers(0, plan.max_value + 1, (members, plan.padded_length))
    swapped = np.take_along_axis(
        lanes, generator.permuted(np.tile(np.arange(members)[:, None], plan.padded_length), axis=0), 0
    )
    dithers = [derive_dither(seed, bytes([member])) for member in range(members)] if plan.dithered else []
    one = decode_sum(lanes.sum(axis=0), members, plan, seed, dithers=dithers)
    other = decode_sum(swapped.sum(axis=0), members, plan, seed, dithers=dithers[::-1])
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("length", [1, 2, 3, 17, 997, 4095, 4096, 4097, 10_000_000])
@pytest.mark.parametrize("kept_fraction", [1.0, 0.1])
def test_every_length_from_one_to_ten_million_comes_back_within_its_bound(length, kept_fraction):
    plan = derive_plan(
        model_length=length,
        kept_fraction=kept_fraction,
        profile="default",
        update_norm=1.0,
        members_max=10,
        dithered=True,
    )
    seed, dithers = bytes(32), [derive_dither(bytes(32), bytes([member])) for member in range(2)]
    updates = [np.random.default_rng(member).standard_normal(length, dtype=np.float32) for member in range(2)]
    updates = [update * np.float32(0.9 * plan.kept_norm / np.linalg.norm(update)) for update in updates]
    lanes = [encode(update, plan, seed, RANDOM, dither=dither) for update, dither in zip(updates, dithers, strict=True)]
    total = unpack(pack(lanes[0], plan.lane_bits) + pack(lanes[1], plan.lane_bits), plan.lane_bits, plan.padded_length)
    mean = decode_sum(total, 2, plan, seed, dithers=dithers)
    kept = kept_indices(plan, seed)
    off = mean[kept] * np.float32(plan.kept_length / length) - (updates[0][kept] + updates[1][kept]) / 2
    assert np.count_nonzero(mean) <= plan.kept_length
    # Each of two members errs uniformly by half a level each way, and a mean of two halves the variance.
    level = 2 * plan.scale / plan.max_value
    assert np.linalg.norm(off) <= level * plan.padded_length**0.5 * 0.51 + 1e-5
    if length > 10_000:
        assert np.sum(off.astype(np.float64) ** 2) == pytest.approx(plan.padded_length * level**2 / 24, rel=0.05)
