"""The signed membership list: who may be a peer, vouched for by a federation key the coordinator does not hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, field_validator

from lepton_core.canonical import canonical_json
from lepton_core.errors import IdentityError, InputError
from lepton_core.identity import IDENTITY_BYTES, SIGNATURE_BYTES, IdentityKey, require_signature
from lepton_core.ids import MemberId, derive_member_id
from lepton_core.settings import Settings, parse_settings

LARGEST_LIST_BYTES = 16 * 2**20


#: The form of `ids.require_name`, told as a pattern so that a settings error names the key path.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
#: An Ed25519 public key, 64 lower-case hex digits.
KeyHex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ListedMember(Settings):
    """One admitted owner and its protocol identity."""

    owner: Name
    identity: KeyHex

    @property
    def public(self) -> bytes:
        """The identity key, 32 raw bytes."""
        return bytes.fromhex(self.identity)

    @property
    def member(self) -> MemberId:
        """The member id of the identity."""
        return derive_member_id(self.public)


class MembershipList(Settings):
    """Version `version` of a federation's members; a higher version replaces a lower one."""

    federation: Name
    version: int = Field(ge=1)
    #: Seconds since the Unix epoch, UTC.
    issued: int = Field(ge=0)
    expires: int = Field(ge=0)
    #: Strictly sorted by owner; no identity twice.
    members: tuple[ListedMember, ...] = Field(min_length=1, max_length=100_000)
    #: Identity keys (hex) that are refused although some list once held them; strictly sorted.
    revoked: tuple[KeyHex, ...] = ()

    @field_validator("members")
    @classmethod
    def _check_members(cls, value: tuple[ListedMember, ...]) -> tuple[ListedMember, ...]:
        owners = [entry.owner for entry in value]
        if any(left >= right for left, right in pairwise(owners)):
            raise ValueError("owners must be strictly sorted, each named once")
        if len({entry.identity for entry in value}) != len(value):
            raise ValueError("an identity key is listed twice")
        return value

    @field_validator("revoked")
    @classmethod
    def _check_revoked(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(left >= right for left, right in pairwise(value)):
            raise ValueError("revoked keys must be strictly sorted")
        return value

    @cached_property
    def _canonical(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(b"lepton/membership/v1" + self._canonical).digest()

    @cached_property
    def _admitted(self) -> dict[MemberId, bytes]:
        revoked = set(self.revoked)
        return {entry.member: entry.public for entry in self.members if entry.identity not in revoked}

    def canonical(self) -> bytes:
        """The one byte string of this list."""
        return self._canonical

    def digest(self) -> bytes:
        """What the federation key signs and a round's terms name; 32 bytes."""
        return self._digest

    def admitted(self) -> Mapping[MemberId, bytes]:
        """Identity keys by member id, without the revoked ones."""
        return MappingProxyType(self._admitted)

    def owner_of(self, member: MemberId) -> str | None:
        """The owner's name of an admitted member."""
        return next(
            (entry.owner for entry in self.members if entry.member == member and entry.identity not in self.revoked),
            None,
        )


@dataclass(frozen=True)
class SignedList:
    """A membership list with its federation's signature over the digest."""

    members: MembershipList
    #: Federation key's public half, 32 bytes. Says who claims to have signed; trust comes from the owner's policy.
    federation_public: bytes
    signature: bytes

    def to_json(self) -> bytes:
        """Canonical JSON that `from_json` reads back."""
        return canonical_json(
            {
                "list": self.members.model_dump(mode="json"),
                "federation_public": self.federation_public.hex(),
                "signature": self.signature.hex(),
            }
        )

    @classmethod
    def from_json(cls, data: bytes, *, source: str = "membership list") -> SignedList:
        """The list in the JSON; its signature is not checked yet (`verify` does).

        Raises:
            InputError: not JSON of this form.
            SettingsError: a list that no federation may sign.
        """
        if len(data) > LARGEST_LIST_BYTES:
            raise InputError("a membership list this large is refused", where=source, got=f"{len(data)} bytes")
        try:
            document = json.loads(data)
            public, signature = bytes.fromhex(document["federation_public"]), bytes.fromhex(document["signature"])
            listed = document["list"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                "a membership list that cannot be read",
                where=source,
                expected="JSON with list, federation_public and signature, as `lepton federation sign` writes it",
            ) from None
        if len(public) != IDENTITY_BYTES or len(signature) != SIGNATURE_BYTES or not isinstance(listed, dict):
            raise InputError("a membership list whose key or signature has another length", where=source)
        return cls(parse_settings(MembershipList, listed, source=source), public, signature)


def sign(members: MembershipList, federation_key: IdentityKey) -> SignedList:
    """The list with the federation's signature."""
    return SignedList(members, federation_key.public, federation_key.sign(members.digest()))


def verify(signed: SignedList, federation_public: bytes, *, now: float, at_least_version: int) -> MembershipList:
    """The list, if the federation the owner trusts signed it, it is in force, and it is no older than a known one.

    `at_least_version` is the highest version this owner has accepted: an older list is a replay.

    Raises:
        IdentityError: another federation's key, a signature that does not hold, expired, not yet issued, or a replay.
    """
    members = signed.members
    where = f"membership list of {members.federation}, version {members.version}"
    _require_signed(federation_public, signed.signature, members.digest(), where)
    if now >= members.expires:
        raise IdentityError(
            "the membership list has expired",
            where=where,
            expected=f"expires after {int(now)}",
            got=str(members.expires),
            hint="ask the federation for a list with a later expiry",
            reason="EXPIRED",
        )
    if now < members.issued:
        raise IdentityError(
            "the membership list is not in force yet",
            where=where,
            expected=f"issued by {int(now)}",
            got=str(members.issued),
            hint="compare this machine's clock with the federation's",
            reason="NOT_YET_ISSUED",
        )
    if members.version < at_least_version:
        raise IdentityError(
            "an older membership list than one already accepted",
            where=where,
            expected=f"version {at_least_version} or later",
            got=str(members.version),
            reason="REPLAYED",
        )
    return members


@lru_cache(maxsize=256)
def _require_signed(federation_public: bytes, signature: bytes, digest: bytes, where: str) -> None:
    """Remembers signatures that hold, as a member asks about the same list several times a round.

    Whether a signature holds never changes; what does change (time, the policy's key, revocations) is asked each time.
    """
    require_signature(federation_public, signature, digest, who=where, what="membership list")
