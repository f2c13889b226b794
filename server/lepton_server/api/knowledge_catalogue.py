"""The catalogue of ontology versions in the coordinator's database, each change with its row of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_core.ids import Digest
from lepton_kg.catalogue import (
    Decision,
    VersionApproval,
    VersionRecord,
    deprecated,
    unknown_version,
)
from lepton_server.store.port import Store, Transaction

#: What the audit trail tells of texts that people wrote.
_LONGEST_DETAIL = 500


class StoreCatalogue:
    """Versions, approvals and deprecations in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, record: VersionRecord) -> VersionRecord:
        """The version's record: this one, or the first one if the version was there."""
        with self._store.transaction() as transaction:
            known = transaction.ontology(Digest(record.digest))
            if known is not None:
                return known
            transaction.put_ontology(record)
            detail = f"{record.concepts} concepts, {record.format or 'unknown format'}, {record.importer}"
            transaction.append_audit(
                record.published, record.publisher, "ontology.publish", f"ontology {record.digest}", detail
            )
        return record

    def record(self, digest: Digest) -> VersionRecord:
        """The version's record; NotFoundError if there is none."""
        with self._store.transaction() as transaction:
            return _known(transaction, digest)

    def records(self) -> Sequence[VersionRecord]:
        """All versions, oldest first."""
        with self._store.transaction() as transaction:
            return transaction.ontologies()

    def deprecate(self, digest: Digest, by: Decision, *, reason: str, replaced_by: str) -> VersionRecord:
        """The record, now deprecated; NotFoundError if there is no such version, or none that replaces it."""
        with self._store.transaction() as transaction:
            made = deprecated(_known(transaction, digest), by, reason=reason, replaced_by=replaced_by)
            if replaced_by:
                _known(transaction, Digest(replaced_by))
            transaction.put_ontology(made)
            detail = f"{reason[:_LONGEST_DETAIL]}{f'; replaced by {replaced_by}' if replaced_by else ''}"
            transaction.append_audit(by.time, by.actor, "ontology.deprecate", f"ontology {digest}", detail)
        return made

    def approve(self, digest: Digest, by: Decision, *, note: str) -> VersionApproval:
        """The approval; NotFoundError if there is no such version."""
        approval = VersionApproval(digest, by.actor, by.time, note)
        with self._store.transaction() as transaction:
            _known(transaction, digest)
            transaction.put_ontology_approval(approval)
            detail = note[:_LONGEST_DETAIL]
            transaction.append_audit(by.time, by.actor, "ontology.approve", f"ontology {digest}", detail)
        return approval

    def approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for the version, by name."""
        with self._store.transaction() as transaction:
            return transaction.ontology_approvals(digest)


def _known(transaction: Transaction, digest: Digest) -> VersionRecord:
    record = transaction.ontology(digest)
    if record is None:
        raise unknown_version(digest)
    return record
