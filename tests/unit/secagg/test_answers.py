"""The mapping that grows without changing."""

import pytest

from lepton_core.errors import ConflictError
from lepton_core.secagg.answers import Answers


def test_a_mapping_stays_as_it_was_when_it_has_a_successor():
    none = Answers()
    one = none.with_entry("a", 1)
    two = one.with_entry("b", 2)
    assert (dict(none), dict(one), dict(two)) == ({}, {"a": 1}, {"a": 1, "b": 2})
    assert "b" not in one
    assert one.get("b") is None
    assert len(one) == 1
    with pytest.raises(KeyError):
        one["b"]
    assert two == {"a": 1, "b": 2}
    assert repr(one) == "Answers({'a': 1})"


def test_two_successors_of_one_mapping_know_nothing_of_each_other():
    one = Answers().with_entry("a", 1)
    left, right = one.with_entry("b", 2), one.with_entry("b", 3)
    assert dict(left.with_entry("c", 4)) == {"a": 1, "b": 2, "c": 4}
    assert dict(right.with_entry("d", 5)) == {"a": 1, "b": 3, "d": 5}
    assert dict(one) == {"a": 1}
    assert left != right


def test_an_entry_is_never_replaced():
    one = Answers().with_entry("a", 1)
    with pytest.raises(ConflictError):
        one.with_entry("a", 1)


def test_as_many_entries_as_a_large_round_has_are_added_without_copying():
    grown = Answers()
    for key in range(10_000):
        before, grown = grown, grown.with_entry(key, key)
        assert grown._store is before._store
    assert list(grown) == list(range(10_000))
