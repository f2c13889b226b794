"""The accountant bounds epsilon from above, composes, and derives noise that keeps the promise."""

import json
import math
import resource
import time
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import dp_event, rdp

from lepton_core.errors import InputError, RefusedError
from lepton_core.privacy.accountant import (
    Observer,
    epsilon_of,
    noise_multiplier_for,
    sum_noise_multiplier_for,
)
from lepton_core.privacy.concentrated import epsilon_of_rho, sum_rho
from lepton_core.privacy.events import Replaced, SampledGaussian, SummedDiscreteGaussian, event_document, parse_event

#: A sum of ten members' integers, in which a record moves at most 1000 units.
SUM = SummedDiscreteGaussian(
    sensitivity=1000.0, share_variance=10**8, contributors=10, colluders=2, dimension=4096, steps=60
)


def rdp_epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_event.PoissonSampledDpEvent(sampling_rate, dp_event.GaussianDpEvent(noise_multiplier)), steps)
    return float(accountant.get_epsilon(delta))


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of mu-Gaussian differential privacy at epsilon: Dong, Roth and Su 2019, corollary 2.13."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    return phi(-epsilon / mu + mu / 2) - math.exp(epsilon) * phi(-epsilon / mu - mu / 2)


@pytest.mark.parametrize(
    ("noise_multiplier", "sampling_rate", "steps", "delta"),
    [(1.39, 0.25, 100, 1e-3), (2.25, 0.5, 80, 1e-3), (1.0, 0.01, 500, 1e-5), (4.0, 1.0, 20, 1e-5)],
)
def test_epsilon_lies_a_little_below_what_renyi_accounting_says(noise_multiplier, sampling_rate, steps, delta):
    epsilon = epsilon_of([SampledGaussian(noise_multiplier, sampling_rate, steps)], delta)
    renyi = rdp_epsilon(noise_multiplier, sampling_rate, steps, delta)
    assert 0.75 * renyi < epsilon < renyi


@pytest.mark.parametrize(("noise_multiplier", "steps"), [(4.0, 20), (2.0, 1), (10.0, 100)])
def test_without_sampling_epsilon_is_that_of_the_exact_gaussian_and_never_below(noise_multiplier, steps):
    delta = 1e-4
    epsilon = epsilon_of([SampledGaussian(noise_multiplier, 1.0, steps)], delta)
    mu = math.sqrt(steps) / noise_multiplier
    assert gaussian_delta(epsilon, mu) <= delta * (1 + 1e-9)
    assert gaussian_delta(epsilon - 1e-3, mu) > delta


def test_epsilons_of_rounds_are_composed_and_not_summed():
    one_round = SampledGaussian(2.25, 0.5, 4)
    together = epsilon_of([one_round] * 20, 1e-3)
    assert together == epsilon_of([SampledGaussian(2.25, 0.5, 80)], 1e-3)
    assert together < 0.5 * 20 * epsilon_of([one_round], 1e-3)


def test_different_events_compose_in_any_order_to_more_than_each():
    events = [SampledGaussian(2.0, 0.5, 20), SampledGaussian(3.0, 0.25, 40)]
    both = epsilon_of(events, 1e-3)
    assert both == epsilon_of(events[::-1], 1e-3)
    assert both > max(epsilon_of([event], 1e-3) for event in events)


def test_no_events_cost_nothing():
    assert epsilon_of([], 1e-5) == 0.0


@pytest.mark.parametrize(
    ("epsilon", "delta", "sampling_rate", "steps"),
    [(8.0, 1e-3, 0.5, 80), (1.0, 1e-5, 0.1, 50), (0.3, 1e-4, 1.0, 5)],
)
def test_derived_noise_is_the_smallest_of_three_digits_that_keeps_epsilon(epsilon, delta, sampling_rate, steps):
    noise = noise_multiplier_for(epsilon, delta, sampling_rate, steps)
    assert float(f"{noise:.3g}") == noise
    assert epsilon_of([SampledGaussian(noise, sampling_rate, steps)], delta) <= epsilon
    one_less = float(f"{noise - 10 ** (math.floor(math.log10(noise)) - 2):.3g}")
    assert epsilon_of([SampledGaussian(one_less, sampling_rate, steps)], delta) > epsilon


def test_a_very_large_epsilon_still_gets_the_least_noise():
    assert noise_multiplier_for(1000.0, 1e-3, 0.5, 1) == 0.3


