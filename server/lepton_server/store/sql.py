"""The store on SQLite or PostgreSQL: one transaction a step, durable when it returns."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, inspect, select, text

from lepton_core.errors import ConflictError, FaultError, InputError
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.views import JobEvent, JobState, JobView, ModelView, RoundView
from lepton_kg.catalogue import VersionApproval, VersionRecord, age
from lepton_server.audit import next_row
from lepton_server.store import statements
from lepton_server.store import tables as t
from lepton_server.store.database import BUSY_TIMEOUT_S, become_writer, describe, open_engine, typed_errors
from lepton_server.store.documents import from_document, to_document
from lepton_server.store.port import AnchorRecord, AuditRow, EnrolledParty, InvitationRecord, JobRecord, Transaction


class SqlStore:
    """A store in a database whose tables `migrate` has made. Safe to use from several threads.

    Raises:
        InputError: the database has no tables, or those of another version.
        FaultError: the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._description = describe(self._engine.url)
        #: One transaction at a time within the process, so that threads queue here and not in the database.
        self._writer = threading.Lock()
        try:
            self._require_current()
        except BaseException:
            self._engine.dispose()
            raise

    def _require_current(self) -> None:
        with typed_errors(self._description), self._engine.connect() as connection:
            known = inspect(connection).has_table("alembic_version")
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
        if found != t.REVISION:
            raise InputError(
                "the database needs a migration",
                where=self._description,
                expected=f"tables of version {t.REVISION}",
                got=f"version {found}" if found else "no tables",
                hint="run `lepton coordinator migrate`",
                reason="MIGRATION",
            )

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commits when the block ends, rolls back when it raises.

        Raises:
            FaultError: the database is full, busy or gone; nothing was written.
        """
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        if not self._writer.acquire(timeout=BUSY_TIMEOUT_S):
            raise FaultError("another transaction does not end", where=self._description, reason="DATABASE")
        try:
            with typed_errors(self._description), self._engine.begin() as connection:
                become_writer(connection)
                yield _SqlTransaction(connection)
        finally:
            self._writer.release()

    def close(self) -> None:
        """Release files and connections."""
        self._engine.dispose()

    @property
    def description(self) -> str:
        """The database's kind and place, without credentials."""
        return self._description


