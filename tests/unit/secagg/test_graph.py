"""Complete and sparse graphs: symmetric, connected, and drawn by what nobody chooses."""

import math
from collections import deque

import pytest

from lepton_core.errors import InputError
from lepton_core.ids import MemberId
from lepton_core.secagg.graph import choose_parameters, draw_graph, require_size, threshold
from lepton_core.secagg.parameters import Parameters
from tests.protocol.seeded import make_terms

MEMBERS = tuple(MemberId(bytes([index]) * 16) for index in range(7))
MANY = tuple(MemberId(index.to_bytes(16, "big")) for index in range(200))
TERMS = make_terms(max_cohort=10_000)


def draw(members, root=b"root", nonce=b"nonce", terms=TERMS):
    return draw_graph(root, nonce, members, terms)


def reached(graph, gone=()):
    """How many members a walk from the first one that is left finds."""
    left = [member for member in graph.members if member not in gone]
    found, queue = {left[0]}, deque(left[:1])
    while queue:
        for other in graph.neighbours(queue.popleft()):
            if other not in gone and other not in found:
                found.add(other)
                queue.append(other)
    return len(found)


def test_in_a_small_cohort_everybody_else_is_a_neighbour_and_a_member_counts_itself():
    graph = draw(MEMBERS)
    assert all(graph.neighbours(me) == tuple(other for other in MEMBERS if other != me) for me in MEMBERS)
    assert graph.holders(MEMBERS[3]) == MEMBERS
    assert (graph.threshold, graph.quorum) == (5, 4)
    assert graph.least_survivors(3) == 5
    assert graph.least_survivors(6) == 6


def test_a_large_cohort_has_the_found_number_of_neighbours_each_and_is_symmetric():
    graph = draw(MANY)
    found = choose_parameters(200, TERMS)
    around = {me: graph.neighbours(me) for me in MANY}
    for me, others in around.items():
        assert len(set(others)) == found.neighbours
        assert others == tuple(sorted(others))
        assert me not in others
        assert all(me in around[other] for other in others)
        assert graph.holders(me) == tuple(sorted((*others, me)))
    assert graph.threshold == graph.quorum == found.threshold
    assert graph.least_survivors(3) == 160  # dropout 0.2


def test_a_sparse_graph_is_connected_and_stays_so_when_fewer_than_k_members_in_a_row_are_gone():
    graph = draw(MANY)
    assert reached(graph) == len(MANY)
    assert reached(graph, gone=set(graph.circle[3 : 3 + graph.degree // 2 - 1])) == len(MANY) - graph.degree // 2 + 1


def test_the_graph_follows_from_root_nonce_and_members_and_from_nothing_else():
    graph = draw(MANY)
    assert draw(MANY[::-1]) == graph
    assert draw(MANY, root=b"other root").circle != graph.circle
    assert draw(MANY, nonce=b"other nonce").circle != graph.circle
    # Root and nonce cannot be cut in two places.
    assert draw(MANY, root=b"rootn", nonce=b"once").circle != graph.circle
    assert graph.circle != graph.members


def test_every_place_on_the_circle_is_as_likely_for_every_member():
    """Chi-squared over 4,000 drawn circles of 65; the statistic has 64 degrees of freedom, 150 is 7.6 sigma off."""
    members, counts = MANY[:65], [0] * 65
    terms = make_terms(max_cohort=65)
    for trial in range(4000):
        counts[draw(members, nonce=trial.to_bytes(4, "big"), terms=terms).places[members[0]]] += 1
    expected = 4000 / 65
    assert sum((count - expected) ** 2 / expected for count in counts) < 150


def test_numbers_that_the_terms_give_are_used_when_they_keep_every_condition():
    terms = make_terms(max_cohort=100, corruption=0.05, dropout=0.1, neighbours=32, threshold=20)
    assert choose_parameters(100, terms) == Parameters(32, 20)
    assert choose_parameters(64, terms) is None
    with pytest.raises(InputError) as refused:
        choose_parameters(100, make_terms(max_cohort=100, corruption=0.1, dropout=0.1, neighbours=32, threshold=20))
    assert refused.value.reason == "INFEASIBLE"


def test_a_cohort_that_no_sparse_graph_serves_has_the_complete_one_while_enough_stay():
    terms = make_terms(max_cohort=65, corruption=0.36, dropout=0.3)
    assert choose_parameters(65, terms) is None
    graph = draw(MANY[:65], terms=terms)
    assert len(graph.neighbours(MANY[0])) == 64
    assert (graph.threshold, graph.quorum) == (45, 44)
    with pytest.raises(InputError) as refused:
        choose_parameters(65, make_terms(max_cohort=65, corruption=0.36, dropout=0.35))
    assert refused.value.reason == "INFEASIBLE"
    assert "at most 32 %" in refused.value.hint


@pytest.mark.parametrize("size", [0, 1, 2, 10_001, 100_000])
def test_sizes_without_a_graph_are_refused(size):
    for use in (require_size, lambda count: threshold(count, 0.1), lambda count: choose_parameters(count, TERMS)):
        with pytest.raises(InputError) as refused:
            use(size)
        assert refused.value.reason == "COHORT_SIZE"


@pytest.mark.parametrize("members", [MEMBERS, MANY])
def test_a_stranger_has_no_neighbours(members):
    with pytest.raises(InputError):
        draw(members).neighbours(MemberId(b"x" * 16))


def test_no_graph_is_drawn_without_root_and_nonce():
    with pytest.raises(InputError):
        draw(MANY, root=b"")
    with pytest.raises(InputError):
        draw(MEMBERS, nonce=b"")


@pytest.mark.parametrize("corruption", [0.0, 0.1, 0.2, 1 / 3, 0.4, 0.49])
def test_two_thresholds_overlap_in_an_honest_member_at_every_size(corruption):
    for size in range(3, 65):
        t = threshold(size, corruption)
        assert 2 * size // 3 + 1 <= t <= size
        # Two groups of t share 2t - n members: more than there are colluders.
        assert 2 * t - size > math.floor(corruption * size)


def test_known_thresholds():
    assert [threshold(size, 0.1) for size in (3, 4, 5, 6, 7, 8, 16, 64)] == [3, 3, 4, 5, 5, 6, 11, 43]
    assert threshold(64, 0.45) == 47


@pytest.mark.parametrize("corruption", [-0.1, 0.5, 1.0, math.nan])
def test_a_corruption_without_an_honest_majority_is_refused(corruption):
    with pytest.raises(InputError):
        threshold(5, corruption)
