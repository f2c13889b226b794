"""One process plays all members of a round: what one of them has verified need not be worked out for the next."""

from __future__ import annotations

import functools

import pytest
from nacl.bindings import crypto_sign_open

from lepton_core import identity

#: Signatures of the largest rounds: two a member, of 200 members.
_REMEMBERED = 4_096


@functools.lru_cache(maxsize=_REMEMBERED)
def _open(signed: bytes, public: bytes) -> bytes:
    """As the library says; what raises is not remembered, so a wrong signature is looked at every time."""
    return crypto_sign_open(signed, public)


@pytest.fixture(autouse=True)
def signatures_are_verified_once(monkeypatch):
    """The same key, signature and message are verified once a test, whoever asks."""
    monkeypatch.setattr(identity, "crypto_sign_open", _open)
    yield
    _open.cache_clear()
