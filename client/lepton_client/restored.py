"""A ledger in a new home, from the export of a machine that is lost: a new identity, the same budget.

The old entries stay as they were signed; one entry of succession, signed by the new identity, names the old head and
the old key, and what comes after is the new identity's. What the lost machine had reserved stays charged, as nobody
knows what became of it.

An export may be older than what the lost machine has charged since. The coordinator keeps the newest place of the old
ledger that the old identity signed, and gives it back when the client connects: a ledger that lacks it is refused then.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from lepton_client.anchoring import require_whole
from lepton_client.disk import SYSTEM_DISK, Disk
from lepton_client.exported import Verified, verify_export
from lepton_client.home import Home, load_identity, load_settings
from lepton_client.journal import Journal, write_private
from lepton_core.errors import ConflictError, IdentityError, InputError
from lepton_core.identity import fingerprint
from lepton_core.ports import Clock
from lepton_core.privacy.ledger import succeed


def restore_ledger(
    home: Home, export: Path, predecessor: str, clock: Clock, disk: Disk = SYSTEM_DISK
) -> tuple[Verified, Verified]:
    """Give a home without a ledger that of an export; what was exported, and what the home has now.

    `predecessor` is the fingerprint of the old identity, from the federation's list or an old `lepton client status`:
    anybody can sign an export with a key of their own.

    Raises:
        InputError: not a client's folder, not an export, or one of another owner.
        IdentityError: not signed as it says, by another identity than `predecessor`, or by the home's own.
        ConflictError: a chain that does not hold or was cut off, a ledger that is not empty, or a daemon that runs.
        BudgetRefusal: the export is older than an anchor that the home was given back.
        FaultError: the disk; the ledger is still empty.
    """
    settings, identity = load_settings(home), load_identity(home)
    old = verify_export(export)
    if _digits(fingerprint(old.identity)) != _digits(predecessor):
        raise IdentityError(
            "the export is another identity's",
            where=str(export),
            expected=f"fingerprint {predecessor[:60]}",
            got=fingerprint(old.identity),
            hint="compare with the federation's list; never restore what somebody else signed",
            reason="WRONG_PREDECESSOR",
        )
    if old.owner != settings.owner:
        raise InputError(
            "the export is another owner's", where=str(export), expected=settings.owner, got=old.owner[:80]
        )
    if old.identity == identity.public:
        raise IdentityError(
            "the export was signed by the identity that lives here",
            where=str(home.identity),
            expected="a new identity, from a new enrolment",
            hint="if the identity was never lost, put the ledger.jsonl of the backup back in its place instead",
            reason="SAME_IDENTITY",
        )
    succession = succeed(old.head, old.identity, identity.public, time=clock.now(), sign=identity.sign)
    entries = (*old.entries, succession)
    require_whole(home.anchor, entries, identity.public)
    # Held while the file is replaced: no daemon can have opened the empty one.
    with contextlib.closing(Journal(home.ledger, disk)) as empty:
        if empty.lines:
            raise ConflictError(
                "the folder has a ledger of its own",
                where=str(home.ledger),
                expected="a newly enrolled client that was charged nothing",
                got=f"{len(empty.lines)} entries",
                hint="enrol into a new folder and restore there",
                reason="LEDGER_EXISTS",
            )
        write_private(home.ledger, b"".join(entry.to_line() for entry in entries), disk)
    return old, Verified(settings.owner, identity.public, entries, succession.head())


def _digits(words: str) -> str:
    """A fingerprint without the spaces and colons that people write into it."""
    return words.replace(" ", "").replace(":", "").lower()
