"""The finder of k and t: the check values of the design, and every condition in exact arithmetic."""

import re
from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest

from lepton_core.errors import InputError
from lepton_core.secagg.parameters import (
    CORRECTNESS_BITS,
    Adversary,
    Assumptions,
    Parameters,
    count_of,
    find_parameters,
    is_connected,
    require_parameters,
    search,
    threshold_range,
)


@pytest.mark.parametrize(
    ("members", "corruption", "expected"),
    [
        (128, 0.2, (36, 24)),
        (1000, 0.2, (68, 44)),
        (10_000, 0.2, (80, 51)),
        (100_000, 0.2, (88, 55)),
        (256, 0.1, (36, 20)),
    ],
)
def test_the_finder_gives_the_published_numbers_at_forty_bits_against_a_curious_server(members, corruption, expected):
    found = find_parameters(Assumptions(members, corruption, 0.1, 40, Adversary.CURIOUS))
    assert (found.neighbours, found.threshold) == expected


def probability(members, marked, drawn, counts):
    """P[Hyp(members, marked, drawn) in counts], exactly."""
    ways = sum(comb(marked, x) * comb(members - marked, drawn - x) for x in counts)
    return Fraction(ways, comb(members, drawn))


def exact_range(assumed, k):
    """`threshold_range` by the definitions, in fractions."""
    n, corrupted, staying = assumed.members, assumed.corrupted, assumed.staying
    rare = Fraction(1, 2 ** (assumed.security_bits + 1) * n)
    t1 = next(x for x in range(k + 1) if probability(n, corrupted, k, range(x + 1, k + 1)) <= rare)
    low = (k + 1 + t1) // 2 + 1 if assumed.adversary is Adversary.MALICIOUS else t1 + 1
    lost = Fraction(1, 2**CORRECTNESS_BITS * n)
    high = max(t for t in range(k + 2) if probability(n, staying, k, range(t)) <= lost)
    return low, min(high, k + 1)


@pytest.mark.parametrize("adversary", Adversary)
@pytest.mark.parametrize("members", [65, 100, 333])
@pytest.mark.parametrize(("corruption", "dropout"), [(0.0, 0.05), (0.05, 0.1), (0.1, 0.1), (0.2, 0.1), (0.1, 0.25)])
def test_the_found_numbers_are_the_smallest_that_keep_every_condition_in_exact_arithmetic(
    members, corruption, dropout, adversary
):
    assumed = Assumptions(members, corruption, dropout, 80, adversary)
    found = find_parameters(assumed)
    away = assumed.corrupted + assumed.lost
    for k in range(2, found.neighbours + 2, 2):
        split = Fraction(members * (members - k - 1), 2)
        split *= Fraction(comb(members - k, away - k), comb(members, away)) if k <= away else 0
        connected = split <= Fraction(1, 2**81)
        low, high = exact_range(assumed, k)
        assert is_connected(assumed, k) == connected
        assert threshold_range(assumed, k) == (low, high)
        assert (connected and low <= high) == (k == found.neighbours)
    assert found.threshold == low
    if adversary is Adversary.MALICIOUS:
        # Two groups of t holders among k + 1 share more than the colluders there can be.
        assert 2 * found.threshold > found.neighbours + 1


def test_shares_are_counted_as_they_are_written():
    assert count_of(0.29, 100) == 29  # 0.29 * 100 is 28.999999999999996 as a float
    assert count_of(0.1, 30) == 3
    assert count_of(0.1, 39) == 3
    assert Assumptions(100, 0.0, 0.07, 80).staying == 93


def test_assumptions_that_no_graph_serves_are_refused_with_the_nearest_that_one_does():
    assumed = Assumptions(1000, 0.45, 0.3, 80)
    with pytest.raises(InputError) as refused:
        find_parameters(assumed)
    assert refused.value.reason == "INFEASIBLE"
    assert refused.value.hint == "corruption 0.39 instead of 0.45 or dropout 0.27 instead of 0.3"
    assert search(Assumptions(1000, 0.39, 0.3, 80)) is not None
    assert search(Assumptions(1000, 0.40, 0.3, 80)) is None
    assert search(Assumptions(1000, 0.45, 0.27, 80)) is not None
    assert search(Assumptions(1000, 0.45, 0.28, 80)) is None


@pytest.mark.parametrize(
    ("members", "corruption", "dropout", "hint"),
    [
        (1000, 0.45, 0.3, "corruption 0.39 instead of 0.45 or dropout 0.27 instead of 0.3"),
        (70, 0.4, 0.31, "corruption 0.35 instead of 0.4 or dropout 0.28 instead of 0.31"),
        (66, 0.0, 0.6, "dropout 0.48 instead of 0.6"),
        (65, 0.49, 0.99, "dropout 0.23 instead of 0.99"),
        (66, 0.45, 0.9, "dropout 0.25 instead of 0.9"),
        (3, 0.0, 0.0, "invite more members, or at most 64"),
    ],
)
def test_the_nearest_assumptions_told_are_feasible_and_the_next_percent_is_not(members, corruption, dropout, hint):
    assumed = Assumptions(members, corruption, dropout, 80)
    with pytest.raises(InputError) as refused:
        find_parameters(assumed)
    assert refused.value.hint == hint
    for name, nearest in re.findall(r"(\w+) ([\d.]+) instead of", hint):
        for share, feasible in ((float(nearest), True), (round(float(nearest) + 0.01, 2), False)):
            assert (search(replace(assumed, **{name: share})) is not None) is feasible


def test_the_search_stops_early_only_where_no_larger_k_would_do():
    for corruption, dropout in ((0.45, 0.3), (0.2, 0.42), (0.0, 0.5), (0.4, 0.31)):
        assumed = Assumptions(70, corruption, dropout, 80)
        every = [k for k in range(2, 69, 2) if is_connected(assumed, k)]
        feasible = [k for k in every if threshold_range(assumed, k)[0] <= threshold_range(assumed, k)[1]]
        found = search(assumed)
        assert (found.neighbours if found else None) == (feasible[0] if feasible else None)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (Parameters(31, 20), "even"),
        (Parameters(0, 1), "even"),
        (Parameters(100, 60), "even"),
        (Parameters(32, 19), "20 to 22"),
        (Parameters(32, 23), "20 to 22"),
        (Parameters(16, 12), "of which there is none"),
        (Parameters(4, 3), "connected"),
    ],
)
def test_given_numbers_that_break_a_condition_are_refused_with_the_nearest_that_keep_it(given, rule):
    with pytest.raises(InputError) as refused:
        require_parameters(given, Assumptions(100, 0.05, 0.1, 80))
    assert rule in refused.value.expected
    assert refused.value.hint == "28 neighbours and threshold 18 would do"


def test_given_numbers_that_keep_every_condition_are_accepted():
    require_parameters(Parameters(32, 20), Assumptions(100, 0.05, 0.1, 80))
    require_parameters(Parameters(28, 18), Assumptions(100, 0.05, 0.1, 80))
