"""zCDP of integer noise against the design's numbers, continuous bounds from below, and the exact divergence."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as losses

from lepton_core.errors import InputError, RefusedError
from lepton_core.privacy.concentrated import epsilon_of_rho, rho_for_epsilon, sum_rho

STEPS, DELTA = 60, 1e-4


@pytest.mark.parametrize(("epsilon", "multiplier"), [(1.0, 27.2), (2.0, 14.7), (8.0, 4.51)])
def test_the_noise_of_sixty_rounds_is_that_of_the_design(epsilon, multiplier):
    found = math.sqrt(STEPS / 2 / rho_for_epsilon(epsilon, DELTA))
    assert found <= multiplier
    assert found == pytest.approx(multiplier, rel=4e-3)  # of three digits


@pytest.mark.parametrize("multiplier", [2.0, 4.51, 14.7, 27.2])
def test_the_continuous_gaussian_costs_less_but_not_much(multiplier):
    exact = losses.from_gaussian_mechanism(multiplier).self_compose(STEPS).get_epsilon_for_delta(DELTA)
    found = epsilon_of_rho(STEPS / 2 / multiplier**2, DELTA)
    assert exact <= found <= 1.15 * exact


def chances_of(variance, shares):
    """The distribution of a sum of discrete Gaussians, by convolution, and the place of 0."""
    reach = math.ceil(14 * math.sqrt(variance)) + 2
    one = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * variance))
    one /= one.sum()
    total = np.ones(1)
    for _ in range(shares):
        total = np.convolve(total, one)
    return total


@pytest.mark.parametrize("variance", [0.3, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("shares", [1, 2, 5, 20])
@pytest.mark.parametrize("shift", [1, 3])
def test_the_exact_divergence_of_a_shifted_sum_stays_below_the_bound(variance, shares, shift):
    rho = sum_rho(sensitivity=shift, share_variance=variance, shares=shares, dimension=1)
    chances = chances_of(variance, shares)
    first, other = chances[shift:], chances[:-shift]
    for epsilon in (0.1, 0.5, 1.0, 2.0, 4.0):
        delta = np.clip(first - math.exp(epsilon) * other, 0, None).sum() + chances[:shift].sum()
        if 1e-12 < delta < 1:
            assert epsilon <= epsilon_of_rho(rho, float(delta)) * (1 + 1e-9)


def test_many_wide_shares_are_one_gaussian_and_narrow_ones_cost_more():
    wide = sum_rho(sensitivity=3.0, share_variance=100.0, shares=10, dimension=10_000)
    assert wide == pytest.approx(9.0 / (2 * 1000.0), rel=1e-12)
    narrow = sum_rho(sensitivity=3.0, share_variance=0.5, shares=10, dimension=10_000)
    assert narrow > 1.01 * 9.0 / (2 * 5.0)
    assert sum_rho(sensitivity=3.0, share_variance=0.5, shares=1, dimension=10_000) == pytest.approx(9.0)


def test_more_shares_than_are_added_one_by_one_never_make_the_bound_smaller():
    per_share = [
        sum_rho(sensitivity=1.0, share_variance=1.0 / shares, shares=shares, dimension=1)
        for shares in (9_999, 10_000, 10_001, 20_000)
    ]
    assert per_share == sorted(per_share)


def test_epsilon_grows_with_rho_and_falls_with_delta():
    by_rho = [epsilon_of_rho(10.0**power, 1e-5) for power in range(-12, 5)]
    assert by_rho == sorted(by_rho)
    by_delta = [epsilon_of_rho(0.1, 10.0**-power) for power in range(1, 15)]
    assert by_delta == sorted(by_delta)
    assert epsilon_of_rho(0.0, 1e-5) == 0.0
    assert epsilon_of_rho(math.inf, 1e-5) == math.inf


@pytest.mark.parametrize("rho", [1e-6, 1e-3, 0.1, 1.0, 30.0])
def test_no_order_gives_less_than_what_is_found(rho):
    orders = 1.0 + np.exp(np.linspace(-8, 16, 20_001))
    every = orders * rho + np.log1p(-1.0 / orders) - (math.log(1e-5) + np.log(orders)) / (orders - 1.0)
    assert epsilon_of_rho(rho, 1e-5) == pytest.approx(max(0.0, every.min()), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 10.0])
def test_the_rho_of_an_epsilon_keeps_it_and_nearly_uses_it_up(epsilon):
    rho = rho_for_epsilon(epsilon, 1e-6)
    assert epsilon_of_rho(rho, 1e-6) <= epsilon < epsilon_of_rho(rho * 1.0001, 1e-6)


@pytest.mark.parametrize(
    "numbers",
    [
        {"sensitivity": -1.0},
        {"sensitivity": math.nan},
        {"share_variance": 0.0},
        {"share_variance": math.inf},
        {"shares": 0},
        {"dimension": 0},
    ],
)
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(InputError) as refused:
        sum_rho(**{"sensitivity": 1.0, "share_variance": 1.0, "shares": 3, "dimension": 10, **numbers})
    assert refused.value.where == next(iter(numbers))


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_out_of_range_is_refused(delta):
    with pytest.raises(InputError):
        epsilon_of_rho(1.0, delta)
    with pytest.raises(InputError):
        rho_for_epsilon(1.0, delta)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_out_of_range_is_refused(epsilon):
    with pytest.raises(InputError):
        rho_for_epsilon(epsilon, 1e-5)


def test_a_rho_that_is_no_number_is_refused():
    for rho in (-1.0, math.nan):
        with pytest.raises(InputError):
            epsilon_of_rho(rho, 1e-5)


def test_an_epsilon_that_no_noise_reaches_is_refused():
    with pytest.raises(RefusedError, match="no noise"):
        rho_for_epsilon(1e-13, 1e-300)
