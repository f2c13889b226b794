"""One process plays all members of a round: what one of them has verified need not be worked out for the next."""

from __future__ import annotations

import functools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lepton_core import identity

#: Signatures of the largest rounds: two a member, of 200 members.
_REMEMBERED = 4_096


@functools.lru_cache(maxsize=_REMEMBERED)
def _verify(public: bytes, signature: bytes, message: bytes) -> None:
    """As the library says; what raises is not remembered, so a wrong signature is looked at every time."""
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


class RememberedKey:
    """Ed25519PublicKey, as far as a signature is verified."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    @classmethod
    def from_public_bytes(cls, public: bytes) -> RememberedKey:
        Ed25519PublicKey.from_public_bytes(public)
        return cls(public)

    def verify(self, signature: bytes, message: bytes) -> None:
        _verify(self._public, signature, message)


@pytest.fixture(autouse=True)
def signatures_are_verified_once(monkeypatch):
    """The same key, signature and message are verified once a test, whoever asks."""
    monkeypatch.setattr(identity, "Ed25519PublicKey", RememberedKey)
    yield
    _verify.cache_clear()
