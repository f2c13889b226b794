"""A change to any row of the audit trail is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from lepton_core.errors import ConflictError
from lepton_server.audit import GENESIS, next_row, verify_audit
from lepton_server.store.port import AuditRow


def chain(length: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    for number in range(length):
        last = rows[-1] if rows else None
        rows.append(next_row(last, float(number), actor="ada", action="submit", subject=f"job-{number}", detail="ok"))
    return rows


def test_an_untouched_chain_gives_its_last_digest() -> None:
    rows = chain(5)
    assert verify_audit(rows) == rows[-1].digest
    assert verify_audit([]) == GENESIS


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:2] + rows[3:],
        lambda rows: rows[1:],
        lambda rows: [rows[1], rows[0], *rows[2:]],
        lambda rows: [*rows, rows[-1]],
        *(
            lambda rows, name=name, value=value: [*rows[:2], dataclasses.replace(rows[2], **{name: value}), *rows[3:]]
            for name, value in {
                "time": 9.0,
                "actor": "eve",
                "action": "job.abort",
                "subject": "job-9",
                "detail": "no",
                "sequence": 9,
                "previous": "0" * 64,
                "digest": "0" * 64,
            }.items()
        ),
    ],
)
def test_every_change_breaks_the_chain(change: Callable[[list[AuditRow]], list[AuditRow]]) -> None:
    with pytest.raises(ConflictError, match="audit trail"):
        verify_audit(change(chain(5)))
