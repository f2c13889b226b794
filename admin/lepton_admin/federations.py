"""The federation's folder: its key, the draft of its members, and the signed list."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lepton_admin.files import read_bytes, write_private, write_public
from lepton_core.errors import ConflictError, InputError
from lepton_core.identity import IdentityKey, fingerprint
from lepton_core.ids import require_name
from lepton_core.membership import ListedMember, MembershipList, SignedList
from lepton_core.membership import sign as sign_list
from lepton_core.ports import SystemRandomness
from lepton_core.settings import Settings, parse_settings

KEY_FILE = "federation.pem"
DRAFT_FILE = "members.json"
SIGNED_FILE = "signed.json"


class Draft(Settings):
    """Who is to be on the next signed list."""

    federation: str
    #: Version of the newest signed list; 0 before the first.
    signed_version: int = 0
    members: tuple[ListedMember, ...] = ()


class IdentityCard(Settings):
    """What an owner's daemon writes for the one who signs the list; nothing in it is secret."""

    owner: str
    member: str
    identity: str
    fingerprint: str = ""


def create_federation(folder: Path, name: str) -> str:
    """Make the key and an empty draft; gives the public key in hex, for the owners' policies.

    Raises:
        ConflictError: there is a federation in the folder.
    """
    require_name(name, "federation name")
    key = IdentityKey.generate(SystemRandomness())
    write_private(folder / KEY_FILE, key.to_pem())
    _write_draft(folder, Draft(federation=name), replace=False)
    return key.public.hex()


def load_draft(folder: Path) -> Draft:
    """The draft of the federation in the folder.

    Raises:
        InputError: there is none.
    """
    return parse_settings(Draft, _read_json(folder / DRAFT_FILE, "federation"), source=str(folder / DRAFT_FILE))


def add_members(folder: Path, cards: Sequence[Path]) -> Draft:
    """Add the owners of the identity cards to the draft; a card already in it changes nothing.

    Raises:
        InputError: a card that is missing, or whose member id is not that of its key.
        ConflictError: the owner is listed with another identity.
    """
    draft = load_draft(folder)
    members = {member.owner: member for member in draft.members}
    for path in cards:
        member = _member_of_card(path)
        known = members.get(member.owner)
        if known is not None and known.identity != member.identity:
            raise ConflictError(
                "the owner is listed with another identity",
                where=str(path),
                expected=fingerprint(known.public),
                got=fingerprint(member.public),
                hint="ask the owner by another way; a changed identity means a lost key or an impostor",
            )
        members[member.owner] = member
    changed = draft.model_copy(update={"members": tuple(members[owner] for owner in sorted(members))})
    _write_draft(folder, changed, replace=True)
    return changed


def sign_members(folder: Path, days: int) -> SignedList:
    """Sign the draft as the next version; the draft remembers the version before the signature is written.

    Raises:
        InputError: no key, or no members.
    """
    draft = load_draft(folder)
    if not draft.members:
        raise InputError(
            "a list without members", where=str(folder), expected="at least 3 members", hint="lepton federation add"
        )
    key = IdentityKey.from_pem(read_bytes(folder / KEY_FILE, "federation key"))
    now = int(time.time())
    members = MembershipList(
        federation=draft.federation,
        version=draft.signed_version + 1,
        issued=now,
        expires=now + days * 86_400,
        members=draft.members,
    )
    signed = sign_list(members, key)
    _write_draft(folder, draft.model_copy(update={"signed_version": members.version}), replace=True)
    write_public(folder / SIGNED_FILE, signed.to_json(), replace=True)
    return signed


def described(members: Sequence[ListedMember]) -> list[dict[str, str]]:
    """Each member with what people compare."""
    return [
        {
            "owner": member.owner,
            "member": member.member.hex(),
            "identity": member.identity,
            "fingerprint": fingerprint(member.public),
        }
        for member in members
    ]


def _member_of_card(path: Path) -> ListedMember:
    card = parse_settings(IdentityCard, _read_json(path, "identity card"), source=str(path))
    try:
        member = ListedMember(owner=card.owner, identity=card.identity)
    except ValidationError:
        raise InputError("an identity card with a bad name or key", where=str(path)) from None
    if member.member.hex() != card.member:
        raise InputError(
            "an identity card whose member id is not that of its key",
            where=str(path),
            expected=member.member.hex(),
            got=card.member,
            hint="ask the owner for the card again",
        )
    return member


def _read_json(path: Path, what: str) -> dict[str, object]:
    try:
        document = json.loads(read_bytes(path, what))
    except (ValueError, RecursionError):
        raise InputError(f"the {what} is not JSON", where=str(path)) from None
    if not isinstance(document, dict):
        raise InputError(f"the {what} is not a JSON object", where=str(path), got=type(document).__name__)
    return document


def _write_draft(folder: Path, draft: Draft, *, replace: bool) -> None:
    write_public(folder / DRAFT_FILE, (draft.model_dump_json(indent=2) + "\n").encode(), replace=replace)
