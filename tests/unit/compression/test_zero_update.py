"""A member that learnt nothing adds exactly nothing."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compression.update import Profile, decode_sum, derive_dither, derive_plan, encode
from lepton_core.ports import SystemRandomness


@pytest.mark.parametrize("profile", ["exact", "default", "lean", "tiny"])
@pytest.mark.parametrize("members_max", [3, 5, 64])
def test_updates_of_zeros_decode_to_exactly_zero(profile: Profile, members_max: int) -> None:
    plan = derive_plan(model_length=1000, kept_fraction=0.5, profile=profile, update_norm=1.0, members_max=members_max)
    seed = b"s" * 32
    nothing = np.zeros(1000, dtype=np.float32)
    total = sum(encode(nothing, plan, seed, SystemRandomness()) for _ in range(3))
    assert not decode_sum(np.asarray(total), 3, plan, seed).any()


@pytest.mark.parametrize("profile", ["exact", "default", "lean", "tiny"])
def test_zeros_stay_zero_under_dither_and_the_least_update_does_not(profile: Profile) -> None:
    plan = derive_plan(
        model_length=1000, kept_fraction=0.5, profile=profile, update_norm=1.0, members_max=5, dithered=True
    )
    seed = b"s" * 32
    dithers = [derive_dither(seed, bytes([member])) for member in range(3)]
    updates = [np.zeros(1000, dtype=np.float32) for _ in dithers]
    for size in (0.0, plan.scale / plan.max_value):
        updates[0][:] = size
        total = sum(
            encode(update, plan, seed, SystemRandomness(), dither=dither)
            for update, dither in zip(updates, dithers, strict=True)
        )
        assert decode_sum(np.asarray(total), 3, plan, seed, dithers=dithers).any() == bool(size)
