"""What is remembered of terms is theirs alone."""

from __future__ import annotations

from dataclasses import replace

from lepton_core.secagg.terms import LaneGroup, decode_terms, labelled_hash
from tests.protocol.seeded import make_terms


def test_changed_terms_have_an_encoding_a_digest_and_a_length_of_their_own() -> None:
    terms = make_terms()
    before = terms.encode(), terms.digest(), terms.words
    assert before == (terms.encode(), terms.digest(), terms.words)
    changed = replace(terms, lane_groups=(LaneGroup(100, 16),), min_cohort=4)
    assert changed.words == 25
    assert changed.encode() != before[0]
    assert changed.digest() != before[1]
    assert (terms.encode(), terms.digest(), terms.words) == before
    assert decode_terms(terms.encode()) == terms
    assert decode_terms(changed.encode()) == changed != terms


def test_terms_that_were_asked_for_their_digest_still_equal_those_that_were_not() -> None:
    asked = make_terms()
    asked.digest()
    assert asked == make_terms()
    assert hash(asked) == hash(make_terms())
    assert repr(asked) == repr(make_terms())


def test_parts_of_every_length_stand_behind_it() -> None:
    assert labelled_hash(b"label", b"x" * 128, b"") != labelled_hash(b"label", b"x" * 127, b"x")
    assert labelled_hash(b"label", b"x" * 300) != labelled_hash(b"label", b"x" * 299, b"x")
    assert labelled_hash(b"label", b"xy") != labelled_hash(b"labelx", b"y")
