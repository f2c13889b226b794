"""Invitations: a one-time token and a bootstrap certificate, bound to one name and role."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

from lepton_core.errors import ConflictError, IdentityError, InputError
from lepton_core.ids import OwnerName, require_name
from lepton_core.ports import Clock, Randomness
from lepton_core.views import Invitation
from lepton_server.identity.ca import CertificateAuthority, KeyPair, Subject
from lepton_server.identity.principals import Principal
from lepton_server.identity.roles import INVITABLE, Role
from lepton_server.store.port import InvitationRecord, Store, Transaction

TOKEN_BYTES = 32
DEFAULT_VALID_S = 3_600.0
SHORTEST_VALID_S = 60.0
LONGEST_VALID_S = 30 * 86_400.0


@dataclass(frozen=True)
class Invitations:
    """Makes invitations; the store keeps the token's hash only, and of the bootstrap key nothing."""

    store: Store
    authority: CertificateAuthority
    clock: Clock
    randomness: Randomness

    def invite(self, name: str, role: str, *, valid_s: float, address: str, by: str) -> Invitation:
        """An invitation to hand over once, by a channel that keeps it secret. `valid_s` 0 means an hour.

        Somebody already enrolled in this role can be invited again, to replace a lost key; the old certificate ends
        when the new enrolment is made.

        Raises:
            InputError: a name that is no id, a role that cannot be invited, or a lifetime out of range.
            ConflictError: the name belongs to somebody in another role.
        """
        owner = OwnerName(require_name(name, "name"))
        if role not in INVITABLE:
            raise InputError(
                "not a role that can be invited", where="role", expected=" or ".join(sorted(INVITABLE)), got=role[:80]
            )
        lifetime = valid_s or DEFAULT_VALID_S
        if not SHORTEST_VALID_S <= lifetime <= LONGEST_VALID_S:
            raise InputError(
                "an invitation cannot be valid for so long",
                where="valid_s",
                expected=f"{SHORTEST_VALID_S:.0f} to {LONGEST_VALID_S:.0f} seconds",
                got=f"{lifetime:g}",
            )
        now = self.clock.now()
        token = base64.urlsafe_b64encode(self.randomness.token(TOKEN_BYTES)).rstrip(b"=").decode()
        keys = KeyPair.generate()
        bootstrap = self.authority.issue(keys.public, Subject(Role.ENROL, name), now=now, valid_s=lifetime)
        record = InvitationRecord(hash_token(token), owner, role, bootstrap.expires, bootstrap.serial)
        with self.store.transaction() as transaction:
            known = transaction.party(owner)
            if known is not None and known.role != role:
                raise ConflictError(
                    "the name is taken", where=name, expected=f"the role {known.role}", got=role, reason="NAME_TAKEN"
                )
            transaction.put_invitation(record)
            transaction.append_audit(now, by, "invite", name, role)
        return Invitation(
            name=name,
            role=role,
            address=address,
            token=token,
            ca_certificate=self.authority.certificate.decode(),
            ca_fingerprint=self.authority.fingerprint,
            bootstrap_certificate=bootstrap.certificate.decode(),
            bootstrap_key=keys.to_pem().decode(),
            expires=bootstrap.expires,
        )


def hash_token(token: str) -> str:
    """What the store keeps of a token; SHA-256, hex. 256 random bits need no slow hash."""
    return hashlib.sha256(b"lepton/invitation/v1" + token.encode(errors="replace")).hexdigest()


def require_invitation(transaction: Transaction, token: str, principal: Principal, *, now: float) -> InvitationRecord:
    """The invitation that this token opens for the holder of this bootstrap certificate.

    Raises:
        IdentityError: no such token, used, expired, or made for another name or bootstrap certificate.
    """
    token_hash = hash_token(token)
    found = transaction.invitation(token_hash)
    mine = (
        found is not None
        and hmac.compare_digest(found.token_hash, token_hash)
        and found.name == principal.name
        and hmac.compare_digest(found.bootstrap_serial, principal.serial)
    )
    if found is None or not mine:
        raise _refused("the token does not belong to this invitation", principal, reason="TOKEN")
    if found.used:
        raise _refused("the token has been used", principal, reason="TOKEN_USED")
    if now >= found.expires:
        raise _refused("the invitation has expired", principal, reason="TOKEN_EXPIRED")
    return found


def _refused(message: str, principal: Principal, *, reason: str) -> IdentityError:
    return IdentityError(
        message,
        where=f"invitation for {principal.name}",
        expected="the token of this invitation, once",
        hint="ask the coordinator's operator for a new invitation",
        reason=reason,
    )
