"""The names by which Lepton's parts speak of members, owners, jobs, rounds and bytes."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from lepton_core.errors import InputError

#: First 16 bytes of SHA-256 of a member's Ed25519 protocol identity key; 16 bytes.
MemberId = NewType("MemberId", bytes)
#: An owner's enrolled name, `[a-z0-9-]{1,63}`.
OwnerName = NewType("OwnerName", str)
#: A job's name with a random suffix, `[a-z0-9-]{1,63}`.
JobId = NewType("JobId", str)
#: Number of a round within its job, counted from 1; an aborted round's number is never used again.
RoundNumber = NewType("RoundNumber", int)
#: Number of a model version within its job; 0 is the initial model.
ModelVersion = NewType("ModelVersion", int)
#: Lower-case hex of a SHA-256 digest, 64 characters.
Digest = NewType("Digest", str)

MEMBER_ID_BYTES = 16
NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
_NAME = re.compile(NAME_PATTERN)
_DIGEST = re.compile(DIGEST_PATTERN)


def require_name(value: str, what: str) -> str:
    """The value if it is an id of 1 to 63 letters a-z, digits and inner hyphens.

    Raises:
        InputError: it is not; storage paths and certificates rely on this form.
    """
    if _NAME.fullmatch(value) is None:
        raise InputError(
            f"not a valid {what}",
            where=what,
            expected="1 to 63 of a-z, 0-9 and '-', no hyphen at either end",
            got=repr(value[:80]),
        )
    return value


def require_digest(value: str, what: str) -> Digest:
    """The value if it is 64 lower-case hex digits.

    Raises:
        InputError: it is not.
    """
    if _DIGEST.fullmatch(value) is None:
        raise InputError(f"not a valid {what}", where=what, expected="64 lower-case hex digits", got=repr(value[:80]))
    return Digest(value)


def digest_of(data: bytes) -> Digest:
    """SHA-256 of the bytes, in hex."""
    return Digest(hashlib.sha256(data).hexdigest())


def derive_member_id(identity_public_key: bytes) -> MemberId:
    """The id of the member that holds this Ed25519 public key (32 raw bytes)."""
    return MemberId(hashlib.sha256(b"lepton/member/v1" + identity_public_key).digest()[:MEMBER_ID_BYTES])
