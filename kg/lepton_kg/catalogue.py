"""What is known of each published version besides its statements: who published, approved and deprecated it, and when.

The relational database keeps it; the statements themselves lie in files (`store.py`), and the index for queries can
be built from them at any time (`index.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lepton_core.errors import NotFoundError
from lepton_core.ids import Digest


@dataclass(frozen=True)
class VersionRecord:
    """What a list of versions shows of one. Times are seconds since the Unix epoch, UTC."""

    digest: str
    #: The publisher's name for the version; several versions may share one, the newest counts.
    label: str
    published: float
    publisher: str
    concepts: int
    canonical_bytes: int
    #: Syntax of the document that was published first, and what read it.
    format: str = ""
    importer: str = ""
    #: SHA-256 of that document's bytes.
    document: str = ""
    #: 0.0 while it may be used for new jobs.
    deprecated: float = 0.0
    deprecated_by: str = ""
    deprecation_reason: str = ""
    #: Hash of the version that takes its place; empty for none.
    replaced_by: str = ""


@dataclass(frozen=True)
class VersionApproval:
    """Somebody vouches for a version."""

    digest: str
    approver: str
    time: float
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """Who did it and when, for the audit trail."""

    actor: str
    time: float


class Catalogue(Protocol):
    """Keeps records for ever; what a method has returned from is durable, together with its row of the audit trail."""

    def add(self, record: VersionRecord) -> VersionRecord:
        """The version's record: this one, or the first one if the version was there."""
        ...

    def record(self, digest: Digest) -> VersionRecord:
        """The version's record.

        Raises:
            NotFoundError: no such version.
        """
        ...

    def records(self) -> Sequence[VersionRecord]:
        """All versions, oldest first."""
        ...

    def deprecate(self, digest: Digest, by: Decision, *, reason: str, replaced_by: str) -> VersionRecord:
        """The record, now deprecated; the newest decision stands.

        Raises:
            NotFoundError: no such version, or none that replaces it.
        """
        ...

    def approve(self, digest: Digest, by: Decision, *, note: str) -> VersionApproval:
        """The approval; a second one by the same person replaces the first.

        Raises:
            NotFoundError: no such version.
        """
        ...

    def approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for the version, by name."""
        ...


class MemoryCatalogue:
    """A catalogue in dictionaries, for tests and programs that keep nothing."""

    def __init__(self) -> None:
        self._records: dict[str, VersionRecord] = {}
        self._approvals: dict[tuple[str, str], VersionApproval] = {}

    def add(self, record: VersionRecord) -> VersionRecord:
        """The version's record: this one, or the first one if the version was there."""
        return self._records.setdefault(record.digest, record)

    def record(self, digest: Digest) -> VersionRecord:
        """The version's record; NotFoundError if there is none."""
        if digest not in self._records:
            raise unknown_version(digest)
        return self._records[digest]

    def records(self) -> Sequence[VersionRecord]:
        """All versions, oldest first."""
        return sorted(self._records.values(), key=age)

    def deprecate(self, digest: Digest, by: Decision, *, reason: str, replaced_by: str) -> VersionRecord:
        """The record, now deprecated; NotFoundError if there is no such version, or none that replaces it."""
        made = deprecated(self.record(digest), by, reason=reason, replaced_by=replaced_by)
        if replaced_by:
            self.record(Digest(replaced_by))
        self._records[digest] = made
        return made

    def approve(self, digest: Digest, by: Decision, *, note: str) -> VersionApproval:
        """The approval; NotFoundError if there is no such version."""
        self.record(digest)
        approval = VersionApproval(digest, by.actor, by.time, note)
        self._approvals[digest, by.actor] = approval
        return approval

    def approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for the version, by name."""
        return [self._approvals[key] for key in sorted(self._approvals) if key[0] == digest]


def deprecated(record: VersionRecord, by: Decision, *, reason: str, replaced_by: str) -> VersionRecord:
    """The record with that decision in it."""
    return dataclasses.replace(
        record, deprecated=by.time, deprecated_by=by.actor, deprecation_reason=reason, replaced_by=replaced_by
    )


def age(record: VersionRecord) -> tuple[float, str]:
    """Sorts versions oldest first."""
    return record.published, record.digest


def unknown_version(digest: str) -> NotFoundError:
    """The error for a version that nobody published."""
    return NotFoundError(
        "no such ontology version", where=digest[:80], hint="`lepton ontology list` shows the published ones"
    )
