"""A store in memory for tests and the simulation: fast, and it rolls back like a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from lepton_core.errors import ConflictError
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.views import JobEvent, JobState, ModelView, RoundView
from lepton_kg.catalogue import VersionApproval, VersionRecord, age
from lepton_server.audit import next_row
from lepton_server.store.port import AnchorRecord, AuditRow, EnrolledParty, InvitationRecord, JobRecord, Transaction

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class _Tables:
    """All rows. Values are frozen, so that they are shared instead of copied."""

    parties: dict[OwnerName, EnrolledParty] = field(default_factory=dict)
    names_of_members: dict[MemberId, OwnerName] = field(default_factory=dict)
    invitations: dict[str, InvitationRecord] = field(default_factory=dict)
    memberships: dict[Digest, tuple[int, bytes]] = field(default_factory=dict)
    jobs: dict[JobId, JobRecord] = field(default_factory=dict)
    rounds: dict[JobId, dict[RoundNumber, RoundView]] = field(default_factory=dict)
    models: dict[JobId, dict[ModelVersion, ModelView]] = field(default_factory=dict)
    events: dict[JobId, list[JobEvent]] = field(default_factory=dict)
    journals: dict[JobId, list[bytes]] = field(default_factory=dict)
    checkpoints: dict[JobId, bytes] = field(default_factory=dict)
    anchors: dict[MemberId, AnchorRecord] = field(default_factory=dict)
    ontologies: dict[str, VersionRecord] = field(default_factory=dict)
    ontology_approvals: dict[tuple[str, str], VersionApproval] = field(default_factory=dict)
    audit: list[AuditRow] = field(default_factory=list)


class MemoryStore:
    """Everything in dictionaries; a transaction that raises undoes its writes, last first. Not for several threads."""

    def __init__(self) -> None:
        self._tables = _Tables()

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commits when the block ends, rolls back when it raises."""
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        transaction = _MemoryTransaction(self._tables)
        try:
            yield transaction
        except BaseException:
            transaction.undo()
            raise

    def close(self) -> None:
        """Nothing to release."""

    @property
    def description(self) -> str:
        """The database's kind and place."""
        return "memory"


