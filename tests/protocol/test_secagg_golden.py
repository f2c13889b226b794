"""Protocol v1 byte for byte: what is sent never changes silently."""

import json

import pytest

from tests.protocol.seeded import make_identities, make_terms, pack_values
from tests.vectors.secagg.v1.generate import PATH, ROUNDS, TORN_ROUNDS, make_values, run

GOLDEN = json.loads(PATH.read_text())


def test_the_golden_file_holds_every_round():
    assert set(GOLDEN["rounds"]) == {*ROUNDS, *TORN_ROUNDS}


@pytest.mark.parametrize("name", [*ROUNDS, *TORN_ROUNDS])
def test_a_round_sends_the_golden_messages(name):
    assert run(name) == GOLDEN["rounds"][name]


@pytest.mark.parametrize("name", GOLDEN["rounds"])
def test_a_golden_sum_is_the_sum_of_the_survivors_by_hand(name):
    golden, terms = GOLDEN["rounds"][name], make_terms()
    places = {key.member.hex(): place for place, key in enumerate(make_identities(golden["members"]))}
    words = sum(pack_values(make_values(places[member], terms), terms) for member in golden["survivors"])
    assert [int(word) for group in golden["sum"] for word in group] == words.tolist()


@pytest.mark.parametrize("name", TORN_ROUNDS)
def test_a_golden_torn_upload_is_half_of_one_and_in_no_sum(name):
    golden, terms = GOLDEN["rounds"][name], make_terms()
    ((member, half),) = golden["torn"].items()
    assert member not in golden["survivors"]
    assert len(bytes.fromhex(half)) == 8 * (terms.words // 2)
    assert len(golden["survivors"]) == 13
    # The members that were lost before and in their upload had dealt shares to all fifteen that dealt, or 13 of 15.
    assert golden["pair_masks"] == 2 * 13
