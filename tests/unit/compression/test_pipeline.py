import hashlib

import numpy as np
import pytest

from lepton_compression.update import (
    decode_and_test,
    decode_sum,
    derive_dither,
    derive_plan,
    encode,
    encode_with_report,
    kept_indices,
    pipeline,
)
from lepton_compression.update.rotation import Rotation
from lepton_core.errors import CodecError, FaultError
from lepton_core.ports import SystemRandomness
from lepton_core.ring import pack, unpack

SEED = bytes(range(32))
RANDOM = SystemRandomness()


class HashedRandomness:
    """A repeatable source: SHA-256 of a counter."""

    def __init__(self, name="test"):
        self._name, self._count = name, 0

    def token(self, length):
        self._count += 1
        return hashlib.shake_256(f"{self._name} {self._count}".encode()).digest(length)


def make_plan(model_length=1000, **changes):
    numbers = {"kept_fraction": 1.0, "profile": "default", "update_norm": 1.0, "members_max": 10}
    return derive_plan(model_length=model_length, **{**numbers, **changes})


def make_update(length, norm=1.0, number=0):
    values = np.random.default_rng(number).standard_t(3, length)
    return (values * (norm / np.linalg.norm(values))).astype(np.float32)


@pytest.mark.parametrize("profile", ["exact", "default", "lean", "tiny"])
@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 997, 4095, 4096, 4097, 100_000])
def test_the_mean_of_members_comes_back_within_one_level_a_value(profile, fraction, length):
    plan = make_plan(length, profile=profile, kept_fraction=fraction)
    # A norm below the scale: nothing can be clipped or saturate.
    updates = [make_update(length, 0.9 * plan.scale, number) for number in range(3)]
    total = sum(encode(update, plan, SEED, RANDOM) for update in updates)
    mean = decode_sum(total, 3, plan, SEED)
    kept = kept_indices(plan, SEED)
    expected = np.zeros(length)
    expected[kept] = np.mean(updates, axis=0, dtype=np.float64)[kept] * length / plan.kept_length
    level = 2 * plan.scale / plan.max_value
    bound = level * plan.padded_length**0.5 * length / plan.kept_length
    assert mean.dtype == np.float32
    assert mean.shape == (length,)
    assert np.linalg.norm(mean - expected) <= bound
    off = np.ones(length, dtype=bool)
    off[kept] = False
    assert not mean[off].any()


def test_encoding_leaves_its_argument_alone_even_when_it_clips():
    plan = make_plan(update_norm=1e-3)
    update = make_update(1000)
    before = update.copy()
    update.setflags(write=False)
    encode(update, plan, SEED, RANDOM)
    assert np.array_equal(update, before)


def test_kept_coordinates_are_clipped_to_the_kept_norm_and_no_more():
    plan = make_plan(20_000, kept_fraction=0.25, profile="exact", update_norm=1.0)
    kept = kept_indices(plan, SEED)
    update = np.zeros(20_000, dtype=np.float32)
    update[kept] = np.random.default_rng(1).standard_normal(len(kept)) * 7
    off = np.setdiff1d(np.arange(20_000), kept)
    update[off] = 1e6  # what is not kept counts for nothing
    lanes, report = encode_with_report(update, plan, SEED, RANDOM)
    mean = decode_sum(lanes, 1, plan, SEED) * plan.kept_length / plan.model_length
    assert report.norm_clipped
    assert np.linalg.norm(mean) == pytest.approx(plan.kept_norm, rel=1e-4)
    direction = update[kept] / np.linalg.norm(update[kept])
    assert float(mean[kept] @ direction) == pytest.approx(plan.kept_norm, rel=1e-4)


def test_report_tells_that_nothing_was_clipped():
    plan = make_plan(update_norm=100.0)
    _, report = encode_with_report(make_update(1000), plan, SEED, RANDOM)
    assert not report.norm_clipped
    assert report.saturated_fraction == 0.0


def test_report_tells_the_share_that_saturated():
    plan = make_plan(2**16, profile="tiny", members_max=255)  # one bit: the range is 1.5 sigma
    _, report = encode_with_report(make_update(2**16, 1.0), plan, SEED, RANDOM)
    assert report.saturated_fraction == pytest.approx(0.1336, abs=0.02)  # P(|N(0, 1)| > 1.5)


@pytest.mark.parametrize("value", [3.0e38, -3.0e38, 1e-45, 0.0])
@pytest.mark.parametrize("profile", ["exact", "tiny"])
def test_the_largest_and_smallest_finite_values_stay_in_range(value, profile):
    plan = make_plan(4097, profile=profile)
    lanes = encode(np.full(4097, value, dtype=np.float32), plan, SEED, RANDOM)
    assert lanes.dtype == np.int64
    assert lanes.min() >= 0
    assert lanes.max() <= plan.max_value
    assert np.isfinite(decode_sum(lanes, 1, plan, SEED)).all()