class _MemoryTransaction:
    """Writes at once, and remembers how to take each write back."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Take every write back, last first."""
        while self._undo:
            self._undo.pop()()

    def _put(self, table: dict[K, V], key: K, value: V) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def _append(self, rows: list[V], row: V) -> None:
        rows.append(row)
        self._undo.append(rows.pop)

    def put_party(self, party: EnrolledParty) -> None:
        """Insert or replace by name; ConflictError if another name holds the identity."""
        names = self._tables.names_of_members
        if party.member is not None and names.get(party.member, party.name) != party.name:
            raise ConflictError("the identity belongs to another owner", where=party.name, reason="IDENTITY_TAKEN")
        old = self._tables.parties.get(party.name)
        if old is not None and old.member is not None and old.member != party.member:
            lost, name = old.member, names.pop(old.member)
            self._undo.append(lambda: names.__setitem__(lost, name))
        if party.member is not None:
            self._put(names, party.member, party.name)
        self._put(self._tables.parties, party.name, party)

    def party(self, name: OwnerName) -> EnrolledParty | None:
        """The party of that name."""
        return self._tables.parties.get(name)

    def party_of_member(self, member: MemberId) -> EnrolledParty | None:
        """The owner that holds this protocol identity."""
        name = self._tables.names_of_members.get(member)
        return None if name is None else self._tables.parties[name]

    def parties(self) -> Sequence[EnrolledParty]:
        """All, by name."""
        return [self._tables.parties[name] for name in sorted(self._tables.parties)]

    def put_invitation(self, invitation: InvitationRecord) -> None:
        """Insert or replace by token hash."""
        self._put(self._tables.invitations, invitation.token_hash, invitation)

    def invitation(self, token_hash: str) -> InvitationRecord | None:
        """The invitation with that token hash."""
        return self._tables.invitations.get(token_hash)

    def put_membership(self, digest: Digest, version: int, signed: bytes) -> None:
        """Keep a signed membership list."""
        self._put(self._tables.memberships, digest, (version, signed))

    def membership(self, digest: Digest) -> bytes | None:
        """The signed list of that digest."""
        found = self._tables.memberships.get(digest)
        return None if found is None else found[1]

    def newest_membership(self) -> tuple[Digest, int, bytes] | None:
        """Digest, version and bytes of the list with the highest version."""
        lists = self._tables.memberships
        if not lists:
            return None
        digest = max(lists, key=lambda key: (lists[key][0], key))
        return digest, *lists[digest]

    def put_job(self, record: JobRecord) -> None:
        """Insert or replace by job id."""
        self._put(self._tables.jobs, record.job, record)

    def job(self, job: JobId) -> JobRecord | None:
        """The job's row."""
        return self._tables.jobs.get(job)

    def jobs(self, states: Sequence[JobState] | None = None) -> Sequence[JobRecord]:
        """All jobs, or those in the states, oldest first."""
        chosen = [record for record in self._tables.jobs.values() if states is None or record.view.state in states]
        return sorted(chosen, key=lambda record: (record.view.submitted, record.job))

    def put_round(self, view: RoundView) -> None:
        """Insert or replace by job and round number."""
        self._put(self._tables.rounds.setdefault(JobId(view.job), {}), RoundNumber(view.round), view)

    def round(self, job: JobId, number: RoundNumber) -> RoundView | None:
        """The round's view."""
        return self._tables.rounds.get(job, {}).get(number)

    def rounds(self, job: JobId) -> Sequence[RoundView]:
        """All rounds of the job, by number."""
        rounds = self._tables.rounds.get(job, {})
        return [rounds[number] for number in sorted(rounds)]

    def put_model(self, view: ModelView) -> None:
        """Insert or replace by job and version."""
        self._put(self._tables.models.setdefault(JobId(view.job), {}), ModelVersion(view.version), view)

    def model(self, job: JobId, version: ModelVersion) -> ModelView | None:
        """The model version's view."""
        return self._tables.models.get(job, {}).get(version)

    def models(self, job: JobId) -> Sequence[ModelView]:
        """All model versions of the job, by version."""
        models = self._tables.models.get(job, {})
        return [models[version] for version in sorted(models)]

    def add_event(self, event: JobEvent) -> None:
        """Append; `(job, sequence)` must be new (ConflictError)."""
        events = self._tables.events.setdefault(JobId(event.job), [])
        late = bool(events) and events[-1].sequence >= event.sequence
        if late and any(known.sequence == event.sequence for known in events):
            raise ConflictError("an event of that number exists", where=f"{event.job} event {event.sequence}")
        self._append(events, event)

    def events(self, job: JobId, after: int) -> Sequence[JobEvent]:
        """Events with a sequence above `after`, in order."""
        chosen = [event for event in self._tables.events.get(job, ()) if event.sequence > after]
        return sorted(chosen, key=lambda event: event.sequence)

    def append_journal(self, job: JobId, entries: Sequence[bytes]) -> None:
        """Append machine events, in order, behind those already there."""
        journal = self._tables.journals.setdefault(job, [])
        for entry in entries:
            self._append(journal, entry)

    def journal(self, job: JobId) -> Sequence[bytes]:
        """The machine events since the last checkpoint, in order."""
        return tuple(self._tables.journals.get(job, ()))

    def put_checkpoint(self, job: JobId, state: bytes) -> None:
        """Replace the checkpoint and empty the journal."""
        self._put(self._tables.checkpoints, job, state)
        self._put(self._tables.journals, job, [])

    def checkpoint(self, job: JobId) -> bytes | None:
        """The machine's state at the last checkpoint."""
        return self._tables.checkpoints.get(job)

    def put_anchor(self, record: AnchorRecord) -> None:
        """Insert or replace by member."""
        self._put(self._tables.anchors, record.member, record)

    def anchors(self) -> Sequence[AnchorRecord]:
        """All, by name and then by time."""
        return sorted(self._tables.anchors.values(), key=lambda record: (record.name, record.time, record.member))

    def put_ontology(self, record: VersionRecord) -> None:
        """Insert or replace by digest."""
        self._put(self._tables.ontologies, record.digest, record)

    def ontology(self, digest: Digest) -> VersionRecord | None:
        """The version's record."""
        return self._tables.ontologies.get(digest)

    def ontologies(self) -> Sequence[VersionRecord]:
        """All versions, oldest first."""
        return sorted(self._tables.ontologies.values(), key=age)

    def put_ontology_approval(self, approval: VersionApproval) -> None:
        """Insert or replace by digest and approver."""
        self._put(self._tables.ontology_approvals, (approval.digest, approval.approver), approval)

    def ontology_approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for the version, by name."""
        approvals = self._tables.ontology_approvals
        return [approvals[key] for key in sorted(approvals) if key[0] == digest]

    def append_audit(self, time: float, actor: str, action: str, subject: str, detail: str) -> AuditRow:
        """Append a row to the hash chain."""
        rows = self._tables.audit
        row = next_row(rows[-1] if rows else None, time, actor=actor, action=action, subject=subject, detail=detail)
        self._append(rows, row)
        return row

    def audit(self) -> Sequence[AuditRow]:
        """All rows in order."""
        return tuple(self._tables.audit)
