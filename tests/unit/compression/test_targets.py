"""A target in bytes or in error is kept, padding and all, and no other profile would serve it better."""

from __future__ import annotations

from typing import get_args

import pytest

from lepton_compression.update import Numbers, Profile, derive_plan, plan_for_bytes, plan_for_error
from lepton_core.errors import CodecError

LENGTHS = [97, 4810, 65_536, 99_991, 10_000_019]


def numbers_of(length: int, members: int = 10, extra_bytes: int = 0) -> Numbers:
    return Numbers(length, update_norm=1.0, members_max=members, dithered=True, extra_bytes=extra_bytes)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("allowed", [0.5, 1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("extra", [0, 24])
def test_bytes_beside_and_padding_included_never_exceed_what_is_allowed(
    length: int, allowed: float, extra: int
) -> None:
    plan = plan_for_bytes(numbers_of(length, extra_bytes=extra), allowed)
    assert plan.payload_bytes + extra <= allowed * length


@pytest.mark.parametrize("length", [4810, 99_991])
def test_a_fifth_of_a_byte_is_used_to_the_full(length: int) -> None:
    plan = plan_for_bytes(numbers_of(length, extra_bytes=24), 0.2)
    assert 0.2 * length - 24 - 32 < plan.payload_bytes <= 0.2 * length - 24


@pytest.mark.parametrize("allowed", [0.2, 1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("members", [3, 10, 100])
def test_no_other_profile_errs_less_at_the_bytes_allowed(allowed: float, members: int) -> None:
    numbers = numbers_of(65_536, members)
    chosen = plan_for_bytes(numbers, allowed)
    profiles: tuple[Profile, ...] = get_args(Profile)
    for profile in profiles:
        whole = numbers.plan(profile, 1.0)
        other = numbers.plan(profile, min(1.0, allowed / whole.bytes_per_parameter))
        if other.bytes_per_parameter <= allowed:
            assert chosen.expected_error <= other.expected_error


@pytest.mark.parametrize("error", [1e-9, 1e-6, 1e-4, 1e-2, 0.5])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_error_allowed_is_never_exceeded_and_a_looser_one_never_costs_more(error: float, length: int) -> None:
    plan = plan_for_error(numbers_of(length), error)
    assert plan.expected_error <= error
    assert plan_for_error(numbers_of(length), 10 * error).payload_bytes <= plan.payload_bytes


def test_targets_that_nothing_serves_are_refused_with_the_nearest_that_something_would() -> None:
    with pytest.raises(CodecError, match="no encoding is so exact") as refused:
        plan_for_error(numbers_of(1000), 1e-15)
    assert refused.value.where == "aggregation.error"
    with pytest.raises(CodecError, match="no encoding is so small") as refused:
        plan_for_bytes(numbers_of(1000), 1e-4)
    assert refused.value.where == "aggregation.bytes_per_parameter"
    with pytest.raises(CodecError, match="so many members"):
        plan_for_bytes(numbers_of(1000, members=2**22), 1.0)


@pytest.mark.parametrize("profile", ["tiny", "lean", "default"])
@pytest.mark.parametrize("kept_fraction", [1.0, 0.3])
def test_the_chosen_plan_is_the_one_that_its_profile_and_fraction_give(profile: Profile, kept_fraction: float) -> None:
    numbers = numbers_of(99_991)
    plan = numbers.plan(profile, kept_fraction)
    again = derive_plan(
        model_length=99_991,
        kept_fraction=plan.kept_length / plan.model_length,
        profile=profile,
        update_norm=1.0,
        members_max=10,
        dithered=True,
    )
    assert (again.kept_length, again.payload_bytes, again.scale) == (plan.kept_length, plan.payload_bytes, plan.scale)
