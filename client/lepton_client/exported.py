"""A privacy ledger in one file: its owner's copy for the archive, which anybody with the public key can check.

One JSON object: who, the public identity key, when, the head of the chain, and every line of the ledger as it stands.
Each entry bears its own signature, and the head is that of the last entry, so that nothing can be changed or left out
of the middle; the file itself is signed over all that, so that nothing can be left off its end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_client.anchoring import require_whole
from lepton_client.home import Home, load_identity, load_settings
from lepton_client.journal import read_lines, write_private
from lepton_core.canonical import canonical_json
from lepton_core.errors import ConflictError, InputError
from lepton_core.identity import IdentityKey, fingerprint, require_signature
from lepton_core.ports import Clock
from lepton_core.privacy.ledger import Entry, LedgerHead, Succession, accounts_of, parse_line, verify

FORMAT = "lepton/ledger-export/1"
_LABEL = b"lepton/ledger-export/v1"
#: A ledger of a million rounds has some 600 MB; nobody's export is larger than this.
_LARGEST_BYTES = 2**30
_KEYS = {"format", "owner", "identity", "exported", "sequence", "head", "entries"}


@dataclass(frozen=True)
class Verified:
    """A ledger, or the export of one, whose chain and signatures hold."""

    owner: str
    #: Ed25519 public key that signed every entry, or those since the last succession; 32 bytes.
    identity: bytes
    entries: tuple[Entry, ...]
    head: LedgerHead
    #: When it was exported, in seconds since the epoch; 0 for the ledger itself.
    exported: float = 0.0

    def summary(self) -> dict[str, Any]:
        """What a person compares."""
        return {
            "owner": self.owner,
            "fingerprint": fingerprint(self.identity),
            "entries": len(self.entries),
            "rounds_charged": sum(account.charged for _, account in accounts_of(self.entries)),
            "predecessors": [fingerprint(one.predecessor) for one in self.entries if isinstance(one, Succession)],
            "head": self.head.digest,
            "exported": self.exported,
        }


def verify_home(home: Home) -> Verified:
    """The ledger of a client's folder, which a daemon may be writing, verified from its first entry to its anchor.

    Raises:
        InputError: no client's folder, or a line that is not an entry.
        ConflictError, IdentityError: the chain does not hold.
        BudgetRefusal: it is behind the anchor that the coordinator gave back.
    """
    verified = verify_chain(home)
    require_whole(home.anchor, verified.entries, verified.identity)
    return verified


def verify_chain(home: Home) -> Verified:
    """As `verify_home`, but for the anchor.

    Raises:
        InputError, ConflictError, IdentityError: as `verify_home`.
    """
    settings, identity = load_settings(home), load_identity(home)
    entries = tuple(parse_line(line) for line in read_lines(home.ledger))
    return Verified(settings.owner, identity.public, entries, verify(entries, identity.public))


def export_ledger(home: Home, target: Path, clock: Clock) -> Verified:
    """Write the verified ledger to a new file (0600); returns what it holds.

    Raises:
        InputError, ConflictError, IdentityError: as `verify_home`, or the file exists.
        FaultError: the disk.
    """
    if target.exists():
        raise InputError(
            "the file exists",
            where=str(target),
            expected="a new file",
            hint="name another; an older export stays what it is",
        )
    verified, identity = verify_home(home), load_identity(home)
    document = {
        "format": FORMAT,
        "owner": verified.owner,
        "identity": verified.identity.hex(),
        "exported": clock.now(),
        "sequence": verified.head.sequence,
        "head": verified.head.digest,
        "entries": [entry.to_line().decode().rstrip("\n") for entry in verified.entries],
    }
    write_private(target, _sealed(document, identity))
    return verified


def verify_export(path: Path) -> Verified:
    """The ledger in an exported file, verified from its first entry to the signature over the whole.

    Raises:
        InputError: no such file, or not an export.
        ConflictError: the chain does not hold, or ends elsewhere than the export says.
        IdentityError: a signature that does not hold.
    """
    document, signature = _opened(path)
    try:
        identity = bytes.fromhex(document["identity"])
        entries = tuple(parse_line(line.encode()) for line in document["entries"])
        head = LedgerHead(int(document["sequence"]), document["head"])
        owner, exported = str(document["owner"]), float(document["exported"])
    except (ValueError, TypeError, AttributeError):
        raise _not_an_export(path) from None
    require_signature(identity, signature, _LABEL + canonical_json(document), who="ledger export", what="export")
    found = verify(entries, identity)
    if found != head:
        raise ConflictError(
            "the export's entries end elsewhere than it says",
            where=str(path),
            expected=f"entry {head.sequence}, {head.digest[:16]}",
            got=f"entry {found.sequence}, {found.digest[:16]}",
        )
    return Verified(owner, identity, entries, found, exported)


def _sealed(document: dict[str, Any], identity: IdentityKey) -> bytes:
    signature = identity.sign(_LABEL + canonical_json(document))
    return json.dumps(document | {"signature": signature.hex()}, indent=1).encode() + b"\n"


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """The signed part and the signature."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise _not_an_export(path)
        document = json.loads(path.read_bytes())
        signature = bytes.fromhex(document.pop("signature"))
    except OSError as error:
        raise InputError(
            "the export cannot be read", where=str(path), expected="a file", got=error.strerror or ""
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _not_an_export(path) from None
    if not isinstance(document, dict) or set(document) != _KEYS or document["format"] != FORMAT:
        raise _not_an_export(path)
    return document, signature


def _not_an_export(path: Path) -> InputError:
    return InputError(
        "not an exported privacy ledger",
        where=str(path),
        expected=f"a file that `lepton privacy export` wrote ({FORMAT})",
    )
