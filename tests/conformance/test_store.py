"""Every store behaves alike: in memory, in an SQLite file, and in PostgreSQL."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lepton_core.errors import ConflictError, FaultError, InputError
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.views import DroppedMember, JobEvent, JobState, JobView, ModelView, OwnerMatch, RoundView
from lepton_server.audit import GENESIS, verify_audit
from lepton_server.store.memory import MemoryStore
from lepton_server.store.migrate import downgrade, migrate
from lepton_server.store.port import AnchorRecord, EnrolledParty, InvitationRecord, JobRecord, Store
from lepton_server.store.sql import SqlStore

JOB = JobId("tumour-1a2b")
ROUND = RoundView(
    job=JOB,
    round=3,
    model_version=2,
    state="running",
    step="input",
    cohort=("aurora", "birken"),
    waiting_for=("birken",),
    survivors=(),
    dropped=(DroppedMember("changhe", "input", 'no answer: "späť" \u4e2d'),),
    reason="",
    started=1_700_000_000.25,
    ended=0.0,
    payload_bytes=2**40,
    message_bytes=7,
    pair_masks_reconstructed=1,
)
MODEL = ModelView(JOB, 2, "a" * 64, "b" * 64, 3, 1.5, 0.9375, -1.0, 3.25, 5)
VIEW = JobView(
    job=JOB,
    name="tumour",
    state=JobState.RUNNING,
    reason="",
    researcher="ada",
    submitted=10.0,
    ended=0.0,
    rounds_planned=20,
    model_version=2,
    owners=(OwnerMatch("aurora", "can"), OwnerMatch("fjord", "cannot", "refused.match", "MISSING_CONCEPT", "iri")),
    privacy="record-local",
    epsilon=8.0,
    delta=1e-3,
    model_parameters=1_025,
    bytes_per_parameter=1.0,
    job_digest="c" * 64,
    rounds=(),
    models=(),
)
RECORD = JobRecord(JOB, b'{"a":1}', Digest("d" * 64), VIEW)
EVENT = JobEvent(1, 10.5, JOB, "started", 0, 0, "five owners", "", "", 5, -1.0, -1.0, 0.0, 0)
AURORA = EnrolledParty(OwnerName("aurora"), "owner", MemberId(bytes(range(16))), bytes(32), 5.0, "e" * 64, 9_000.0)
ADA = EnrolledParty(OwnerName("ada"), "researcher", None, b"", 6.0, "f" * 64, 9_000.0)
#: Both files of the PostgreSQL cases run in one process, so that one server serves them.
KINDS = ["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgres"))]
SQL_KINDS = KINDS[1:]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/lepton.db"
    url: str = request.getfixturevalue("postgres_url")
    migrate(url)
    downgrade(url, "base")
    return url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryStore()
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


def test_a_party_is_found_by_name_and_by_member(store: Store) -> None:
    with store.transaction() as t:
        t.put_party(AURORA)
        t.put_party(ADA)
    with store.transaction() as t:
        assert t.party(AURORA.name) == AURORA
        assert t.party(ADA.name) == ADA
        assert t.party_of_member(MemberId(bytes(range(16)))) == AURORA
        assert list(t.parties()) == [ADA, AURORA]
        assert t.party(OwnerName("nobody")) is None
        assert t.party_of_member(MemberId(bytes(16))) is None


def test_a_replaced_party_leaves_nothing_of_the_old_one(store: Store) -> None:
    moved = dataclasses.replace(AURORA, member=MemberId(b"m" * 16), identity=b"i" * 32, revoked=True)
    with store.transaction() as t:
        t.put_party(AURORA)
        t.put_party(moved)
        assert t.party(AURORA.name) == moved
        assert t.party_of_member(MemberId(b"m" * 16)) == moved
        assert t.party_of_member(MemberId(bytes(range(16)))) is None


def test_two_names_never_hold_one_identity(store: Store) -> None:
    thief = dataclasses.replace(AURORA, name=OwnerName("birken"))
    with store.transaction() as t:
        t.put_party(AURORA)
        with pytest.raises(ConflictError, match="another owner"):
            t.put_party(thief)
    with store.transaction() as t:
        assert list(t.parties()) == [AURORA]


def test_an_invitation_is_found_by_its_token_hash_and_can_be_used_up(store: Store) -> None:
    invitation = InvitationRecord("1" * 64, OwnerName("aurora"), "owner", 99.5, "ab" * 10)
    with store.transaction() as t:
        t.put_invitation(invitation)
        t.put_invitation(dataclasses.replace(invitation, used=True))
    with store.transaction() as t:
        assert t.invitation("1" * 64) == dataclasses.replace(invitation, used=True)
        assert t.invitation("2" * 64) is None


def test_the_newest_anchor_of_each_identity_is_kept_under_its_owners_name(store: Store) -> None:
    def record(member: str, name: str, sequence: int, **more: float) -> AnchorRecord:
        anchor = LedgerAnchor(member.encode() * 32, sequence, Digest("9" * 64), b"s" * 64)
        return AnchorRecord(MemberId(member.encode() * 16), OwnerName(name), anchor, 5.0 + sequence, **more)

    first, second, other = record("a", "aurora", 2**53), record("b", "aurora", 0), record("c", "birken", 7)
    lost = dataclasses.replace(first, behind=3, behind_since=9.5)
    with store.transaction() as t:
        assert list(t.anchors()) == []
        for one in (other, first, second, lost):
            t.put_anchor(one)
    with store.transaction() as t:
        assert list(t.anchors()) == [second, lost, other]


def test_the_newest_membership_is_the_one_of_the_highest_version(store: Store) -> None:
    first, second = Digest("9" * 64), Digest("1" * 64)
    with store.transaction() as t:
        assert t.newest_membership() is None
        t.put_membership(second, 2, b"two")
        t.put_membership(first, 1, b"one")
        assert t.newest_membership() == (second, 2, b"two")
        assert t.membership(first) == b"one"
        assert t.membership(Digest("0" * 64)) is None


def test_jobs_come_oldest_first_and_by_state(store: Store) -> None:
    older = JobRecord(JobId("z-job"), b"{}", Digest("d" * 64), dataclasses.replace(VIEW, job="z-job", submitted=1.0))
    done = dataclasses.replace(RECORD, view=dataclasses.replace(VIEW, state=JobState.FINISHED, ended=11.0))
    with store.transaction() as t:
        t.put_job(RECORD)
        t.put_job(older)
        assert [record.job for record in t.jobs()] == ["z-job", JOB]
        t.put_job(done)
    with store.transaction() as t:
        assert t.job(JOB) == done
        assert t.job(JobId("none")) is None
        assert list(t.jobs([JobState.RUNNING])) == [older]
        assert list(t.jobs([JobState.RUNNING, JobState.FINISHED])) == [older, done]
        assert list(t.jobs([])) == []


def test_rounds_and_models_come_back_equal_and_in_order(store: Store) -> None:
    earlier = dataclasses.replace(ROUND, round=1, state="completed", ended=1.0)
    first = dataclasses.replace(MODEL, version=0, parent="", round=0)
    with store.transaction() as t:
        t.put_round(dataclasses.replace(ROUND, step="share"))
        t.put_round(ROUND)
        t.put_round(earlier)
        t.put_model(MODEL)
        t.put_model(first)
    with store.transaction() as t:
        assert list(t.rounds(JOB)) == [earlier, ROUND]
        assert t.round(JOB, RoundNumber(3)) == ROUND
        assert t.round(JOB, RoundNumber(2)) is None
        assert list(t.models(JOB)) == [first, MODEL]
        assert t.model(JOB, ModelVersion(2)) == MODEL
        assert t.model(JOB, ModelVersion(9)) is None
        assert list(t.rounds(JobId("none"))) == []
        assert list(t.models(JobId("none"))) == []


def test_events_come_after_a_number_and_none_is_replaced(store: Store) -> None:
    second = dataclasses.replace(EVENT, sequence=2, kind="finished")
    with store.transaction() as t:
        t.add_event(EVENT)
        t.add_event(second)
        with pytest.raises(ConflictError):
            t.add_event(dataclasses.replace(EVENT, kind="failed"))
    with store.transaction() as t:
        assert list(t.events(JOB, 0)) == [EVENT, second]
        assert list(t.events(JOB, 1)) == [second]
        assert list(t.events(JOB, 2)) == []
        assert list(t.events(JobId("none"), 0)) == []


def test_a_checkpoint_empties_the_journal_of_its_job_only(store: Store) -> None:
    other = JobId("other")
    with store.transaction() as t:
        t.append_journal(JOB, [b"a", b"\x00\xff", b"c"])
        t.append_journal(JOB, [])
        t.append_journal(other, [b"x"])
    with store.transaction() as t:
        t.append_journal(JOB, [b"d"])
        assert list(t.journal(JOB)) == [b"a", b"\x00\xff", b"c", b"d"]
        assert t.checkpoint(JOB) is None
        t.put_checkpoint(JOB, b"state-1")
        t.put_checkpoint(JOB, b"state-2")
        assert list(t.journal(JOB)) == []
        t.append_journal(JOB, [b"e"])
    with store.transaction() as t:
        assert t.checkpoint(JOB) == b"state-2"
        assert list(t.journal(JOB)) == [b"e"]
        assert list(t.journal(other)) == [b"x"]


def test_the_audit_trail_is_a_chain_that_verifies(store: Store) -> None:
    with store.transaction() as t:
        assert verify_audit(t.audit()) == GENESIS
        first = t.append_audit(1.5, "operator", "invite", "aurora", "as owner; „Zitat\u201c")
        second = t.append_audit(2.0, "aurora", "enrol", "aurora", "")
    with store.transaction() as t:
        rows = t.audit()
        assert list(rows) == [first, second]
        assert verify_audit(rows) == second.digest


@pytest.mark.parametrize("write", ["party", "member", "job", "round", "event", "journal", "checkpoint", "audit"])
def test_a_transaction_that_raises_leaves_no_trace(store: Store, write: str) -> None:
    moved = dataclasses.replace(AURORA, member=MemberId(b"m" * 16))
    writes: dict[str, Callable[..., object]] = {
        "party": lambda t: t.put_party(ADA),
        "member": lambda t: t.put_party(moved),
        "job": lambda t: t.put_job(dataclasses.replace(RECORD, canonical=b"{}")),
        "round": lambda t: t.put_round(dataclasses.replace(ROUND, step="done")),
        "event": lambda t: t.add_event(dataclasses.replace(EVENT, sequence=2)),
        "journal": lambda t: t.append_journal(JOB, [b"x", b"y"]),
        "checkpoint": lambda t: t.put_checkpoint(JOB, b"new"),
        "audit": lambda t: t.append_audit(2.0, "a", "b", "c", "d"),
    }
    with store.transaction() as t:
        t.put_party(AURORA)
        t.put_job(RECORD)
        t.put_round(ROUND)
        t.add_event(EVENT)
        t.put_checkpoint(JOB, b"old")
        t.append_journal(JOB, [b"j"])
        row = t.append_audit(1.0, "a", "b", "c", "d")
    with pytest.raises(ZeroDivisionError), store.transaction() as t:  # noqa: PT012 - the block is the transaction
        writes[write](t)
        writes[write](t) if write in {"journal", "checkpoint", "audit"} else None
        raise ZeroDivisionError
    with store.transaction() as t:
        assert list(t.parties()) == [AURORA]
        assert t.party_of_member(MemberId(bytes(range(16)))) == AURORA
        assert t.party_of_member(MemberId(b"m" * 16)) is None
        assert t.job(JOB) == RECORD
        assert list(t.rounds(JOB)) == [ROUND]
        assert list(t.events(JOB, 0)) == [EVENT]
        assert t.checkpoint(JOB) == b"old"
        assert list(t.journal(JOB)) == [b"j"]
        assert list(t.audit()) == [row]


def test_the_description_names_the_kind_and_no_password(store: Store) -> None:
    assert store.description.split()[0] in {"memory", "sqlite", "postgresql"}


@pytest.mark.parametrize("database", SQL_KINDS, indirect=True)
def test_what_was_committed_is_there_after_opening_again(database: str) -> None:
    migrate(database)
    store = SqlStore(database)
    with store.transaction() as t:
        t.put_job(RECORD)
        t.append_audit(1.0, "a", "b", "c", "d")
    store.close()
    again = SqlStore(database)
    with again.transaction() as t:
        assert t.job(JOB) == RECORD
        assert len(t.audit()) == 1
    again.close()


@pytest.mark.parametrize("database", SQL_KINDS, indirect=True)
def test_two_stores_on_one_database_write_one_after_another(database: str) -> None:
    migrate(database)
    stores = [SqlStore(database), SqlStore(database)]

    def write(store: SqlStore) -> None:
        for _ in range(10):
            with store.transaction() as t:
                t.append_audit(1.0, "a", "b", "c", "d")

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with stores[0].transaction() as t:
        rows = t.audit()
        assert len(rows) == 20
        assert verify_audit(rows) == rows[-1].digest
    for store in stores:
        store.close()


@pytest.mark.parametrize("database", SQL_KINDS, indirect=True)
def test_migrations_go_both_ways_and_a_store_asks_for_them(database: str) -> None:
    with pytest.raises(InputError, match="needs a migration") as refused:
        SqlStore(database)
    assert "lepton coordinator migrate" in refused.value.hint
    migrate(database)
    migrate(database)  # nothing left to do
    SqlStore(database).close()
    for earlier in ("0002", "0001", "base"):  # without ontology versions, without anchors, with nothing
        downgrade(database, earlier)
        with pytest.raises(InputError, match="needs a migration"):
            SqlStore(database)
    migrate(database, "0001")
    migrate(database)
    SqlStore(database).close()


@pytest.mark.parametrize("database", SQL_KINDS, indirect=True)
def test_the_migrations_make_exactly_the_tables_that_the_store_uses(database: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from lepton_server.store.database import open_engine
    from lepton_server.store.tables import metadata

    migrate(database)
    engine = open_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.parametrize("database", SQL_KINDS, indirect=True)
def test_a_database_of_a_newer_version_is_refused(database: str) -> None:
    from sqlalchemy import text

    from lepton_server.store.database import open_engine

    migrate(database)
    engine = open_engine(database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(InputError, match="needs a migration"):
        SqlStore(database)
    with pytest.raises(InputError, match="cannot be migrated"):
        migrate(database)
    engine = open_engine(database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    engine.dispose()


def test_a_database_that_is_not_there_is_a_fault_without_its_password() -> None:
    with pytest.raises(FaultError) as refused:
        SqlStore("postgresql://someone:hunter2@127.0.0.1:1/lepton")
    assert refused.value.retryable
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_url_of_another_database_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="database"):
        SqlStore(url)


def test_a_full_database_is_a_fault_and_writes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lepton.db"
    migrate(url)
    store = SqlStore(url)

    def limit(pages: int) -> None:
        with store._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    limit(1)  # SQLite takes the pages in use as the least
    with pytest.raises(FaultError, match="database"), store.transaction() as t:
        t.append_journal(JOB, [bytes(2**20)])
    limit(1_000_000)
    with store.transaction() as t:
        assert list(t.journal(JOB)) == []
    store.close()
