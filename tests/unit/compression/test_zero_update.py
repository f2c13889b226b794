"""A member that learnt nothing adds exactly nothing."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compression.update import Profile, decode_sum, derive_plan, encode
from lepton_core.ports import SystemRandomness


@pytest.mark.parametrize("profile", ["exact", "default", "lean", "tiny"])
@pytest.mark.parametrize("members_max", [3, 5, 64])
def test_updates_of_zeros_decode_to_exactly_zero(profile: Profile, members_max: int) -> None:
    plan = derive_plan(model_length=1000, kept_fraction=0.5, profile=profile, update_norm=1.0, members_max=members_max)
    seed = b"s" * 32
    nothing = np.zeros(1000, dtype=np.float32)
    total = sum(encode(nothing, plan, seed, SystemRandomness()) for _ in range(3))
    assert not decode_sum(np.asarray(total), 3, plan, seed).any()