def test_an_epsilon_out_of_reach_is_refused():
    with pytest.raises(RefusedError, match="no noise is enough"):
        noise_multiplier_for(1e-7, 1e-12, 1.0, 10)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-3, math.nan])
def test_a_delta_out_of_range_is_refused(delta):
    with pytest.raises(InputError, match="delta"):
        epsilon_of([SampledGaussian(1.0, 0.5, 1)], delta)
    with pytest.raises(InputError, match="delta"):
        noise_multiplier_for(1.0, delta, 0.5, 1)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_epsilon_out_of_range_is_refused(epsilon):
    with pytest.raises(InputError, match="epsilon"):
        noise_multiplier_for(epsilon, 1e-3, 0.5, 1)


def test_an_event_the_accountant_does_not_know_is_refused():
    with pytest.raises(RefusedError, match="does not know"):
        epsilon_of([object()], 1e-3)


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 0.5, 1),
        (math.inf, 0.5, 1),
        (math.nan, 0.5, 1),
        (1.0, 0.0, 1),
        (1.0, 1.5, 1),
        (1.0, math.nan, 1),
        (1.0, 0.5, 0),
        (1.0, 0.5, 1.5),
        (1.0, 0.5, True),
    ],
)
def test_an_event_with_a_number_out_of_range_cannot_be_made(values):
    with pytest.raises(InputError, match="cannot be"):
        SampledGaussian(*values)


@pytest.mark.parametrize("event", [SampledGaussian(2.25, 0.5, 4), SUM])
def test_an_event_survives_its_document(event):
    assert parse_event(json.loads(json.dumps(event_document(event)))) == event


@pytest.mark.parametrize(
    "change",
    [{"kind": "laplace"}, {"steps": 1.0}, {"noise_multiplier": "2"}, {"extra": 1}, {"sampling_rate": 2.0}],
)
def test_an_event_document_of_another_form_is_refused(change):
    with pytest.raises(InputError):
        parse_event(event_document(SampledGaussian(2.25, 0.5, 4)) | change)


@pytest.mark.parametrize("change", [{"steps": 1.0}, {"sensitivity": 1000}, {"colluders": True}, {"extra": 1}])
def test_a_sums_document_of_another_form_is_refused(change):
    with pytest.raises(InputError):
        parse_event(event_document(SUM) | change)


@pytest.mark.parametrize(
    "change",
    [
        {"sensitivity": 0.0},
        {"sensitivity": math.inf},
        {"share_variance": 0},
        {"share_variance": 10**400},
        {"contributors": 2},
        {"contributors": 10**400},
        {"colluders": -1},
        {"dimension": 0},
        {"steps": 0},
        {"steps": 10**400},
    ],
)
def test_a_sum_with_a_number_out_of_range_cannot_be_made(change):
    with pytest.raises(InputError, match="cannot be") as refused:
        replace(SUM, **change)
    assert refused.value.where == f"event.{next(iter(change))}"


def test_sums_of_integer_noise_cost_what_their_zcdp_does_and_more_against_colluders():
    for observer, shares in ((Observer.SUMS, 10), (Observer.COLLUDERS, 8)):
        rho = 60 * sum_rho(sensitivity=1000.0, share_variance=1e8, shares=shares, dimension=4096)
        assert epsilon_of([SUM], 1e-4, observer) == epsilon_of_rho(rho, 1e-4)
    assert epsilon_of([SUM], 1e-4, Observer.SUMS) < epsilon_of([SUM], 1e-4)
    assert epsilon_of([replace(SUM, steps=1)] * 60, 1e-4) == epsilon_of([SUM], 1e-4)


def test_a_jobs_sums_cost_the_same_however_many_of_them_are_charged_one_by_one():
    one, whole = replace(SUM, steps=1), epsilon_of([SUM], 1e-4)
    assert {epsilon_of([one] * charged + [replace(SUM, steps=60 - charged)], 1e-4) for charged in range(60)} == {whole}


def test_no_sum_of_integer_noise_costs_less_than_the_exact_gaussian():
    continuous = SampledGaussian(math.sqrt(8e8) / 1000.0, 1.0, 60)
    exact = epsilon_of([continuous], 1e-4)
    assert exact <= epsilon_of([SUM], 1e-4) <= 1.15 * exact


