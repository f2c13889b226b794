"""The complete graph and its threshold."""

import math

import pytest

from lepton_core.errors import InputError
from lepton_core.ids import MemberId
from lepton_core.secagg.graph import holders, neighbours, require_size, threshold

MEMBERS = tuple(MemberId(bytes([index]) * 16) for index in range(7))


def test_everybody_else_is_a_neighbour_and_neighbourhood_is_symmetric():
    around = {member: neighbours(b"root", b"nonce", MEMBERS, member) for member in MEMBERS}
    assert all(around[member] == tuple(other for other in MEMBERS if other != member) for member in MEMBERS)
    assert all(member in around[other] for member in MEMBERS for other in around[member])


def test_a_dealer_holds_a_share_of_its_own():
    assert holders(neighbours(b"root", b"nonce", MEMBERS, MEMBERS[3]), MEMBERS[3]) == MEMBERS


@pytest.mark.parametrize("size", [0, 1, 2, 65, 1000])
def test_sizes_without_a_graph_are_refused(size):
    for use in (require_size, lambda count: threshold(count, 0.1)):
        with pytest.raises(InputError) as refused:
            use(size)
        assert refused.value.reason == "COHORT_SIZE"


def test_a_stranger_has_no_neighbours():
    with pytest.raises(InputError):
        neighbours(b"root", b"nonce", MEMBERS, MemberId(b"x" * 16))


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
