"""The accountant bounds epsilon from above, composes, and derives noise that keeps the promise."""

import math
import resource

import pytest
from dp_accounting import dp_event, rdp

from lepton_core.errors import InputError, RefusedError
from lepton_core.privacy.accountant import epsilon_of, noise_multiplier_for
from lepton_core.privacy.events import SampledGaussian, event_document, parse_event


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


def test_an_event_survives_its_document():
    event = SampledGaussian(2.25, 0.5, 4)
    assert parse_event(event_document(event)) == event


@pytest.mark.parametrize(
    "change",
    [{"kind": "laplace"}, {"steps": 1.0}, {"noise_multiplier": "2"}, {"extra": 1}, {"sampling_rate": 2.0}],
)
def test_an_event_document_of_another_form_is_refused(change):
    with pytest.raises(InputError):
        parse_event(event_document(SampledGaussian(2.25, 0.5, 4)) | change)


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
