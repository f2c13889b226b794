"""Every catalogue of ontology versions behaves alike: in memory, and over each kind of store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_core.errors import NotFoundError
from lepton_core.ids import Digest
from lepton_kg.catalogue import Catalogue, Decision, MemoryCatalogue, VersionRecord
from lepton_server.api.knowledge_catalogue import StoreCatalogue
from lepton_server.audit import verify_audit
from lepton_server.store.memory import MemoryStore
from lepton_server.store.migrate import downgrade, migrate
from lepton_server.store.port import Store
from lepton_server.store.sql import SqlStore

KINDS = ["bare", "memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgres"))]
FIRST, SECOND = Digest("a" * 64), Digest("b" * 64)
RECORD = VersionRecord(FIRST, "herz: „größer“ 心", 5.25, "ada", 3, 900, "obo", "lepton-obo/1", "d" * 64)
LATER = dataclasses.replace(RECORD, digest=SECOND, published=9.0, label="")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store | None]:
    """An empty store; None for the catalogue that has none."""
    if request.param in {"bare", "memory"}:
        yield MemoryStore() if request.param == "memory" else None
        return
    url = f"sqlite:///{tmp_path}/lepton.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        migrate(url)
        downgrade(url, "base")
    migrate(url)
    opened = SqlStore(url)
    yield opened
    opened.close()


@pytest.fixture
def catalogue(store: Store | None) -> Catalogue:
    """The catalogue over it."""
    return MemoryCatalogue() if store is None else StoreCatalogue(store)


def test_a_version_is_found_by_its_hash_and_listed_oldest_first(catalogue: Catalogue) -> None:
    assert catalogue.add(LATER) == LATER
    assert catalogue.add(RECORD) == RECORD
    assert catalogue.record(FIRST) == RECORD
    assert list(catalogue.records()) == [RECORD, LATER]


def test_the_first_record_of_a_version_stays(catalogue: Catalogue) -> None:
    catalogue.add(RECORD)
    assert catalogue.add(dataclasses.replace(RECORD, label="other", published=6.0)) == RECORD
    assert list(catalogue.records()) == [RECORD]


def test_a_deprecation_says_by_whom_when_why_and_what_takes_its_place(catalogue: Catalogue) -> None:
    catalogue.add(RECORD)
    catalogue.add(LATER)
    made = catalogue.deprecate(FIRST, Decision("otto", 11.0), reason="wrong unit", replaced_by=SECOND)
    assert made == dataclasses.replace(
        RECORD, deprecated=11.0, deprecated_by="otto", deprecation_reason="wrong unit", replaced_by=SECOND
    )
    assert catalogue.record(FIRST) == made
    assert catalogue.record(SECOND) == LATER
    with pytest.raises(NotFoundError):
        catalogue.deprecate(SECOND, Decision("otto", 12.0), reason="x", replaced_by="c" * 64)
    assert catalogue.record(SECOND) == LATER


def test_approvals_are_kept_by_person_and_the_last_of_each_counts(catalogue: Catalogue) -> None:
    catalogue.add(RECORD)
    assert list(catalogue.approvals(FIRST)) == []
    catalogue.approve(FIRST, Decision("otto", 7.0), note="read it")
    catalogue.approve(FIRST, Decision("ada", 8.0), note="")
    last = catalogue.approve(FIRST, Decision("otto", 9.0), note="read it again")
    assert [(one.approver, one.time, one.note) for one in catalogue.approvals(FIRST)] == [
        ("ada", 8.0, ""),
        ("otto", 9.0, "read it again"),
    ]
    assert last.digest == FIRST
    assert list(catalogue.approvals(SECOND)) == []


def test_a_version_nobody_published_is_not_found_and_leaves_no_trace(catalogue: Catalogue, store: Store | None) -> None:
    with pytest.raises(NotFoundError):
        catalogue.record(FIRST)
    with pytest.raises(NotFoundError):
        catalogue.approve(FIRST, Decision("ada", 1.0), note="")
    with pytest.raises(NotFoundError):
        catalogue.deprecate(FIRST, Decision("ada", 1.0), reason="old", replaced_by="")
    assert list(catalogue.records()) == []
    assert list(catalogue.approvals(FIRST)) == []
    if store is not None:
        with store.transaction() as transaction:
            assert list(transaction.audit()) == []


def test_every_decision_has_its_row_in_the_audit_trail(catalogue: Catalogue, store: Store | None) -> None:
    catalogue.add(RECORD)
    catalogue.add(RECORD)
    catalogue.approve(FIRST, Decision("otto", 7.0), note="read it")
    catalogue.deprecate(FIRST, Decision("otto", 8.0), reason="wrong unit", replaced_by="")
    if store is None:
        return
    with store.transaction() as transaction:
        rows = transaction.audit()
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("ada", "ontology.publish", f"ontology {FIRST}"),
        ("otto", "ontology.approve", f"ontology {FIRST}"),
        ("otto", "ontology.deprecate", f"ontology {FIRST}"),
    ]
    verify_audit(rows)