@pytest.mark.parametrize("profile", ["exact", "default", "lean", "tiny"])
@pytest.mark.parametrize("dithered", [False, True])
def test_the_extremes_of_every_lane_never_wrap_in_packed_words(profile, dithered):
    members = 7
    plan = make_plan(100, profile=profile, members_max=members, dithered=dithered)
    full = np.full(plan.padded_length, plan.max_value)
    words = pack(full, plan.lane_bits)
    total = unpack(sum([words] * members, start=np.zeros_like(words)), plan.lane_bits, plan.padded_length)
    assert np.array_equal(total, full * members)
    dithers = [derive_dither(SEED, bytes([member])) for member in range(members)] if dithered else []
    assert np.isfinite(decode_sum(total, members, plan, SEED, dithers=dithers)).all()


def test_rounding_is_unbiased():
    plan = make_plan(500, profile="tiny", members_max=17, update_norm=4.0)
    update = make_update(500)
    rounds = 600
    randomness = HashedRandomness()
    decoded = [decode_sum(encode(update, plan, SEED, randomness), 1, plan, SEED) for _ in range(rounds)]
    single = np.mean([np.sum((one - update) ** 2) for one in decoded])
    averaged = np.sum((np.mean(decoded, axis=0, dtype=np.float64) - update) ** 2)
    # Without bias the error of the average is the single error over the rounds, a chi-square of about 500 degrees.
    assert 0.75 < averaged * rounds / single < 1.25


def test_pruning_by_the_common_mask_is_unbiased_over_rounds():
    plan = make_plan(200, kept_fraction=0.25, profile="exact", update_norm=10.0)
    update = make_update(200)
    rounds = 1500
    total = np.zeros(200)
    for number in range(rounds):
        seed = hashlib.sha256(b"round %d" % number).digest()
        total += decode_sum(encode(update, plan, seed, RANDOM), 1, plan, seed)
    # The variance of a coordinate in one round is x^2 (1 - p) / p = 3 x^2, so the summed error is 3 / rounds.
    assert 0.5 < np.sum((total / rounds - update) ** 2) / (3 / rounds) < 2.0


def test_dither_known_to_the_decoder_halves_the_squared_error():
    update = make_update(4096)
    errors = {}
    for dithered in (False, True):
        plan = make_plan(4096, profile="tiny", members_max=10, dithered=dithered, update_norm=1.5)
        randomness = HashedRandomness()
        squared = []
        for member in range(20):
            dither = derive_dither(SEED, bytes([member])) if dithered else None
            lanes = encode(update, plan, SEED, randomness, dither=dither)
            back = decode_sum(lanes, 1, plan, SEED, dithers=[dither] if dither else [])
            squared.append(np.sum((back - update) ** 2, dtype=np.float64))
        errors[dithered] = float(np.mean(squared))
    assert errors[True] == pytest.approx(errors[False] / 2, rel=0.05)


def test_rounding_takes_fresh_randomness_and_dithered_rounding_none():
    update = make_update(1000)
    plan = make_plan()
    assert not np.array_equal(encode(update, plan, SEED, RANDOM), encode(update, plan, SEED, RANDOM))
    dithered = make_plan(dithered=True)
    dither = derive_dither(SEED, b"member")
    once, again = (encode(update, dithered, SEED, RANDOM, dither=dither) for _ in range(2))
    assert np.array_equal(once, again)
    assert derive_dither(SEED, b"other") != dither


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_values_that_are_not_finite_are_refused_even_off_the_mask(bad, fraction):
    plan = make_plan(kept_fraction=fraction)
    for place in range(0, 1000, 99):
        update = make_update(1000)
        update[place] = bad
        with pytest.raises(CodecError, match="not finite"):
            encode(update, plan, SEED, RANDOM)


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(999, dtype=np.float32),
        np.zeros(1001, dtype=np.float32),
        np.zeros((1000, 1), dtype=np.float32),
        np.zeros(1000, dtype=np.float64),
        np.zeros(0, dtype=np.float32),
    ],
)
def test_updates_of_another_shape_or_type_are_refused(update):
    with pytest.raises(CodecError, match=r"float32 of shape \(1000,\)"):
        encode(update, make_plan(), SEED, RANDOM)


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33), bytes(64)])
def test_seeds_and_dithers_of_another_length_are_refused(seed):
    plan, dithered = make_plan(), make_plan(dithered=True)
    total = np.zeros(plan.padded_length, dtype=np.int64)
    with pytest.raises(CodecError, match="codec seed"):
        encode(make_update(1000), plan, seed, RANDOM)
    with pytest.raises(CodecError, match="codec seed"):
        decode_sum(total, 1, plan, seed)
    with pytest.raises(CodecError, match="codec seed"):
        derive_dither(seed, b"member")
    with pytest.raises(CodecError, match="dither"):
        encode(make_update(1000), dithered, SEED, RANDOM, dither=seed)
    with pytest.raises(CodecError, match="dither"):
        decode_sum(total, 1, dithered, SEED, dithers=[seed])


