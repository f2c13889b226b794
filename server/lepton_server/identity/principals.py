"""From a peer's certificate to who is calling, and whether they still may."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from lepton_core.errors import IdentityError
from lepton_core.ids import MemberId, OwnerName
from lepton_server.identity.ca import subject_of
from lepton_server.identity.roles import Role
from lepton_server.store.port import EnrolledParty, Store

#: Certificates remembered as parsed; a coordinator has fewer members than this.
_MOST_REMEMBERED = 10_000
#: Roles that are in a certificate only: an invitation's bootstrap certificate, and services beside the coordinator.
_WITHOUT_ENROLMENT = frozenset({Role.ENROL, Role.SERVICE})


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
    #: The certificate's validity, seconds since the epoch.
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
        self._remembered: dict[bytes, Principal] = {}
        self._lock = threading.Lock()

    def note(self, party: EnrolledParty) -> None:
        """Take in an enrolment, renewal or revocation that has been committed.

        Only a new enrolment undoes a revocation: a renewal committed just before it may be told of just after.
        """
        with self._lock:
            known = self._parties.get(party.name)
            if known is not None and known.revoked and party.enrolled <= known.enrolled:
                return
            self._parties[party.name] = party

    def parties(self) -> tuple[EnrolledParty, ...]:
        """Everybody, by name."""
        return tuple(sorted(self._parties.values(), key=lambda party: party.name))

    def identify(self, certificate_pem: bytes, *, now: float) -> Principal:
        """Who holds this certificate.

        Raises:
            IdentityError: it has run out, names nobody known, is older than the holder's enrolment, or is revoked.
        """
        principal = self._parse(certificate_pem)
        self.require_current(principal, now=now)
        if principal.role in _WITHOUT_ENROLMENT:
            return principal
        return dataclasses.replace(principal, member=self._parties[principal.name].member)

    def require_current(self, principal: Principal, *, now: float) -> None:
        """Return if the certificate is still good; for streams that were opened with it.

        Raises:
            IdentityError: as `identify`.
        """
        if now >= principal.expires:
            raise _refused("the certificate has expired", principal, reason="EXPIRED")
        if principal.role in _WITHOUT_ENROLMENT:
            return
        party = self._parties.get(principal.name)
        if party is None or party.role != principal.role:
            raise _refused("nobody of that name and role is enrolled", principal, reason="UNKNOWN")
        if party.revoked:
            raise _refused("the certificate has been revoked", principal, reason="REVOKED")
        if principal.fingerprint != party.certificate and principal.issued < party.enrolled:
            raise _refused("the certificate is older than the enrolment now in force", principal, reason="REPLACED")

    def _parse(self, pem: bytes) -> Principal:
        """What the certificate itself says."""
        known = self._remembered.get(pem)
        if known is not None:
            return known
        try:
            parsed = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise IdentityError("a certificate that cannot be read") from None
        subject = subject_of(parsed)
        try:
            role = Role(subject.role)
        except ValueError:
            raise IdentityError("a certificate of an unknown role", where=subject.uri) from None
        principal = Principal(
            name=OwnerName(subject.name),
            role=role,
            member=None,
            fingerprint=parsed.fingerprint(SHA256()).hex(),
            serial=f"{parsed.serial_number:x}",
            issued=parsed.not_valid_before_utc.timestamp(),
            expires=parsed.not_valid_after_utc.timestamp(),
        )
        with self._lock:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[pem] = principal
        return principal


def _refused(message: str, principal: Principal, *, reason: str) -> IdentityError:
    return IdentityError(
        message,
        where=f"{principal.role} {principal.name}",
        hint="ask the coordinator's operator for a new invitation",
        reason=reason,
    )
