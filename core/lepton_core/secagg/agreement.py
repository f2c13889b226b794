"""Keys of one round: drawn, derived, agreed on and used to seal shares, by `cryptography` and libsodium.

The masking secret and the self-mask seed are uniform field elements, so that Shamir can share them; the X25519 key
is derived from the masking secret by HKDF (RFC 5869). Every derivation's label names protocol, version and purpose.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from lepton_core.errors import InputError, PeerViolation
from lepton_core.ids import MemberId
from lepton_core.ports import Randomness
from lepton_core.secagg.shamir import draw_element, encode_element
from lepton_core.secagg.terms import labelled_hash

SECRET_BYTES = 32
TAG_BYTES = 16
#: Each AEAD key seals one message, so the nonce is constant (RFC 8439, section 4).
_NONCE = bytes(12)
_PRIME = 2**255 - 19
#: Points whose shared secret with anybody is zero: orders 1, 2, 4 and 8 on the curve and its twist, and those of them
#: that are written in a second way (Bernstein 2006, appendix; RFC 7748, section 7).
_LOW_ORDER = frozenset(
    {
        *(0, 1, _PRIME - 1, _PRIME, _PRIME + 1),
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


@dataclass(frozen=True, repr=False, eq=False)
class Secret:
    """32 secret bytes that no `repr`, log or error shows; compared in constant time.

    Dropped with the phase that holds it. Python cannot overwrite the memory.

    Raises:
        InputError: another number of bytes.
    """

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != SECRET_BYTES:  # libsodium would read beyond
            raise InputError("not a secret", expected=f"{SECRET_BYTES} bytes", got=f"{len(self.value)} bytes")

    def __repr__(self) -> str:
        return "Secret(<redacted>)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]  # a hash of a secret is a secret that dictionaries would keep


@dataclass(frozen=True)
class RoundSecrets:
    """What a member draws for one setup; shared out in step 1, dropped when its masks are derived in step 2."""

    #: Uniform field element; the X25519 masking key is derived from it.
    mask_secret: Secret
    #: X25519 private key for sealing shares; never shared.
    encryption_private: Secret
    #: Uniform field element; key of the self mask.
    seed: Secret


def draw_round_secrets(randomness: Randomness) -> RoundSecrets:
    """Fresh secrets: masking secret, encryption key and seed, drawn in that order."""
    return RoundSecrets(
        mask_secret=Secret(encode_element(draw_element(randomness))),
        encryption_private=Secret(randomness.token(SECRET_BYTES)),
        seed=Secret(encode_element(draw_element(randomness))),
    )


def derive_key(secret: Secret, label: bytes, *parts: bytes) -> Secret:
    """HKDF-SHA256 of the secret for one purpose: label and parts, each behind its length, are the info."""
    kdf = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=labelled_hash(label, *parts))
    return Secret(kdf.derive(secret.value))


def derive_mask_private(mask_secret: Secret, setup_id: bytes) -> Secret:
    """The X25519 private key behind `Advert.mask_public`."""
    return derive_key(mask_secret, b"lepton/secagg/v1/mask-private", setup_id)


def public_key(private: Secret) -> bytes:
    """The X25519 public key, 32 bytes."""
    return crypto_scalarmult_base(private.value)


def exchange(private: Secret, public: bytes, *, who: str) -> Secret:
    """The X25519 shared secret (RFC 7748); derive keys from it, never use it as one.

    Raises:
        PeerViolation: a key of another length or a low-order point, whose result anybody knows; names `who`.
    """
    if len(public) != SECRET_BYTES:  # libsodium would read beyond
        raise _bad_key(public, who)
    try:
        return Secret(crypto_scalarmult(private.value, public))
    except CryptoError:
        raise _bad_key(public, who) from None


def _bad_key(public: bytes, who: str) -> PeerViolation:
    return PeerViolation(
        "a public key that gives no secret",
        where=who,
        expected="32 bytes, not a point of low order",
        got=f"{len(public)} bytes that are refused",
        reason="BAD_KEY",
    )


def require_usable_key(public: bytes, *, who: str) -> None:
    """Refuse a public key with which no secret can be agreed: whoever tries would learn it only by an exchange.

    Raises:
        PeerViolation: names `who`.
    """
    if len(public) != SECRET_BYTES or int.from_bytes(public, "little") % 2**255 in _LOW_ORDER:  # the top bit is unused
        raise _bad_key(public, who)


def commit_seed(setup_id: bytes, member: MemberId, seed: Secret) -> bytes:
    """The commitment in `Advert.seed_commitment`: hiding, since the seed is uniform over 2^256 - 189 values."""
    return labelled_hash(b"lepton/secagg/v1/seed", setup_id, member, seed.value)


def seal(shared: Secret, setup_id: bytes, sender: MemberId, receiver: MemberId, plaintext: bytes) -> bytes:
    """ChaCha20-Poly1305 (RFC 8439) under the key of this setup and direction; call it once for each."""
    return _aead(shared, setup_id, sender, receiver).encrypt(_NONCE, plaintext, setup_id + sender + receiver)


def open_sealed(shared: Secret, setup_id: bytes, sender: MemberId, receiver: MemberId, ciphertext: bytes) -> bytes:
    """What `seal` sealed.

    Raises:
        PeerViolation: changed, of another setup, sender, receiver or direction; names the sender.
    """
    try:
        return _aead(shared, setup_id, sender, receiver).decrypt(_NONCE, ciphertext, setup_id + sender + receiver)
    except InvalidTag:
        raise PeerViolation(
            "sealed shares that do not open", where=f"member {sender.hex()}", reason="BAD_CIPHERTEXT"
        ) from None


def _aead(shared: Secret, setup_id: bytes, sender: MemberId, receiver: MemberId) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive_key(shared, b"lepton/secagg/v1/seal", setup_id, sender, receiver).value)
