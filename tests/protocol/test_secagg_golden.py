"""Protocol v1 byte for byte: what is sent never changes silently."""

import json

import pytest

from tests.vectors.secagg.v1.generate import PATH, ROUNDS, run

GOLDEN = json.loads(PATH.read_text())


def test_the_golden_file_holds_every_round():
    assert set(GOLDEN["rounds"]) == set(ROUNDS)


@pytest.mark.parametrize("name", ROUNDS)
def test_a_round_sends_the_golden_messages(name):
    assert run(name) == GOLDEN["rounds"][name]
