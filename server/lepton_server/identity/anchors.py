"""Where owners' privacy ledgers stand: kept for them, given back to them, and an alarm if one goes backwards.

The coordinator believes no member but in its own name: an anchor is signed by the identity of the member that tells it.
It keeps the highest. A member that tells a lower one has lost a part of its ledger, or went back to an older one; its
own daemon refuses to train private jobs then, and the operator reads of it here.

Not every anchor is made durable at once, as a member's ledger moves in each round: a coordinator that forgets the last
seconds gives back an anchor that is behind the ledger, which is no alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from lepton_core.errors import IdentityError
from lepton_core.ids import MemberId, OwnerName, derive_member_id
from lepton_core.ports import Clock
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_server.store.port import AnchorRecord, Store, Transaction

#: An anchor that moves on is written down this often at most, in seconds.
WRITE_EVERY_S = 10.0

_log = structlog.get_logger("lepton.anchors")


class Anchors:
    """Every owner's newest anchor. Not thread-safe: called where the coordinator is."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._records: dict[MemberId, AnchorRecord] | None = None
        #: When each member's record was written down last.
        self._written: dict[MemberId, float] = {}

    def given_back(self, name: OwnerName) -> tuple[LedgerAnchor, ...]:
        """What is kept of the owner's ledgers: that of its identity, and those of identities it had before.

        Raises:
            FaultError: the store.
        """
        return tuple(record.anchor for record in self._known().values() if record.name == name)

    def take(self, name: OwnerName, member: MemberId, anchor: LedgerAnchor) -> None:
        """What a member tells of its own ledger.

        Raises:
            IdentityError: signed by another identity, or not at all.
            FaultError: the store; what is kept is as it was.
        """
        if derive_member_id(anchor.identity) != member:
            raise IdentityError(
                "an anchor of another member's ledger",
                where=f"member {member.hex()}",
                got=f"member {derive_member_id(anchor.identity).hex()}",
                reason="WRONG_MEMBER",
            )
        known = self._known().get(member)
        if known is not None and known.name == name and known.anchor == anchor and known.behind < 0:
            return
        anchor.require_signed()
        now = self._clock.now()
        if known is None:
            self._write(AnchorRecord(member, name, anchor, now))
        elif anchor.sequence < known.anchor.sequence or (
            anchor.sequence == known.anchor.sequence and anchor.digest != known.anchor.digest
        ):
            self._alarm(replace(known, name=name), anchor, now)
        else:
            self._move_on(known, AnchorRecord(member, name, anchor, now))

    def flush(self) -> None:
        """Write down what has moved since it was written last; before a stop.

        Raises:
            FaultError: the store.
        """
        for record in self._known().values():
            if record.time > self._written.get(record.member, record.time):
                self._write(record)

    def alarms(self) -> Mapping[MemberId, str]:
        """In one sentence each, whose ledger is behind.

        Raises:
            FaultError: the store.
        """
        return {
            member: f"ledger is behind its anchor: {record.behind} entries, {record.anchor.sequence} were signed"
            for member, record in self._known().items()
            if record.behind >= 0
        }

    def _alarm(self, known: AnchorRecord, told: LedgerAnchor, now: float) -> None:
        if known.behind == told.sequence:
            return
        lost = replace(known, behind=told.sequence, behind_since=known.behind_since or now)
        detail = (
            f"entry {told.sequence} {told.digest[:16]} after entry {known.anchor.sequence} {known.anchor.digest[:16]}"
        )
        self._write(lost, action="ledger.behind", detail=detail)
        _log.error("an owner's privacy ledger went backwards", owner=known.name, detail=detail)

    def _move_on(self, known: AnchorRecord, record: AnchorRecord) -> None:
        if known.behind >= 0:
            detail = f"entry {record.anchor.sequence} {record.anchor.digest[:16]}"
            self._write(record, action="ledger.recovered", detail=detail)
        elif record.time - self._written.get(record.member, 0.0) >= WRITE_EVERY_S or record.name != known.name:
            self._write(record)
        else:
            self._known()[record.member] = record

    def _write(self, record: AnchorRecord, *, action: str = "", detail: str = "") -> None:
        with self._store.transaction() as tx:
            tx.put_anchor(record)
            if action:
                _audit(tx, record, self._clock.now(), action, detail)
        self._known()[record.member] = record
        self._written[record.member] = record.time

    def _known(self) -> dict[MemberId, AnchorRecord]:
        if self._records is None:
            with self._store.transaction() as tx:
                self._records = {record.member: record for record in tx.anchors()}
            self._written = {member: record.time for member, record in self._records.items()}
        return self._records


def _audit(tx: Transaction, record: AnchorRecord, now: float, action: str, detail: str) -> None:
    tx.append_audit(now, record.name, action, f"member {record.member.hex()}", detail)