def test_a_dither_the_plan_does_not_ask_for_or_misses_is_refused():
    dither = derive_dither(SEED, b"member")
    total = np.zeros(make_plan().padded_length, dtype=np.int64)
    with pytest.raises(CodecError, match="no dither"):
        encode(make_update(1000), make_plan(), SEED, RANDOM, dither=dither)
    with pytest.raises(CodecError, match="the member's dither"):
        encode(make_update(1000), make_plan(dithered=True), SEED, RANDOM)
    with pytest.raises(CodecError, match="one dither a member"):
        decode_sum(total, 1, make_plan(), SEED, dithers=[dither])
    with pytest.raises(CodecError, match="one dither a member"):
        decode_sum(total, 2, make_plan(dithered=True), SEED, dithers=[dither])


@pytest.mark.parametrize("members", [0, -1, 11, 10**9])
def test_members_the_plan_has_no_room_for_are_refused(members):
    plan = make_plan()
    with pytest.raises(CodecError, match="1 to 10"):
        decode_sum(np.zeros(plan.padded_length, dtype=np.int64), members, plan, SEED)


@pytest.mark.parametrize("length", [0, 992, 1000, 1024])
def test_a_total_of_another_length_is_refused(length):
    with pytest.raises(CodecError, match=r"int64 of shape \(1008,\)"):
        decode_sum(np.zeros(length, dtype=np.int64), 1, make_plan(), SEED)


def test_a_total_of_another_type_is_refused():
    with pytest.raises(CodecError, match="uint64"):
        decode_sum(np.zeros(1008, dtype=np.uint64), 1, make_plan(), SEED)


def test_a_total_that_no_members_can_give_is_refused_without_telling_values():
    plan = make_plan()
    for value, members in ((-1, 3), (3 * plan.max_value + 1, 3), (2**62, 10), (-(2**63), 1)):
        total = np.zeros(plan.padded_length, dtype=np.int64)
        total[500] = value
        with pytest.raises(CodecError, match="1 values outside") as refused:
            decode_sum(total, members, plan, SEED)
        assert str(value) not in refused.value.as_dict()["got"].split(" ")[1:]


def test_another_round_s_seed_does_not_decode():
    plan = make_plan(2000)
    update = make_update(2000)
    lanes = encode(update, plan, SEED, RANDOM)
    other = decode_sum(lanes, 1, plan, bytes(32))
    assert np.linalg.norm(other - update) > 1.0


def test_a_weight_multiplies_what_was_clipped_and_divides_out_of_the_mean():
    plan = make_plan(1000, profile="exact", members_max=4)
    updates = [make_update(1000, norm, number) for number, norm in enumerate((5.0, 0.8))]
    drawn = HashedRandomness()  # one in sixty draws of the system's errs by more than the bound somewhere
    total = sum(encode(update, plan, SEED, drawn, weight=w) for update, w in zip(updates, (0.25, 1.0), strict=True))
    expected = np.average([updates[0] / 5.0, updates[1]], axis=0, weights=[0.25, 1.0])
    assert np.abs(decode_sum(total, 2, plan, SEED, weights=1.25) - expected).max() < 4 * plan.scale / plan.max_value


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_weight_that_could_stretch_the_bound_is_refused(weight):
    with pytest.raises(CodecError, match="not a weight"):
        encode(make_update(100), make_plan(100), SEED, RANDOM, weight=weight)


@pytest.mark.parametrize("length", [1, 17, 4095, 4097, 100_003])
def test_the_self_test_of_decoding_passes_and_changes_nothing(length):
    plan = derive_plan(
        model_length=length, kept_fraction=0.9, profile="default", update_norm=1.0, members_max=5, dithered=False
    )
    total = np.random.default_rng(length).integers(0, 3 * plan.max_value, plan.padded_length)
    mean, residual = decode_and_test(total, 3, plan, SEED)
    assert residual < 1e-14
    assert np.array_equal(mean, decode_sum(total, 3, plan, SEED))


class Broken(Rotation):
    """A machine that gets one value in a hundred thousand wrong by a tenth of a percent."""

    def inverse(self, rotated):
        back = super().inverse(rotated)
        back[77] *= 1.001
        return back


def test_a_machine_that_computes_wrongly_publishes_no_model(monkeypatch):
    plan = derive_plan(
        model_length=100_003, kept_fraction=1.0, profile="default", update_norm=1.0, members_max=5, dithered=False
    )
    total = np.random.default_rng(0).integers(0, 3 * plan.max_value, plan.padded_length)
    monkeypatch.setattr(pipeline, "rotation_of", Broken)
    with pytest.raises(FaultError, match="decoded wrongly") as refused:
        decode_and_test(total, 3, plan, SEED)
    assert refused.value.reason == "DECODE_SELF_TEST"
