"""From a peer's certificate to who is calling, and whether they still may."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from lepton_core.errors import IdentityError
from lepton_core.ids import MemberId, OwnerName
from lepton_server.identity.ca import Subject, subject_of
from lepton_server.identity.roles import Role
from lepton_server.store.port import EnrolledParty, Store

#: Certificates remembered as parsed; a coordinator has fewer members than this.
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class Principal:
    """Who is calling."""

    name: OwnerName
    role: Role
    #: An owner's protocol identity; None for everybody else.
    member: MemberId | None
    #: SHA-256 of the certificate's DER, hex.
    fingerprint: str
    #: Serial number, hex.
    serial: str
    #: The certificate's end, seconds since the epoch.
    expires: float


@dataclass(frozen=True)
class _Certificate:
    subject: Subject
    fingerprint: str
    serial: str
    issued: float
    expires: float


class Principals:
    """Everybody enrolled, in memory: the deny list is as new as the last `note`. Safe from several threads.

    TLS has verified the chain and the dates at the handshake; this answers for what TLS does not know: revocation,
    a newer enrolment under the same name, and certificates that ran out while a connection stayed open.
    """

    def __init__(self, store: Store) -> None:
        with store.transaction() as transaction:
            self._parties = {party.name: party for party in transaction.parties()}
        self._remembered: dict[bytes, _Certificate] = {}
        self._lock = threading.Lock()

    def note(self, party: EnrolledParty) -> None:
        """Take in an enrolment, renewal or revocation that has been committed."""
        self._parties[party.name] = party

    def parties(self) -> tuple[EnrolledParty, ...]:
        """Everybody, by name."""
        return tuple(sorted(self._parties.values(), key=lambda party: party.name))

    def identify(self, certificate_pem: bytes, *, now: float) -> Principal:
        """Who holds this certificate.

        Raises:
            IdentityError: it has run out, names nobody known, is older than the holder's enrolment, or is revoked.
        """
        certificate = self._parse(certificate_pem)
        subject = certificate.subject
        if now >= certificate.expires:
            raise _refused("the certificate has expired", subject, reason="EXPIRED")
        if subject.role == Role.ENROL:
            return _principal(certificate, Role.ENROL, None)
        if subject.role == Role.SERVICE:
            return _principal(certificate, Role.SERVICE, None)
        party = self._parties.get(OwnerName(subject.name))
        if party is None or party.role != subject.role:
            raise _refused("nobody of that name and role is enrolled", subject, reason="UNKNOWN")
        if party.revoked:
            raise _refused("the certificate has been revoked", subject, reason="REVOKED")
        if certificate.fingerprint != party.certificate and certificate.issued < party.enrolled:
            raise _refused("the certificate is older than the enrolment now in force", subject, reason="REPLACED")
        return _principal(certificate, Role(party.role), party.member)

    def _parse(self, pem: bytes) -> _Certificate:
        known = self._remembered.get(pem)
        if known is not None:
            return known
        try:
            parsed = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise IdentityError("a certificate that cannot be read") from None
        certificate = _Certificate(
            subject=subject_of(parsed),
            fingerprint=parsed.fingerprint(SHA256()).hex(),
            serial=f"{parsed.serial_number:x}",
            issued=parsed.not_valid_before_utc.timestamp(),
            expires=parsed.not_valid_after_utc.timestamp(),
        )
        with self._lock:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[pem] = certificate
        return certificate


def _principal(certificate: _Certificate, role: Role, member: MemberId | None) -> Principal:
    return Principal(
        name=OwnerName(certificate.subject.name),
        role=role,
        member=member,
        fingerprint=certificate.fingerprint,
        serial=certificate.serial,
        expires=certificate.expires,
    )


def _refused(message: str, subject: Subject, *, reason: str) -> IdentityError:
    return IdentityError(
        message,
        where=subject.uri,
        hint="ask the coordinator's operator for a new invitation",
        reason=reason,
    )
