"""A member's long-lived protocol identity: an Ed25519 key apart from its TLS key, unchanged by certificate renewal.

Signatures are made and verified by libsodium (Bernstein et al. 2012, RFC 8032), which takes half to two thirds of
OpenSSL's time, and refuses keys and points of small order and numbers that are not reduced: nobody can make a second
signature of one. A round's verifications are the largest part of what its messages cost.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from lepton_core.errors import IdentityError
from lepton_core.ids import MemberId, derive_member_id
from lepton_core.ports import Randomness

IDENTITY_BYTES = 32
SIGNATURE_BYTES = 64


class IdentityKey:
    """An Ed25519 signing key; its `repr` shows the public half only.

    Made by `generate` or `from_pem`. Equal keys give equal signatures (RFC 8032 is deterministic).
    """

    __slots__ = ("_key", "_signing", "member", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        #: Raw public key, 32 bytes, and what libsodium signs with.
        self.public, self._signing = crypto_sign_seed_keypair(key.private_bytes_raw())
        #: The id derived from the public key, 16 bytes.
        self.member: MemberId = derive_member_id(self.public)

    @classmethod
    def generate(cls, randomness: Randomness) -> IdentityKey:
        """A fresh key."""
        return cls(Ed25519PrivateKey.from_private_bytes(randomness.token(IDENTITY_BYTES)))

    @classmethod
    def from_pem(cls, pem: bytes) -> IdentityKey:
        """The key in an unencrypted PKCS #8 PEM.

        Raises:
            IdentityError: not a PEM private key, or not Ed25519.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise IdentityError(
                "an identity key that cannot be read", expected="an unencrypted PKCS #8 PEM with an Ed25519 key"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError("an identity key of another kind", expected="Ed25519", got=type(key).__name__)
        return cls(key)

    def to_pem(self) -> bytes:
        """Unencrypted PKCS #8 PEM; whoever reads it is this member. The caller keeps the file private (0600)."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        """The signature over the message, 64 bytes."""
        return crypto_sign(message, self._signing)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"IdentityKey(member={self.member.hex()}, private=<redacted>)"


def require_signature(public: bytes, signature: bytes, message: bytes, *, who: str, what: str) -> None:
    """Refuse a message that the holder of `public` did not sign.

    Raises:
        IdentityError: the key is malformed, or the signature is not over this message; `who` is named.
    """
    try:
        if (len(public), len(signature)) != (IDENTITY_BYTES, SIGNATURE_BYTES):  # libsodium would read beyond
            raise BadSignatureError
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        raise IdentityError(
            f"the signature on the {what} does not hold",
            where=who,
            expected="an Ed25519 signature of the identity over exactly this content",
            got=f"{len(signature)} bytes that do not verify",
            reason="BAD_SIGNATURE",
        ) from None


def fingerprint(public: bytes) -> str:
    """What people compare by eye or voice: the member id (128 bits of SHA-256) in groups of four hex digits."""
    digits = derive_member_id(public).hex()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))
