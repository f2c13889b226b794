"""The anchor of an owner's ledger: what the coordinator keeps of it, and what it means when it gives one back.

`anchor.json` is the newest anchor of its own that this owner was given back, so that what reads the folder without a
coordinator tells of a ledger that lost its end too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lepton_client.disk import SYSTEM_DISK, Disk
from lepton_client.journal import write_private
from lepton_client.logs import Log
from lepton_core.canonical import canonical_json
from lepton_core.errors import BudgetRefusal, FaultError, IdentityError, InputError
from lepton_core.ids import require_digest
from lepton_core.privacy.anchor import LedgerAnchor, holds, identities_of
from lepton_core.privacy.entries import Entry
from lepton_core.privacy.links import EMPTY, LedgerHead


class Anchored(Protocol):
    """What keeps the ledger, as far as anchors go; see `lepton_client.ledger.Ledger`."""

    @property
    def head(self) -> LedgerHead:
        """The end of the chain."""
        ...

    def compare(self, anchor: LedgerAnchor) -> bool:
        """Whether the ledger has it in its place."""
        ...

    def anchor(self) -> LedgerAnchor:
        """Where the ledger stands."""
        ...


class Anchoring:
    """The two ends of anchoring at a daemon: what is sent, and what comes back."""

    def __init__(self, ledger: Anchored, path: Path, log: Log, disk: Disk = SYSTEM_DISK) -> None:
        """`path` is where an anchor that was given back is kept; the one that is there is compared at once.

        Raises:
            InputError: the file is not an anchor.
        """
        self._ledger = ledger
        self._path = path
        self._log = log
        self._disk = disk
        self._kept = load_anchor(path)
        if self._kept is not None:
            self._compare(self._kept)

    def given_back(self, anchors: Sequence[LedgerAnchor]) -> None:
        """Compare what the coordinator keeps with the ledger; what this owner never signed counts for nothing."""
        for anchor in anchors:
            if self._compare(anchor) and (self._kept is None or anchor.sequence > self._kept.sequence):
                self._keep(anchor)

    def moved(self, since: int) -> LedgerAnchor | None:
        """Where the ledger stands, if it has another number of entries than this."""
        return self._ledger.anchor() if self._ledger.head.sequence != since else None

    def _compare(self, anchor: LedgerAnchor) -> bool:
        """True if the owner signed it; tells if the ledger is behind it."""
        try:
            whole = self._ledger.compare(anchor)
        except IdentityError as error:
            self._log.warning("an anchor that this owner did not sign, ignored", reason=error.reason)
            return False
        if not whole:
            lost = behind(anchor, self._ledger.head)
            self._log.error("the privacy ledger is behind its anchor", reason=lost.reason, told=str(lost))
        return True

    def _keep(self, anchor: LedgerAnchor) -> None:
        self._kept = anchor
        try:
            save_anchor(self._path, anchor, self._disk)
        except FaultError as error:
            self._log.warning("the anchor could not be kept", code=error.code, told=str(error))


def save_anchor(path: Path, anchor: LedgerAnchor, disk: Disk = SYSTEM_DISK) -> None:
    """Keep an anchor.

    Raises:
        FaultError: the disk.
    """
    document = {
        "identity": anchor.identity.hex(),
        "sequence": anchor.sequence,
        "digest": anchor.digest,
        "signature": anchor.signature.hex(),
    }
    write_private(path, canonical_json(document) + b"\n", disk)


def load_anchor(path: Path) -> LedgerAnchor | None:
    """The anchor in a file; None if there is no file.

    Raises:
        InputError: not an anchor.
    """
    try:
        document = json.loads(path.read_bytes())
        return LedgerAnchor(
            identity=bytes.fromhex(document["identity"]),
            sequence=int(document["sequence"]),
            digest=require_digest(document["digest"], "anchor's digest"),
            signature=bytes.fromhex(document["signature"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(
            "the ledger's anchor cannot be read",
            where=str(path),
            expected="what a daemon wrote there",
            hint="delete it; the coordinator gives it back when the client connects",
        ) from None


def require_whole(path: Path, entries: Sequence[Entry], public: bytes) -> None:
    """Refuse a ledger that is behind the anchor in the file; one that another identity signed says nothing.

    Raises:
        BudgetRefusal: LEDGER_BEHIND.
        InputError: the file is not an anchor.
    """
    anchor = load_anchor(path)
    if anchor is None:
        return
    try:
        require_own(anchor, entries, public)
    except IdentityError:
        return
    if not holds(entries, anchor):
        raise behind(anchor, entries[-1].head() if entries else EMPTY)


def alarm(path: Path, entries: Sequence[Entry], public: bytes) -> str:
    """What `require_whole` has to say, for a person; empty if nothing.

    Raises:
        InputError: the file is not an anchor.
    """
    try:
        require_whole(path, entries, public)
    except BudgetRefusal as error:
        return str(error)
    return ""


def require_own(anchor: LedgerAnchor, entries: Sequence[Entry], public: bytes) -> None:
    """Refuse an anchor that no identity of this ledger has signed: anybody can make such ones.

    Raises:
        IdentityError: UNKNOWN_ANCHOR or BAD_SIGNATURE.
    """
    if anchor.identity not in identities_of(entries, public):
        raise IdentityError(
            "an anchor of another identity's ledger",
            where="ledger anchor",
            expected=public.hex()[:16],
            got=anchor.identity.hex()[:16],
            reason="UNKNOWN_ANCHOR",
        )
    anchor.require_signed()


def behind(anchored: LedgerAnchor, head: LedgerHead) -> BudgetRefusal:
    """Why nothing is charged to a ledger that was never at the place that its owner once signed."""
    return BudgetRefusal(
        "the privacy ledger is behind its anchor: it was rolled back, cut off or replaced",
        where="privacy ledger",
        expected=f"entry {anchored.sequence} at the place {anchored.digest[:16]}, which this owner signed",
        got=f"{head.sequence} entries" + (", another chain" if head.sequence >= anchored.sequence else ""),
        hint="stop the client and put back the newest ledger.jsonl or folder from the backup; if there is none, enrol "
        "as a new member and use `lepton privacy restore` with the newest export",
        reason="LEDGER_BEHIND",
    )
