"""A masked input as bytes: little-endian 64-bit words, hashed, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np

from lepton_core.errors import CodecError
from lepton_core.ring import Words
from lepton_core.secagg.terms import Terms


def encode_payload(words: Words) -> bytes:
    """The words' bytes, 8 a word, little-endian; what is uploaded."""
    return words.astype("<u8", copy=False).tobytes()


def parse_payload(payload: bytes, terms: Terms) -> Words:
    """The words of an upload, shape (terms.words,), read-only.

    Raises:
        CodecError: the upload is not exactly as long as the terms say.
    """
    if len(payload) != terms.payload_bytes:
        raise CodecError(
            "an upload of the wrong length",
            expected=f"{terms.payload_bytes} bytes",
            got=f"{len(payload)} bytes",
            hint="the member's codec and the round's terms disagree; compare their versions",
        )
    return np.frombuffer(payload, dtype="<u8").astype(np.uint64, copy=False)


def payload_digest(words: Words) -> bytes:
    """SHA-256 of the payload, 32 bytes; what the trailer signs."""
    return hashlib.sha256(np.ascontiguousarray(words, dtype="<u8").data).digest()
