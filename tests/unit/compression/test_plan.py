import dataclasses

import pytest

from lepton_compression.update import RingPlan, derive_plan
from lepton_core.errors import CodecError
from lepton_core.lane_widths import words_for

NUMBERS = {
    "model_length": 1000,
    "kept_fraction": 0.5,
    "profile": "default",
    "update_norm": 2.0,
    "members_max": 10,
}


def make_plan(**changes) -> RingPlan:
    return derive_plan(**{**NUMBERS, **changes})


@pytest.mark.parametrize(("profile", "lane_bits"), [("exact", 21), ("default", 16), ("lean", 12), ("tiny", 8)])
@pytest.mark.parametrize("members", [1, 3, 10, 64, 255])
def test_lanes_hold_every_sum_zero_is_a_level_and_one_more_bit_would_not_fit(profile, lane_bits, members):
    plan = make_plan(profile=profile, members_max=members)
    assert plan.lane_bits == lane_bits
    assert members * plan.max_value < 2**lane_bits <= members * (plan.max_value + 2)
    assert plan.max_value == 1 or plan.max_value % 2 == 0
    assert members * (2**plan.value_bits - 1) < 2**lane_bits <= members * (2 ** (plan.value_bits + 1) - 1)


@pytest.mark.parametrize("model_length", [993, 1000, 1025, 1029])
def test_half_of_a_small_model_costs_at_most_1_1_bytes_a_parameter(model_length):
    plan = make_plan(model_length=model_length)
    assert plan.bytes_per_parameter <= 1.1
    assert plan.payload_bytes == 8 * words_for(plan.padded_length, 16)


@pytest.mark.parametrize("model_length", [1, 15, 16, 17, 4095, 4096, 4097, 10_000_019])
def test_padding_stays_under_sixteen_values(model_length):
    plan = make_plan(model_length=model_length, kept_fraction=1.0)
    assert plan.kept_length == model_length
    assert 0 <= plan.padded_length - model_length < 16
    assert plan.padded_length % 16 == 0


def test_at_least_one_coordinate_is_kept():
    assert make_plan(model_length=3, kept_fraction=0.001).kept_length == 1


def test_kept_norm_scales_the_update_norm_by_the_root_of_the_kept_share():
    assert make_plan(model_length=1600, kept_fraction=0.25).kept_norm == pytest.approx(1.0)


@pytest.mark.parametrize("model_length", [4810, 16_000, 99_991])
def test_a_tenth_of_the_coordinates_in_lanes_of_16_bits_never_costs_more_than_0_2_bytes(model_length):
    plan = make_plan(model_length=model_length, kept_fraction=0.1)
    assert plan.padded_length == plan.kept_length
    assert 0.19 < plan.bytes_per_parameter <= 0.2


@pytest.mark.parametrize(
    ("members", "value_bits", "sigmas"), [(255, 1, 1.5), (85, 2, 2.0), (36, 3, 2.4), (17, 4, 2.8), (1, 8, 4.0)]
)
def test_scale_is_the_tabled_multiple_of_the_bound_on_sigma(members, value_bits, sigmas):
    plan = make_plan(profile="tiny", members_max=members, model_length=10_000, kept_fraction=1.0)
    assert plan.value_bits == value_bits
    assert plan.scale == pytest.approx(sigmas * 2.0 / 100.0)


def test_scale_never_exceeds_the_norm_that_bounds_every_value():
    plan = make_plan(model_length=4, kept_fraction=1.0, profile="exact")
    assert plan.scale == plan.kept_norm


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_length", 0),
        ("model_length", -5),
        ("model_length", 10**12),
        ("kept_fraction", 0.0),
        ("kept_fraction", 1.01),
        ("kept_fraction", float("nan")),
        ("profile", "huge"),
        ("update_norm", 0.0),
        ("update_norm", -1.0),
        ("update_norm", float("inf")),
        ("update_norm", float("nan")),
        ("members_max", 0),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(key, value):
    with pytest.raises(CodecError) as refused:
        make_plan(**{key: value})
    assert refused.value.where == key


def test_too_many_members_for_a_profile_are_refused_with_the_most_it_takes():
    assert make_plan(profile="tiny", members_max=255).max_value == 1
    with pytest.raises(CodecError, match="at most 255 members"):
        make_plan(profile="tiny", members_max=256)


def test_plans_of_equal_numbers_are_equal_and_cannot_be_changed():
    plan = make_plan()
    assert plan == make_plan()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.max_value = 3
