"""zCDP of integer noise against the design's numbers, continuous bounds from below, and the exact divergence."""

import math

import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from dp_accounting.pld import privacy_loss_distribution as losses

from lepton_core.errors import InputError, RefusedError
from lepton_core.privacy.concentrated import (
    epsilon_of_rho,
    gaussian_divergence,
    rho_for_epsilon,
    sampled_divergence,
    sum_rho,
)

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


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("rho", [1e-4, 0.02, 0.5])
def test_a_sampled_mechanism_costs_what_theorem_5_says_at_orders_two_and_three(rate: float, rho: float) -> None:
    second = math.log(1 - rate**2 + rate**2 * math.exp(2 * rho))
    assert sampled_divergence(rho, rate, 2) == pytest.approx(min(second, 2 * rho), rel=1e-9)
    third = (1 - rate) ** 2 * (1 + 2 * rate) + 3 * rate**2 * (1 - rate) * math.exp(2 * rho)
    third = math.log(third + 3 * rate**3 * math.exp(6 * rho)) / 2
    assert sampled_divergence(rho, rate, 3) == pytest.approx(min(third, 3 * rho), rel=1e-9)


@pytest.mark.parametrize("order", [2, 3, 17, 256, 1024])
@pytest.mark.parametrize("rate", [0.001, 0.2, 0.999, 1.0])
def test_sampling_costs_at_least_what_the_gaussian_does_and_at_most_what_all_records_do(
    rate: float, order: int
) -> None:
    for noise in (0.5, 2.0, 30.0):
        rho = 0.5 / noise**2
        sampled = sampled_divergence(rho, rate, order)
        assert gaussian_divergence(noise, rate, order) * (1 - 1e-9) <= sampled <= order * rho


def test_the_gaussians_divergence_is_that_of_dp_accounting() -> None:
    accountant = rdp.RdpAccountant([2, 5, 40])
    sampled = dp_event.PoissonSampledDpEvent(0.1, dp_event.GaussianDpEvent(1.3))
    accountant.compose(sampled, 100)
    ours = [100 * gaussian_divergence(1.3, 0.1, order) for order in (2, 5, 40)]
    assert accountant.get_epsilon(1e-5) == pytest.approx(rdp.compute_epsilon([2, 5, 40], ours, 1e-5)[0], rel=1e-9)


@pytest.mark.parametrize(
    ("rho", "rate", "order"), [(-1.0, 0.5, 2), (math.nan, 0.5, 2), (0.1, 0.0, 2), (0.1, 1.1, 2), (0.1, 0.5, 1)]
)
def test_numbers_that_sample_nothing_are_refused(rho: float, rate: float, order: int) -> None:
    with pytest.raises(InputError):
        sampled_divergence(rho, rate, order)
    with pytest.raises(InputError):
        gaussian_divergence(0.0 if rate == 0.5 and order == 2 else 1.0, rate, order)
