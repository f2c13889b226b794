"""What the coordinator asks of its store: one transaction a step, committed before any effect is performed.

Tensor bytes never enter the store; they lie in the artifact store, addressed by digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from lepton_core.errors import InputError
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.views import JobEvent, JobState, JobView, ModelView, RoundView
from lepton_kg.catalogue import VersionApproval, VersionRecord


@dataclass(frozen=True)
class EnrolledParty:
    """Somebody with a certificate: a data owner's daemon, a researcher or an operator."""

    name: OwnerName
    #: owner, researcher, operator, auditor or service.
    role: str
    #: Of an owner's protocol identity; None for people.
    member: MemberId | None
    identity: bytes
    enrolled: float
    #: SHA-256 (hex) of the DER of the certificate now valid.
    certificate: str
    certificate_expires: float
    revoked: bool = False


@dataclass(frozen=True)
class InvitationRecord:
    """An invitation as the coordinator keeps it: never the token, only its hash."""

    token_hash: str
    name: OwnerName
    role: str
    expires: float
    #: Serial number (hex) of the bootstrap certificate.
    bootstrap_serial: str
    used: bool = False


@dataclass(frozen=True)
class AuditRow:
    """One decision; rows form a hash chain."""

    sequence: int
    time: float
    actor: str
    action: str
    subject: str
    detail: str
    previous: str
    digest: str


@dataclass(frozen=True)
class AnchorRecord:
    """The newest place of an owner's privacy ledger that its identity has signed, and whether it has been lost."""

    member: MemberId
    #: Whose identity it is, or was: an owner that enrols anew has another member and the same name.
    name: OwnerName
    anchor: LedgerAnchor
    #: When it was told.
    time: float
    #: Entries of the ledger that the member told of last, if they are behind the anchor or of another chain; else -1.
    behind: int = -1
    #: When that was noticed first; 0 if not.
    behind_since: float = 0.0


@dataclass(frozen=True)
class JobRecord:
    """A job's row: what it is, and its view without rounds and models."""

    job: JobId
    canonical: bytes
    membership: Digest
    view: JobView


class Transaction(Protocol):
    """Reads and writes that become durable together, or not at all. Reads see the transaction's own writes."""

    def put_party(self, party: EnrolledParty) -> None:
        """Insert or replace by name."""

    def party(self, name: OwnerName) -> EnrolledParty | None:
        """The party of that name."""

    def party_of_member(self, member: MemberId) -> EnrolledParty | None:
        """The owner that holds this protocol identity."""

    def parties(self) -> Sequence[EnrolledParty]:
        """All, by name."""

    def put_invitation(self, invitation: InvitationRecord) -> None:
        """Insert or replace by token hash."""

    def invitation(self, token_hash: str) -> InvitationRecord | None:
        """The invitation with that token hash."""

    def put_membership(self, digest: Digest, version: int, signed: bytes) -> None:
        """Keep a signed membership list."""

    def membership(self, digest: Digest) -> bytes | None:
        """The signed list of that digest."""

    def newest_membership(self) -> tuple[Digest, int, bytes] | None:
        """Digest, version and bytes of the list with the highest version."""

    def put_job(self, record: JobRecord) -> None:
        """Insert or replace by job id."""

    def job(self, job: JobId) -> JobRecord | None:
        """The job's row."""

    def jobs(self, states: Sequence[JobState] | None = None) -> Sequence[JobRecord]:
        """All jobs, or those in the states, oldest first."""

    def put_round(self, view: RoundView) -> None:
        """Insert or replace by job and round number."""

    def round(self, job: JobId, number: RoundNumber) -> RoundView | None:
        """The round's view."""

    def rounds(self, job: JobId) -> Sequence[RoundView]:
        """All rounds of the job, by number."""

    def put_model(self, view: ModelView) -> None:
        """Insert or replace by job and version."""

    def model(self, job: JobId, version: ModelVersion) -> ModelView | None:
        """The model version's view."""

    def models(self, job: JobId) -> Sequence[ModelView]:
        """All model versions of the job, by version."""

    def add_event(self, event: JobEvent) -> None:
        """Append; `(job, sequence)` must be new (ConflictError)."""

    def events(self, job: JobId, after: int) -> Sequence[JobEvent]:
        """Events with a sequence above `after`, in order."""

    def append_journal(self, job: JobId, entries: Sequence[bytes]) -> None:
        """Append machine events, in order, behind those already there."""

    def journal(self, job: JobId) -> Sequence[bytes]:
        """The machine events since the last checkpoint, in order."""

    def put_checkpoint(self, job: JobId, state: bytes) -> None:
        """Replace the checkpoint and empty the journal."""

    def checkpoint(self, job: JobId) -> bytes | None:
        """The machine's state at the last checkpoint."""

    def put_anchor(self, record: AnchorRecord) -> None:
        """Insert or replace by member."""

    def anchors(self) -> Sequence[AnchorRecord]:
        """All, by name and then by time."""

    def put_ontology(self, record: VersionRecord) -> None:
        """Insert or replace by digest."""

    def ontology(self, digest: Digest) -> VersionRecord | None:
        """The version's record."""

    def ontologies(self) -> Sequence[VersionRecord]:
        """All versions, oldest first."""

    def put_ontology_approval(self, approval: VersionApproval) -> None:
        """Insert or replace by digest and approver."""

    def ontology_approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for the version, by name."""

    def append_audit(self, time: float, actor: str, action: str, subject: str, detail: str) -> AuditRow:
        """Append a row to the hash chain."""

    def audit(self) -> Sequence[AuditRow]:
        """All rows in order."""


class Store(Protocol):
    """Opens transactions; one writer at a time."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commits when the block ends, rolls back when it raises.

        Raises:
            FaultError: the database is full, busy or gone; nothing was written.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""

    @property
    def description(self) -> str:
        """The database's kind and place, without credentials."""
        ...


class Artifacts(Protocol):
    """Bytes addressed by SHA-256."""

    def put(self, data: bytes) -> Digest:
        """Keep the bytes durably; a second time is free."""
        ...

    def get(self, digest: Digest) -> bytes:
        """The bytes.

        Raises:
            NotFoundError: not there.
        """
        ...

    def has(self, digest: Digest) -> bool:
        """True if the bytes are there, whole."""
        ...

    def claim(self, digest: Digest) -> bool:
        """True if the bytes are there, whole: no sweep takes them within a day, in which whoever asked may name them.

        `put` claims what it keeps.
        """
        ...

    def size(self, digest: Digest) -> int:
        """Bytes of the artifact.

        Raises:
            NotFoundError: not there.
        """
        ...

    def delete(self, digest: Digest) -> None:
        """Forget the bytes; nothing happens if they are not there."""


def get_bounded(artifacts: Artifacts, digest: Digest, largest: int) -> bytes:
    """The bytes, if there are at most so many; looked up before memory is taken.

    Raises:
        NotFoundError: not there.
        InputError: more bytes than that.
    """
    size = artifacts.size(digest)
    if size > largest:
        raise InputError(
            "an artifact larger than what the job needs",
            where=f"artifact {digest}",
            expected=f"at most {largest} bytes",
            got=f"{size} bytes",
            hint="submit the job with `lepton job submit`, which uploads what the job names",
            reason="TOO_LARGE",
        )
    return artifacts.get(digest)
