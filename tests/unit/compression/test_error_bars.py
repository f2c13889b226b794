"""The bars of the design page: ||mean_hat - mean||^2 / mean ||x_i||^2 for a ring that never wraps."""

import hashlib

import numpy as np
import pytest

from lepton_compression.update import decode_sum, derive_dither, derive_plan, encode, encode_with_report

SEED = bytes(range(32))
PROFILE_OF = {8: "tiny", 12: "lean", 16: "default"}
LENGTH = 2**16


class HashedRandomness:
    def __init__(self):
        self._count = 0

    def token(self, length):
        self._count += 1
        return hashlib.shake_256(b"%d" % self._count).digest(length)


def measure(make_update, members, *, profile, dithered, members_max=None, length=LENGTH):
    plan = derive_plan(
        model_length=length,
        kept_fraction=1.0,
        profile=profile,
        update_norm=1.0,
        members_max=members_max or members,
        dithered=dithered,
    )
    randomness = HashedRandomness()
    total, mean = np.zeros(plan.padded_length, dtype=np.int64), np.zeros(length)
    dithers = [derive_dither(SEED, b"%d" % member) for member in range(members)] if dithered else []
    for member in range(members):
        values = make_update(np.random.default_rng(member), length)
        update = (values / np.linalg.norm(values)).astype(np.float32)
        mean += update / members
        total += encode(update, plan, SEED, randomness, dither=dithers[member] if dithered else None)
    return plan, float(np.sum((decode_sum(total, members, plan, SEED, dithers=dithers) - mean) ** 2))


def heavy_tailed(generator, length):
    return generator.standard_t(3, length)


def predicted(plan):
    """One member's rounding and saturation errors for standard normal values, by quadrature."""
    z = np.linspace(-8, 8, 400_001)
    weight = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    k = plan.scale * plan.padded_length**0.5
    place = (np.clip(z, -k, k) / k + 1) / 2 * plan.max_value
    fraction = place - np.floor(place)
    rounding = float(weight @ (fraction * (1 - fraction))) * (2 * k / plan.max_value) ** 2
    return rounding, float(weight @ np.clip(np.abs(z) - k, 0, None) ** 2)


@pytest.mark.parametrize(
    ("lane_bits", "members", "bar"),
    [(8, 10, 9e-4), (12, 10, 6e-6), (16, 10, 4e-8), (8, 100, 4e-3), (12, 100, 4e-5)],
)
def test_dithered_rounding_is_well_below_every_bar_on_heavy_tails(lane_bits, members, bar):
    length = LENGTH if members == 10 else LENGTH // 4
    _, error = measure(heavy_tailed, members, profile=PROFILE_OF[lane_bits], dithered=True, length=length)
    assert error < 0.7 * bar


@pytest.mark.parametrize(("lane_bits", "members"), [(8, 10), (12, 10), (16, 10), (8, 100), (12, 100)])
def test_stochastic_rounding_errs_as_much_as_theory_says(lane_bits, members):
    length = LENGTH if members == 10 else LENGTH // 4
    plan, error = measure(heavy_tailed, members, profile=PROFILE_OF[lane_bits], dithered=False, length=length)
    rounding, saturation = predicted(plan)
    # Beyond 5 sigma saturation is a matter of single values, so it is bounded and not expected.
    assert 0.95 * rounding <= error * members <= 1.05 * rounding + 2.0 * saturation


SHAPES = {
    "one value": lambda generator, length: (np.arange(length) == generator.integers(length)).astype(float),
    "gaussian": lambda generator, length: generator.standard_normal(length),
    "heavy-tailed": heavy_tailed,
    "sparse": lambda generator, length: generator.standard_normal(length) * (generator.random(length) < 0.02),
    "correlated": lambda generator, length: np.cumsum(generator.standard_normal(length)),
    "hot column": lambda generator, length: (
        generator.standard_normal(length) * np.where(np.arange(length) % 256 == 3, 1, 0.01)
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_four_bits_err_alike_whatever_the_shape_of_the_input(shape):
    # 15 levels: what 8-bit lanes give 17 members, of whom 10 came.
    plan, error = measure(SHAPES[shape], 10, profile="tiny", dithered=False, members_max=17)
    assert plan.value_bits == 4
    assert error < 1.25 * 2.4e-3


def test_members_who_agree_wholly_average_their_rounding_but_not_what_saturates():
    plan, error = measure(lambda _, length: np.ones(length), 10, profile="tiny", dithered=False, members_max=17)
    rounding, saturation = predicted(plan)
    assert error == pytest.approx(rounding / 10 + saturation, rel=0.08)


@pytest.mark.parametrize("profile", ["tiny", "lean", "default"])
@pytest.mark.parametrize("dithered", [True, False])
def test_a_plan_s_expected_error_is_what_is_measured(profile, dithered):
    plan, error = measure(SHAPES["gaussian"], 10, profile=profile, dithered=dithered)
    # Beyond 5 sigma saturation is a matter of single values.
    assert error == pytest.approx(plan.expected_error, rel=0.2 if profile == "default" else 0.08)


@pytest.mark.parametrize("dithered", [True, False])
def test_a_member_s_own_squared_error_is_that_of_its_decoded_update(dithered):
    update = (heavy_tailed(np.random.default_rng(1), LENGTH) / 300).astype(np.float32)
    plan = derive_plan(
        model_length=LENGTH,
        kept_fraction=1.0,
        profile="tiny",
        update_norm=float(np.linalg.norm(update)),
        members_max=10,
        dithered=dithered,
    )
    dither = derive_dither(SEED, b"member") if dithered else None
    lanes, report = encode_with_report(update, plan, SEED, HashedRandomness(), dither=dither)
    back = decode_sum(lanes, 1, plan, SEED, dithers=[dither] if dither else [])
    assert report.squared_error == pytest.approx(float(np.sum((back.astype(np.float64) - update) ** 2)), rel=0.01)
    assert report.squared_error == pytest.approx(plan.expected_encoding_error * plan.kept_norm**2, rel=0.1)
