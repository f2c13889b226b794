"""The audit trail: every decision is a row, and each row's digest covers the one before it."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Iterable

from lepton_core.canonical import canonical_json
from lepton_core.errors import ConflictError
from lepton_server.store.port import AuditRow

#: `previous` of the first row.
GENESIS = "0" * 64


def next_row(previous: AuditRow | None, time: float, *, actor: str, action: str, subject: str, detail: str) -> AuditRow:
    """The row behind `previous`, or the first one."""
    row = AuditRow(
        sequence=previous.sequence + 1 if previous else 1,
        time=time,
        actor=actor,
        action=action,
        subject=subject,
        detail=detail,
        previous=previous.digest if previous else GENESIS,
        digest="",
    )
    return dataclasses.replace(row, digest=_digest(row))


def verify_audit(rows: Iterable[AuditRow]) -> str:
    """The digest of the last row, if every row is whole and in its place; `GENESIS` for none.

    A chain proves order and content, not that nothing was cut off its end: keep the returned digest elsewhere.

    Raises:
        ConflictError: a row was changed, removed, added or moved; `where` names the first such place.
    """
    head, expected = GENESIS, 1
    for row in rows:
        whole = hmac.compare_digest(_digest(row), row.digest)
        if row.sequence != expected or row.previous != head or not whole:
            raise ConflictError(
                "the audit trail does not hold",
                where=f"row {row.sequence}",
                expected=f"row {expected} behind {head[:12]}",
                got=f"row {row.sequence} behind {row.previous[:12]}",
                hint="somebody changed the database; compare it with a backup",
                reason="AUDIT_BROKEN",
            )
        head, expected = row.digest, expected + 1
    return head


def _digest(row: AuditRow) -> str:
    """The hash over everything in the row but its digest."""
    content = canonical_json(
        [row.previous, row.sequence, float(row.time), row.actor, row.action, row.subject, row.detail]
    )
    return hashlib.sha256(b"lepton/audit/v1" + content).hexdigest()