def test_both_kinds_together_cost_more_than_either_and_less_than_their_sum():
    local = SampledGaussian(20.0, 0.5, 400)
    together = epsilon_of([SUM, local], 1e-4)
    assert together == epsilon_of([local, SUM], 1e-4)
    alone = [epsilon_of([event], 1e-4) for event in (SUM, local)]
    assert max(alone) < together < sum(alone)
    # Without sampling the two are one Gaussian, whose exact epsilon no bound may go below.
    gaussian = SampledGaussian(30.0, 1.0, 60)
    mu = math.sqrt(60 * 1000.0**2 / 8e8 + 60 / 30.0**2)
    bound = epsilon_of([SUM, gaussian], 1e-4)
    assert gaussian_delta(bound, mu) <= 1e-4
    assert gaussian_delta(bound / 1.15, mu) > 1e-4


@pytest.mark.parametrize(
    "change",
    [{"share_variance": 1}, {"steps": 2**53}, {"sensitivity": 1e300}, {"contributors": 2**53, "colluders": 2**53 - 1}],
)
def test_sums_that_promise_nothing_cost_infinity_at_once(change):
    hostile = replace(SUM, **change)
    started = time.monotonic()
    assert epsilon_of([hostile], 1e-4) == math.inf or "contributors" in change
    assert epsilon_of([hostile, SampledGaussian(1.0, 0.5, 10)], 1e-4) > 1.0
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize(
    ("noise_multiplier", "sampling_rate", "steps"),
    [
        (1e-300, 1.0, 1),  # the distribution's own arithmetic overflows
        (1e-3, 1e-9, 5),  # needs more memory than a machine has
        (0.29, 1e-5, 1),  # a record is seldom drawn, and then shown nearly as it is
        (0.3, 1.0, 10**9),
        (1.0, 0.25, 10**7),
        (1e300, 1.0, 10**9),
    ],
)
def test_numbers_that_a_hostile_job_may_hold_cost_infinity_and_no_memory(noise_multiplier, sampling_rate, steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert epsilon_of([SampledGaussian(noise_multiplier, sampling_rate, steps)], 1e-3) == math.inf
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_more_noise_than_anybody_asks_for_is_counted_as_less():
    most = epsilon_of([SampledGaussian(1e6, 1.0, 10)], 1e-9)
    assert epsilon_of([SampledGaussian(1e300, 1.0, 10)], 1e-9) == most


def test_many_small_events_together_are_worked_out_no_longer_than_one_large_one():
    events = [SampledGaussian(1.0 + index / 1000, 1.0, 50) for index in range(100)]
    assert epsilon_of(events, 1e-3) == math.inf


def test_a_sum_over_samples_costs_less_than_over_all_and_more_than_the_gaussians_sum():
    sampled = replace(SUM, sampling_rate=0.02, share_variance=10**6)
    whole = replace(sampled, sampling_rate=1.0)
    found = epsilon_of([sampled], 1e-5)
    noise = math.sqrt(8 * 10**6) / 1000.0
    assert epsilon_of([SampledGaussian(noise, 0.02, 60)], 1e-5) < found < epsilon_of([whole], 1e-5)
    assert epsilon_of([sampled], 1e-5, Observer.SUMS) < found


@pytest.mark.parametrize("rate", [1.0, 0.05])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_of_sums_is_the_smallest_of_three_digits_that_keeps_epsilon(epsilon, rate):
    noise = sum_noise_multiplier_for(epsilon, 1e-4, rate, 60)
    smaller = math.floor(noise / 10 ** (math.floor(math.log10(noise)) - 2) - 0.5) * 10 ** (
        math.floor(math.log10(noise)) - 2
    )

    def spent(multiplier):
        variance = math.ceil((1000.0 * multiplier) ** 2 / 10)
        event = replace(SUM, colluders=0, share_variance=variance, sampling_rate=rate)
        return epsilon_of([event], 1e-4)

    assert spent(noise) <= epsilon < spent(smaller)


def test_noise_for_sums_that_nothing_reaches_is_refused():
    with pytest.raises(RefusedError, match="no noise is enough"):
        sum_noise_multiplier_for(1e-9, 1e-4, 1.0, 100_000)
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError):
            sum_noise_multiplier_for(epsilon, 1e-4, 1.0, 10)


# A vector that is replaced -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [SampledGaussian(10.0, 1.0, 20), SUM])
def test_a_vector_replaced_without_sampling_costs_what_one_of_twice_the_length_does(event):
    twice = (
        replace(event, noise_multiplier=5.0)
        if isinstance(event, SampledGaussian)
        else replace(event, sensitivity=2000.0)
    )
    assert epsilon_of([Replaced(event)], 1e-5) == epsilon_of([twice], 1e-5) > epsilon_of([event], 1e-5)