class _SqlTransaction:
    """Reads and writes over one open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dialect = connection.dialect.name
        #: The end of the audit chain, once this transaction has read or moved it; nobody else writes meanwhile.
        self._last_audit: AuditRow | None = None

    def _put(self, table: Table, **values: Any) -> None:
        """Insert, or replace the row with this primary key."""
        self._connection.execute(statements.put(self._dialect, table), values)

    def _add(self, table: Table, **values: Any) -> bool:
        """Insert; False if a row with this primary key exists."""
        return self._connection.execute(statements.add(self._dialect, table), values).one_or_none() is not None

    def _one(self, table: Table, **where: Any) -> RowMapping | None:
        return self._connection.execute(statements.one(table, *where), where).mappings().one_or_none()

    def _documents(self, table: Table, job: JobId, order: str, above: int = -1) -> list[str]:
        return list(
            self._connection.execute(statements.documents(table, order), {"job": job, "above": above}).scalars()
        )

    def put_party(self, party: EnrolledParty) -> None:
        """Insert or replace by name; ConflictError if another name holds the identity."""
        holder = None if party.member is None else self.party_of_member(party.member)
        if holder is not None and holder.name != party.name:
            raise ConflictError("the identity belongs to another owner", where=party.name, reason="IDENTITY_TAKEN")
        self._put(
            t.party,
            name=party.name,
            role=party.role,
            member=party.member,
            identity=party.identity,
            enrolled=party.enrolled,
            certificate=party.certificate,
            certificate_expires=party.certificate_expires,
            revoked=party.revoked,
        )

    def party(self, name: OwnerName) -> EnrolledParty | None:
        """The party of that name."""
        return _party(self._one(t.party, name=name))

    def party_of_member(self, member: MemberId) -> EnrolledParty | None:
        """The owner that holds this protocol identity."""
        return _party(self._one(t.party, member=member))

    def parties(self) -> Sequence[EnrolledParty]:
        """All, by name."""
        rows = self._connection.execute(select(t.party)).mappings()
        # Sorted here: databases order text by their locale.
        return sorted((EnrolledParty(**row) for row in rows), key=lambda party: party.name)

    def put_invitation(self, invitation: InvitationRecord) -> None:
        """Insert or replace by token hash."""
        self._put(
            t.invitation,
            token_hash=invitation.token_hash,
            name=invitation.name,
            role=invitation.role,
            expires=invitation.expires,
            bootstrap_serial=invitation.bootstrap_serial,
            used=invitation.used,
        )

    def invitation(self, token_hash: str) -> InvitationRecord | None:
        """The invitation with that token hash."""
        row = self._one(t.invitation, token_hash=token_hash)
        return None if row is None else InvitationRecord(**row)

    def put_membership(self, digest: Digest, version: int, signed: bytes) -> None:
        """Keep a signed membership list."""
        self._put(t.membership, digest=digest, version=version, signed=signed)

    def membership(self, digest: Digest) -> bytes | None:
        """The signed list of that digest."""
        row = self._one(t.membership, digest=digest)
        return None if row is None else row["signed"]

    def newest_membership(self) -> tuple[Digest, int, bytes] | None:
        """Digest, version and bytes of the list with the highest version."""
        statement = select(t.membership).order_by(t.membership.c.version.desc(), t.membership.c.digest.desc()).limit(1)
        row = self._connection.execute(statement).mappings().one_or_none()
        return None if row is None else (Digest(row["digest"]), row["version"], row["signed"])

    def put_job(self, record: JobRecord) -> None:
        """Insert or replace by job id."""
        self._put(
            t.job,
            job=record.job,
            state=record.view.state.value,
            submitted=record.view.submitted,
            membership=record.membership,
            canonical=record.canonical,
            view=to_document(record.view),
        )

    def job(self, job: JobId) -> JobRecord | None:
        """The job's row."""
        row = self._one(t.job, job=job)
        return None if row is None else _job(row)

    def jobs(self, states: Sequence[JobState] | None = None) -> Sequence[JobRecord]:
        """All jobs, or those in the states, oldest first."""
        statement = select(t.job)
        if states is not None:
            statement = statement.where(t.job.c.state.in_([state.value for state in states]))
        rows = self._connection.execute(statement).mappings()
        return sorted((_job(row) for row in rows), key=lambda record: (record.view.submitted, record.job))

    def put_round(self, view: RoundView) -> None:
        """Insert or replace by job and round number."""
        self._put(t.round_, job=view.job, number=view.round, view=to_document(view))

    def round(self, job: JobId, number: RoundNumber) -> RoundView | None:
        """The round's view."""
        row = self._one(t.round_, job=job, number=number)
        return None if row is None else from_document(RoundView, row["view"])

    def rounds(self, job: JobId) -> Sequence[RoundView]:
        """All rounds of the job, by number."""
        return [from_document(RoundView, text) for text in self._documents(t.round_, job, "number")]

    def put_model(self, view: ModelView) -> None:
        """Insert or replace by job and version."""
        self._put(t.model, job=view.job, version=view.version, digest=view.digest, view=to_document(view))

    def model(self, job: JobId, version: ModelVersion) -> ModelView | None:
        """The model version's view."""
        row = self._one(t.model, job=job, version=version)
        return None if row is None else from_document(ModelView, row["view"])

    def models(self, job: JobId) -> Sequence[ModelView]:
        """All model versions of the job, by version."""
        return [from_document(ModelView, text) for text in self._documents(t.model, job, "version")]

    def add_event(self, event: JobEvent) -> None:
        """Append; `(job, sequence)` must be new (ConflictError)."""
        if not self._add(t.event, job=event.job, sequence=event.sequence, view=to_document(event)):
            raise ConflictError("an event of that number exists", where=f"{event.job} event {event.sequence}")

    def events(self, job: JobId, after: int) -> Sequence[JobEvent]:
        """Events with a sequence above `after`, in order."""
        return [from_document(JobEvent, text) for text in self._documents(t.event, job, "sequence", after)]

    def append_journal(self, job: JobId, entries: Sequence[bytes]) -> None:
        """Append machine events, in order, behind those already there."""
        if not entries:
            return
        self._connection.execute(statements.append_entry(), [{"job": job, "entry": entry} for entry in entries])

    def journal(self, job: JobId) -> Sequence[bytes]:
        """The machine events since the last checkpoint, in order."""
        return tuple(self._connection.execute(statements.journal(), {"job": job}).scalars())

    def put_checkpoint(self, job: JobId, state: bytes) -> None:
        """Replace the checkpoint and empty the journal."""
        self._put(t.checkpoint, job=job, state=state)
        self._connection.execute(statements.empty_journal(), {"job_id": job})

    def checkpoint(self, job: JobId) -> bytes | None:
        """The machine's state at the last checkpoint."""
        row = self._one(t.checkpoint, job=job)
        return None if row is None else row["state"]

    def put_anchor(self, record: AnchorRecord) -> None:
        """Insert or replace by member."""
        anchor = record.anchor
        self._put(
            t.anchor,
            member=record.member,
            name=record.name,
            identity=anchor.identity,
            sequence=anchor.sequence,
            digest=anchor.digest,
            signature=anchor.signature,
            time=record.time,
            behind=record.behind,
            behind_since=record.behind_since,
        )

    def anchors(self) -> Sequence[AnchorRecord]:
        """All, by name and then by time."""
        rows = self._connection.execute(select(t.anchor)).mappings()
        return sorted(map(_anchor, rows), key=lambda record: (record.name, record.time, record.member))

    def put_ontology(self, record: VersionRecord) -> None:
        """Insert or replace by digest."""
        self._put(t.ontology_version, digest=record.digest, published=record.published, view=to_document(record))

    def ontology(self, digest: Digest) -> VersionRecord | None:
        """The version's record."""
        row = self._one(t.ontology_version, digest=digest)
        return None if row is None else from_document(VersionRecord, row["view"])

    def ontologies(self) -> Sequence[VersionRecord]:
        """All versions, oldest first."""
        views = self._connection.execute(select(t.ontology_version.c.view)).scalars()
        return sorted((from_document(VersionRecord, view) for view in views), key=age)

    def put_ontology_approval(self, approval: VersionApproval) -> None:
        """Insert or replace by digest and approver."""
        key = {"digest": approval.digest, "approver": approval.approver}
        self._put(t.ontology_approval, **key, view=to_document(approval))

    def ontology_approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for the version, by name."""
        table = t.ontology_approval
        views = self._connection.execute(select(table.c.view).where(table.c.digest == digest)).scalars()
        approvals = (from_document(VersionApproval, view) for view in views)
        return sorted(approvals, key=lambda approval: approval.approver)

    def append_audit(self, time: float, actor: str, action: str, subject: str, detail: str) -> AuditRow:
        """Append a row to the hash chain."""
        if self._last_audit is None:
            found = self._connection.execute(statements.last_audit()).mappings().one_or_none()
            self._last_audit = None if found is None else AuditRow(**found)
        row = next_row(self._last_audit, time, actor=actor, action=action, subject=subject, detail=detail)
        self._connection.execute(statements.insert_audit(), vars(row))
        self._last_audit = row
        return row

    def audit(self) -> Sequence[AuditRow]:
        """All rows in order."""
        rows = self._connection.execute(select(t.audit).order_by(t.audit.c.sequence)).mappings()
        return tuple(AuditRow(**row) for row in rows)


def _party(row: RowMapping | None) -> EnrolledParty | None:
    return None if row is None else EnrolledParty(**row)


def _anchor(row: RowMapping) -> AnchorRecord:
    return AnchorRecord(
        member=MemberId(row["member"]),
        name=OwnerName(row["name"]),
        anchor=LedgerAnchor(row["identity"], row["sequence"], Digest(row["digest"]), row["signature"]),
        time=row["time"],
        behind=row["behind"],
        behind_since=row["behind_since"],
    )


def _job(row: RowMapping) -> JobRecord:
    return JobRecord(
        JobId(row["job"]), row["canonical"], Digest(row["membership"]), from_document(JobView, row["view"])
    )
