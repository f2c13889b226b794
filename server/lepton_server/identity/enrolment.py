"""Enrolment, renewal and revocation: from an invitation to a party with a certificate, and out again."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lepton_core.errors import ConflictError, IdentityError, InputError, NotFoundError
from lepton_core.identity import IDENTITY_BYTES, require_signature
from lepton_core.ids import MemberId, OwnerName, derive_member_id
from lepton_core.ports import Clock
from lepton_server.identity.ca import DAY_S, PARTY_DAYS, CertificateAuthority, Subject, parse_csr
from lepton_server.identity.invitations import require_invitation
from lepton_server.identity.principals import Principal
from lepton_server.identity.roles import Role
from lepton_server.store.port import EnrolledParty, Store

#: What an owner's protocol identity signs at enrolment: this, the token, and the certificate request.
PROOF_LABEL = b"lepton/enrol/v1"


@dataclass(frozen=True)
class EnrolmentRequest:
    """What a site sends, once; the token is a secret."""

    token: str = dataclasses.field(repr=False)
    #: PKCS #10, DER.
    csr: bytes
    #: Ed25519, 32 bytes; empty for people.
    identity_public: bytes
    identity_proof: bytes


@dataclass(frozen=True)
class Enrolled:
    """A party and the certificate that was just issued to it, PEM."""

    party: EnrolledParty
    certificate: bytes
    ca_certificate: bytes


@dataclass(frozen=True)
class Enrolment:
    """Turns invitations into parties. Every method is one transaction with its audit row."""

    store: Store
    authority: CertificateAuthority
    clock: Clock

    def enrol(self, request: EnrolmentRequest, principal: Principal) -> Enrolled:
        """The party's certificate. Whatever is refused leaves the token unused.

        Raises:
            IdentityError: the token, the certificate request or the proof of the protocol identity does not hold.
            ConflictError: another owner holds the protocol identity.
        """
        now = self.clock.now()
        public = parse_csr(request.csr)
        with self.store.transaction() as transaction:
            invitation = require_invitation(transaction, request.token, principal, now=now)
            member = _require_proof(request, invitation.name, Role(invitation.role))
            issued = self.authority.issue(
                public, Subject(invitation.role, invitation.name), now=now, valid_s=PARTY_DAYS * DAY_S
            )
            party = EnrolledParty(
                name=invitation.name,
                role=invitation.role,
                member=member,
                identity=request.identity_public,
                enrolled=_enrolled_at(transaction.party(invitation.name), now),
                certificate=issued.fingerprint,
                certificate_expires=issued.expires,
            )
            transaction.put_party(party)
            transaction.put_invitation(dataclasses.replace(invitation, used=True))
            transaction.append_audit(now, party.name, "enrol", party.name, f"{party.role} {issued.fingerprint}")
        return Enrolled(party, issued.certificate, self.authority.certificate)

    def renew(self, csr: bytes, principal: Principal) -> Enrolled:
        """A fresh certificate for the same name and role; the one before stays good until it runs out.

        Raises:
            IdentityError: the certificate request does not hold, or the party was revoked meanwhile.
        """
        now = self.clock.now()
        public = parse_csr(csr)
        with self.store.transaction() as transaction:
            known = transaction.party(principal.name)
            if known is None or known.revoked:
                raise IdentityError("the certificate has been revoked", where=principal.name, reason="REVOKED")
            issued = self.authority.issue(public, Subject(known.role, known.name), now=now, valid_s=PARTY_DAYS * DAY_S)
            party = dataclasses.replace(known, certificate=issued.fingerprint, certificate_expires=issued.expires)
            transaction.put_party(party)
            transaction.append_audit(now, party.name, "renew", party.name, issued.fingerprint)
        return Enrolled(party, issued.certificate, self.authority.certificate)

    def revoke(self, name: str, *, by: Principal) -> EnrolledParty:
        """The party, from now on refused everywhere.

        Raises:
            NotFoundError: nobody of that name.
            ConflictError: an operator revokes itself, which would leave nobody to undo it.
        """
        if name == by.name:
            raise ConflictError("an operator cannot revoke itself", where=name, hint="ask another operator to")
        now = self.clock.now()
        with self.store.transaction() as transaction:
            known = transaction.party(OwnerName(name))
            if known is None:
                raise NotFoundError("nobody of that name is enrolled", where=name[:80], hint="see `lepton owner list`")
            party = dataclasses.replace(known, revoked=True)
            transaction.put_party(party)
            transaction.append_audit(now, by.name, "revoke", party.name, party.role)
        return party


def _enrolled_at(replaced: EnrolledParty | None, now: float) -> float:
    """When the enrolment counts from: behind every certificate issued to the party that it replaces."""
    second = math.floor(now)
    if replaced is None:
        return float(second)
    last_issued = replaced.certificate_expires - PARTY_DAYS * DAY_S
    return float(max(second, math.floor(last_issued) + 1))


def _require_proof(request: EnrolmentRequest, name: OwnerName, role: Role) -> MemberId | None:
    """The member id of an owner that has shown to hold its identity key; None for people, who have none."""
    if role != Role.OWNER:
        if request.identity_public or request.identity_proof:
            raise InputError("only data owners have a protocol identity", where=name, got=f"one for a {role}")
        return None
    if len(request.identity_public) != IDENTITY_BYTES:
        raise IdentityError(
            "a data owner enrols with its protocol identity",
            where=name,
            expected=f"an Ed25519 public key of {IDENTITY_BYTES} bytes",
            got=f"{len(request.identity_public)} bytes",
            reason="NO_IDENTITY",
        )
    message = PROOF_LABEL + request.token.encode() + request.csr
    require_signature(request.identity_public, request.identity_proof, message, who=name, what="enrolment")
    return derive_member_id(request.identity_public)
