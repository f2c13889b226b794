"""Wherever a publication's process dies, the next one finds the version whole or not at all, and can publish it."""

from __future__ import annotations

import pytest

from tests.lives import told_by

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("dying-publication")]
UNKNOWN = {
    "listed": False,
    "record": "not-found",
    "bytes": "not-found",
    "concepts": "not-found",
    "approved": [],
    "published": 0,
}


def whole(digest: str, concept: str, label: str, approved: list[str]) -> dict:
    return {
        "listed": True,
        "record": label,
        "bytes": digest,
        "concepts": [concept],
        "approved": approved,
        "published": 1,
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    """Every death and what came after it, in a process of its own that nobody else has threads in."""
    return told_by("tests.unit.server.dying_publication", str(tmp_path_factory.mktemp("dying")), timeout_s=300)


def test_every_change_that_a_publication_makes_is_a_place_where_one_died(told) -> None:
    kinds = told["undisturbed"]["kinds"]
    assert told["ended"] == 0
    # A file written, synced and renamed, its folder synced; a store loaded and renamed; a transaction.
    order = [kind for kind in kinds if kind in {"fsync", "replace", "bulk_load", "rename", "commit"}]
    assert order == ["fsync", "replace", "fsync", "bulk_load", "rename", "commit"]
    assert "execute" in kinds
    assert len(told["deaths"]) == len(kinds) + 1
    assert {tuple(death["ended"]) for death in told["deaths"]} == {(-9, 0)}


def test_what_a_dead_publication_left_goes_at_the_next_start_and_nothing_on_record_does(told) -> None:
    digest, swept = told["undisturbed"]["digest"], []
    for death in told["deaths"]:
        on_record = death["before"][1] != UNKNOWN
        assert death["left"] == sorted([told["earlier"], *([digest] if on_record else [])]), death["at"]
        assert death["kept"] == death["before"], death["at"]
        assert death["swept"] in ([], [digest])
        swept.append(death["swept"] == [digest])
    assert any(swept)
    assert not swept[0]
    assert not swept[-1]


def test_a_version_is_published_wholly_or_not_there_at_all_and_no_other_is_lost(told) -> None:
    digest = told["undisturbed"]["digest"]
    new, earlier = whole(digest, "urn:b", "new", []), whole(told["earlier"], "urn:a", "earlier", ["bob"])
    outcomes = []
    for death in told["deaths"]:
        assert death["before"][0] == death["after"][0] == earlier, death["at"]
        assert death["before"][1] in (new, UNKNOWN), death["at"]
        outcomes.append(death["before"][1] == new)
        # Repeated, it goes through, under the same hash, once on record, ready for queries; nothing half is left.
        assert (death["again"], death["after"][1]) == (digest, new), death["at"]
        assert (death["statements"], death["passing"]) == (2, []), death["at"]
    assert not outcomes[0]
    assert outcomes[-1]
    assert outcomes == sorted(outcomes)
