"""The coordinator's certificate authority for TLS: P-256, and a role and a name in every certificate it issues.

It vouches for channels only. Who may be a peer in secure aggregation is the federation's signed list, which this
authority cannot change.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lepton_core.errors import IdentityError, InputError
from lepton_core.ids import require_name

DAY_S = 86_400.0
#: A certificate of a person or a daemon; long enough that a site on holiday need not be invited anew.
PARTY_DAYS = 90
#: The coordinator's and other services' own certificates; `serve` renews them in their last third.
SERVICE_DAYS = 365
AUTHORITY_DAYS = 3_650
#: Clients' clocks may be late by this much and still accept a new server certificate.
_SERVER_BACKDATE_S = 3_600.0
_LONGEST_CSR_BYTES = 16_384
_SUBJECT = re.compile(r"lepton://([a-z]+)/([a-z0-9-]{1,63})")


@dataclass(frozen=True)
class Subject:
    """Whom a certificate names; in it as the URI `lepton://<role>/<name>`."""

    role: str
    name: str

    @property
    def uri(self) -> str:
        """The subject alternative name."""
        return f"lepton://{self.role}/{self.name}"


@dataclass(frozen=True)
class IssuedCertificate:
    """A certificate and what is kept about it."""

    #: PEM.
    certificate: bytes
    #: Hex.
    serial: str
    #: SHA-256 of the DER, hex.
    fingerprint: str
    expires: float


@dataclass(frozen=True)
class KeyPair:
    """A private key and its public half; the private one is not shown."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> KeyPair:
        """A fresh P-256 key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, *, source: str) -> KeyPair:
        """The key in an unencrypted PEM.

        Raises:
            InputError: not a P-256 key.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise InputError("a private key that cannot be read", where=source, expected="an unencrypted PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InputError("a private key of another kind", where=source, expected="P-256", got=type(key).__name__)
        return cls(key)

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self.private.public_key()

    def to_pem(self) -> bytes:
        """Unencrypted PKCS #8; the caller keeps the file private."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class CertificateAuthority:
    """Issues certificates. Made by `make_ca` or `load_ca`."""

    #: PEM.
    certificate: bytes
    keys: KeyPair = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CA certificate's DER, hex: what an invitation pins."""
        return fingerprint_of(self.certificate)

    def issue(
        self,
        public: ec.EllipticCurvePublicKey,
        subject: Subject,
        *,
        now: float,
        valid_s: float,
        hosts: Sequence[str] = (),
    ) -> IssuedCertificate:
        """A certificate for the holder of the key; with `hosts`, one that a server can show as well.

        Valid from the second of `now` on, an hour earlier for servers, whose clients have other clocks.

        Raises:
            InputError: a name that is no id, or a host that is neither name nor address.
        """
        require_name(subject.name, "certificate name")
        issuer = x509.load_pem_x509_certificate(self.certificate)
        starts = datetime.fromtimestamp(math.floor(now - (_SERVER_BACKDATE_S if hosts else 0.0)), UTC)
        ends = datetime.fromtimestamp(math.floor(now + valid_s), UTC)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(subject.uri), *map(_host, hosts)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_common_name(subject.name))
            .issuer_name(issuer.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(starts)
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.keys.public), critical=False)
            .sign(self.keys.private, SHA256())
        )
        return IssuedCertificate(
            certificate=certificate.public_bytes(Encoding.PEM),
            serial=f"{certificate.serial_number:x}",
            fingerprint=certificate.fingerprint(SHA256()).hex(),
            expires=ends.timestamp(),
        )


def make_ca(*, now: float) -> CertificateAuthority:
    """A fresh authority with its own key, for one coordinator."""
    keys = KeyPair.generate()
    name = _common_name("lepton coordinator CA")
    start = datetime.fromtimestamp(math.floor(now - _SERVER_BACKDATE_S), UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(keys.public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys.public), critical=False)
        .sign(keys.private, SHA256())
    )
    return CertificateAuthority(certificate.public_bytes(Encoding.PEM), keys)


def parse_csr(der: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a signing request whose sender holds it; the names in the request are not looked at.

    Raises:
        IdentityError: not a PKCS #10 request, another kind of key, or not signed by that key.
    """
    expected = "a PKCS #10 request (DER) for a P-256 key, signed by that key"
    try:
        if len(der) > _LONGEST_CSR_BYTES:
            raise ValueError("too long")
        request = x509.load_der_x509_csr(der)
        public = request.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise TypeError("another kind of key")
        if not request.is_signature_valid:
            raise InvalidSignature
    except (ValueError, TypeError, InvalidSignature, x509.InvalidVersion) as error:
        raise IdentityError(
            "a certificate request that does not hold",
            where="csr",
            expected=expected,
            got=f"{len(der)} bytes, {type(error).__name__}",
            reason="BAD_CSR",
        ) from None
    return public


def subject_of(certificate: x509.Certificate) -> Subject:
    """Whom a certificate of this authority names.

    Raises:
        IdentityError: it names nobody.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    for uri in uris:
        match = _SUBJECT.fullmatch(uri)
        if match:
            return Subject(match[1], match[2])
    raise IdentityError("a certificate that names nobody", expected="a subject such as lepton://owner/aurora")


def fingerprint_of(pem: bytes) -> str:
    """SHA-256 of the certificate's DER, hex."""
    return x509.load_pem_x509_certificate(pem).fingerprint(SHA256()).hex()


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise InputError(
            "not a host", where="hosts", expected="a DNS name in ASCII, or an IP address", got=host
        ) from None


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
