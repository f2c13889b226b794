import functools

import numpy as np
import pytest

import one_run_audit

CANARIES, DELTA, EPSILON = 800, 1e-5, 2.0


@functools.cache
def cases():
    made = one_run_audit._cases(EPSILON, DELTA, steps=4, canaries=CANARIES)
    return {(case.mode, case.fault): case for case in made}


def audited(mode, fault):
    coins = np.random.default_rng(0).random(CANARIES) < 0.5
    case = cases()[mode, fault]
    return one_run_audit.audit(case.run(coins), coins, DELTA), case.claimed


@pytest.mark.parametrize("mode", ["record-local", "record-distributed"])
def test_an_audit_of_the_production_code_stays_below_the_accountant(mode):
    found, claimed = audited(mode, "none")
    assert 1.9 < claimed <= EPSILON
    assert found < claimed


@pytest.mark.parametrize("fault", ["no clipping", "no noise"])
def test_a_gross_fault_is_found(fault):
    found, claimed = audited("record-local", fault)
    assert found > claimed + 1


def test_right_guesses_of_randomized_responses_are_as_unlikely_as_they_are():
    # 60 of 100 answers right where each is with 1/2: P[Binomial(100, 1/2) >= 60].
    assert one_run_audit.probability_of(60, 100, 100, 0.0, 0.0) == pytest.approx(0.0284440, rel=1e-4)


def test_delta_only_ever_makes_the_bound_weaker():
    bounds = [one_run_audit.least_epsilon(190, 200, 400, delta, 0.05) for delta in (0.0, 1e-5, 1e-3)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2] > 0


def test_the_bound_holds_for_randomized_responses_of_a_known_epsilon():
    chance, epsilon, refuted = np.random.default_rng(1), 1.0, 0
    for _ in range(40):
        coins = chance.random(400) < 0.5
        told = np.where(chance.random(400) < 1 / (1 + np.exp(-epsilon)), coins, ~coins)
        refuted += one_run_audit.audit(told + 1e-3 * chance.random(400), coins, 0.0) > epsilon
    # 2 of 40 are allowed on average, and fewer come, as five numbers of guesses share them.
    assert refuted <= 2


@pytest.mark.parametrize("mode", ["record-local", "record-distributed"])
def test_canaries_are_clipped_to_the_bound_each_on_its_own_coordinate(mode):
    job = one_run_audit._canary_job(mode, 20, noise_multiplier=1e-6)
    coins = np.arange(20) % 2 == 0
    scores = one_run_audit._scores(job, coins) / one_run_audit._RATE
    if mode == "record-distributed":
        scores *= job.training.expected_rows
    assert np.allclose(scores, np.where(coins, 1.0, 0.0), atol=0.1)
