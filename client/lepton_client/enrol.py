"""Enrolment: keys are made here, certified by the coordinator over its pinned CA, and never leave the site."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lepton_client.enrol_link import request_certificate
from lepton_client.home import Home, load_identity, save_identity, save_settings
from lepton_core.errors import ConflictError, FaultError, IdentityError, InputError
from lepton_core.identity import IdentityKey, fingerprint
from lepton_core.ports import SystemRandomness
from lepton_core.views import Invitation
from lepton_protos.channel import Endpoint, save_endpoint

_OWNER = "owner"
#: Which command takes which role's invitation.
_ENROL = {_OWNER: "`lepton client enrol`", "researcher": "`lepton researcher enrol`"}


@dataclass(frozen=True)
class Enrolled:
    """Who was enrolled where."""

    name: str
    role: str
    address: str
    #: The member id in hex, and what people compare; empty for a person.
    member: str = ""
    fingerprint: str = ""


def load_invitation(path: Path) -> Invitation:
    """The invitation in a file that `lepton owner invite` or `lepton researcher invite` wrote.

    Raises:
        InputError: no such file, or not an invitation.
    """
    try:
        document = json.loads(path.read_bytes())
        text = {field.name: str(document[field.name]) for field in fields(Invitation) if field.name != "expires"}
        return Invitation(**text, expires=float(document["expires"]))
    except OSError as error:
        raise InputError("an invitation that cannot be read", where=str(path), got=error.strerror or "") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            "not an invitation",
            where=str(path),
            expected="the JSON file that `lepton owner invite` wrote",
            hint="ask the coordinator's operator for a new one",
        ) from None


def enrol_owner(invitation: Invitation, folder: Path) -> Enrolled:
    """Make a client's folder: protocol identity, TLS key and certificate, settings, and the card for the federation.

    An identity that is there already is kept, so that an interrupted enrolment can be repeated.

    Raises:
        ConflictError: a client is enrolled here.
        IdentityError: wrong CA, token, or role.
        FaultError: the coordinator cannot be reached, or the disk.
    """
    home = Home(folder)
    _require_role(invitation, _OWNER)
    _require_new(home.tls)
    _make_folder(folder)
    identity = load_identity(home) if home.identity.exists() else IdentityKey.generate(SystemRandomness())
    save_identity(home, identity, invitation.name)
    enrolled = enrol(invitation, home.tls, identity)
    save_settings(home, enrolled.name)
    return enrolled


def enrol(invitation: Invitation, folder: Path, identity: IdentityKey | None) -> Enrolled:
    """Make a P-256 key, have it certified, and save the endpoint's files in `folder`.

    With an identity it enrols a data owner, and proves that the identity is held; without one, a person.

    Raises:
        ConflictError: the folder holds credentials.
        IdentityError: a CA other than the invitation's fingerprint, a wrong, used or expired token.
        FaultError: the coordinator cannot be reached in time, or the disk.
    """
    _require_new(folder)
    _require_pinned_ca(invitation)
    if time.time() > invitation.expires:
        raise IdentityError(
            "the invitation has expired",
            where=f"invitation of {invitation.name}",
            hint="ask the coordinator's operator for a new one",
            reason="EXPIRED",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, invitation.name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certified = request_certificate(invitation, csr.public_bytes(Encoding.DER), identity)
    ca_certificate = invitation.ca_certificate.encode()
    _require_certificate_for(certified.certificate, key.public_key())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        save_endpoint(folder, Endpoint(invitation.address, ca_certificate, certified.certificate, pem))
    except OSError as error:
        raise FaultError("the credentials cannot be saved", where=str(folder), got=error.strerror or "") from None
    return Enrolled(
        name=certified.name,
        role=certified.role,
        address=invitation.address,
        member=identity.member.hex() if identity is not None else "",
        fingerprint=fingerprint(identity.public) if identity is not None else "",
    )


def ca_fingerprint(ca_certificate: bytes) -> str:
    """SHA-256 of the certificate's DER, lower-case hex.

    Raises:
        IdentityError: not a PEM certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(ca_certificate)
    except ValueError:
        raise IdentityError("the invitation's CA certificate cannot be read", where="ca_certificate") from None
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _require_pinned_ca(invitation: Invitation) -> None:
    pinned = invitation.ca_fingerprint.replace(":", "").replace(" ", "").lower()
    got = ca_fingerprint(invitation.ca_certificate.encode())
    if not hmac.compare_digest(pinned.encode(), got.encode()):
        raise IdentityError(
            "the CA certificate is not the one the invitation pins",
            where=f"invitation of {invitation.name}",
            expected=pinned,
            got=got,
            hint="somebody may have changed the file; ask the operator for the fingerprint by another way",
            reason="WRONG_CA",
        )


def _require_certificate_for(certificate: bytes, public: ec.EllipticCurvePublicKey) -> None:
    try:
        holds = x509.load_pem_x509_certificate(certificate).public_key() == public
    except ValueError:
        holds = False
    if not holds:
        raise IdentityError(
            "the coordinator certified another key than the one made here", where="coordinator", reason="WRONG_KEY"
        )


def _require_role(invitation: Invitation, role: str) -> None:
    if invitation.role != role:
        raise IdentityError(
            "an invitation for another role",
            where=f"invitation of {invitation.name}",
            expected=role,
            got=invitation.role,
            hint=f"use {_ENROL.get(invitation.role, 'another command')} for this invitation, or ask for one as {role}",
            reason="WRONG_ROLE",
        )


def _require_new(folder: Path) -> None:
    if (folder / "cert.pem").exists():
        raise ConflictError(
            "somebody is enrolled here already",
            where=str(folder),
            expected="a folder without credentials",
            hint="give another folder, or remove this one's credentials if they are revoked",
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise FaultError("the client's folder cannot be made", where=str(folder), got=error.strerror or "") from None