def test_a_vector_replaced_in_a_sum_over_a_sample_costs_no_less_than_one_removed():
    sampled = replace(SUM, sampling_rate=0.05)
    assert epsilon_of([sampled], 1e-5) < epsilon_of([Replaced(sampled)], 1e-5) == epsilon_of([Replaced(SUM)], 1e-5)


@pytest.mark.parametrize(
    ("noise_multiplier", "sampling_rate", "steps"), [(1.2, 0.05, 30), (4.0, 0.25, 6), (2.25, 0.5, 10)]
)
def test_a_vector_replaced_costs_more_than_one_removed_and_no_more_than_one_removed_and_one_added(
    noise_multiplier, sampling_rate, steps
):
    event = SampledGaussian(noise_multiplier, sampling_rate, steps)
    removed, replaced = epsilon_of([event], 1e-4), epsilon_of([Replaced(event)], 1e-4)
    # Of two steps, each (epsilon, delta): 2 epsilon at (1 + e^epsilon) delta, here 1e-4.
    small = 1e-4 / (1 + math.exp(2 * removed))
    assert removed < replaced <= 2 * epsilon_of([event], small)


def hockey_stick(first, second, *, noise, rate, epsilon):
    """P(x) - e^epsilon Q(x) where positive, summed over a grid of the plane; for two vectors of two coordinates."""
    axis = np.arange(-9, 9, 0.1)
    x, y = np.meshgrid(axis, axis)

    def density(vector):
        def normal(at):
            return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * noise**2)) / (2 * math.pi * noise**2)

        return (1 - rate) * normal((0.0, 0.0)) + rate * normal(vector)

    return float(np.maximum(density(first) - math.exp(epsilon) * density(second), 0).sum()) * 0.1**2


@pytest.mark.parametrize(("noise", "rate", "delta"), [(1.0, 0.3, 0.05), (1.5, 0.7, 0.01), (0.8, 0.05, 0.005)])
def test_opposite_vectors_of_full_length_are_the_worst_that_can_be_replaced(noise, rate, delta):
    epsilon = epsilon_of([Replaced(SampledGaussian(noise, rate, 1))], delta)
    worst = hockey_stick((1.0, 0.0), (-1.0, 0.0), noise=noise, rate=rate, epsilon=epsilon)
    assert worst == pytest.approx(delta, rel=0.02)
    random = np.random.default_rng(1)
    levels = (epsilon / 2, epsilon, -epsilon / 2)
    largest = {level: hockey_stick((1.0, 0.0), (-1.0, 0.0), noise=noise, rate=rate, epsilon=level) for level in levels}
    for _ in range(12):
        lengths, angles = random.choice([0.0, 0.3, 0.9, 1.0], 2), random.uniform(0, 2 * math.pi, 2)
        one, other = ((length * math.cos(a), length * math.sin(a)) for length, a in zip(lengths, angles, strict=True))
        for level in levels:
            assert hockey_stick(one, other, noise=noise, rate=rate, epsilon=level) <= largest[level] + 1e-6


def test_replaced_and_other_events_compose_in_any_order_to_more_than_each():
    events = [Replaced(SampledGaussian(2.0, 0.25, 8)), SampledGaussian(2.0, 0.25, 8)]
    both = epsilon_of(events, 1e-3)
    assert both == epsilon_of(events[::-1], 1e-3)
    assert max(epsilon_of([one], 1e-3) for one in events) < both < epsilon_of([events[0]] * 2, 1e-3)


def test_replaced_events_beside_sums_cost_more_than_either_and_more_than_removed_ones():
    event = SampledGaussian(3.0, 0.1, 40)
    alone = epsilon_of([Replaced(event)], 1e-5)
    mixed = epsilon_of([Replaced(event), replace(SUM, steps=1)], 1e-5)
    assert mixed > max(alone, epsilon_of([event, replace(SUM, steps=1)], 1e-5))
    assert mixed < 3 * alone


@pytest.mark.parametrize(("noise_multiplier", "sampling_rate", "steps"), [(0.3, 1e-6, 10**5), (0.31, 0.999, 10**6)])
def test_replaced_numbers_that_a_hostile_job_may_hold_are_worked_out_or_infinite(
    noise_multiplier, sampling_rate, steps
):
    assert epsilon_of([Replaced(SampledGaussian(noise_multiplier, sampling_rate, steps))], 1e-3) > 0
