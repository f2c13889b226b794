"""Reproducible streams from 32-byte seeds: public ones everybody derives alike, and a member's own rounding bits.

Two generators, both counter-based with a defined byte order, so that no version of numpy and no machine changes them:

- Philox4x64-10 (Salmon et al. 2011), words in the order of `numpy.random.Philox.random_raw`, counter 0 first;
- AES-256-CTR with a zero initial counter, its keystream read as little-endian integers.

Keys are SHA-256(label || seed); Philox takes the first 16 bytes as one little-endian 128-bit integer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from lepton_compression.update.plan import SEED_BYTES
from lepton_core.errors import CodecError

#: Values handled at a time where a whole temporary would leave the cache; 64 Ki float32 are 256 KiB.
CHUNK = 2**16


def require_seed(seed: bytes, what: str) -> bytes:
    """The seed if it is 32 bytes.

    Raises:
        CodecError: it is not; the message never holds the seed.
    """
    if len(seed) != SEED_BYTES:
        raise CodecError(f"not a {what}", where=what, expected=f"{SEED_BYTES} bytes", got=f"{len(seed)} bytes")
    return seed


def derive_key(label: bytes, seed: bytes) -> bytes:
    """SHA-256(label || seed); 32 bytes."""
    return hashlib.sha256(label + seed).digest()


def derive_dither(seed: bytes, member: bytes) -> bytes:
    """A member's public dither for the round of this seed; 32 bytes. The server derives the same to subtract it.

    Raises:
        CodecError: a seed that is not 32 bytes.
    """
    return derive_key(b"lepton/codec/v2/dither", require_seed(seed, "codec seed") + member)


def dither_offset(dither: bytes) -> int:
    """What a member adds to the round's common dither words, modulo 2^16: the first two bytes of its own dither.

    Any two members' dithers are independent at each value, as two streams would be, but the decoder reads one stream
    however many members there are.

    Raises:
        CodecError: a dither that is not 32 bytes.
    """
    return int.from_bytes(require_seed(dither, "dither")[:2], "little")


def dither_words(seed: bytes, count: int) -> Iterator[npt.NDArray[np.uint16]]:
    """The common dither words of the round of this seed, one a value, in pieces of at most `CHUNK`."""
    return keystream_uint16(derive_key(b"lepton/codec/v2/dither-words", seed), count)


def philox_words(label: bytes, seed: bytes, count: int) -> npt.NDArray[np.uint64]:
    """The first `count` words of the Philox stream of this label and seed."""
    generator = np.random.Philox(key=int.from_bytes(derive_key(label, seed)[:16], "little"))
    return generator.random_raw(count)


def keystream_words(label: bytes, seed: bytes, count: int) -> Iterator[npt.NDArray[np.uint64]]:
    """The first `count` 64-bit words of the AES stream of this label and seed, in pieces of at most `CHUNK`."""
    encryptor = _encryptor(derive_key(label, seed))
    for start in range(0, count, CHUNK):
        yield np.frombuffer(encryptor.update(bytes(8 * min(CHUNK, count - start))), dtype="<u8")


def keystream_uint16(key: bytes, count: int) -> Iterator[npt.NDArray[np.uint16]]:
    """The first `count` 16-bit words of the AES stream of this key, in pieces of at most `CHUNK`."""
    encryptor = _encryptor(key)
    for start in range(0, count, CHUNK):
        yield np.frombuffer(encryptor.update(bytes(2 * min(CHUNK, count - start))), dtype="<u2")


class SecretKeystream:
    """64-bit words of the AES-256-CTR stream of a secret key, as many as are asked for, none twice."""

    def __init__(self, key: bytes) -> None:
        """Start the stream.

        Raises:
            CodecError: a key that is not 32 bytes.
        """
        self._stream = _encryptor(require_seed(key, "key of a secret stream"))

    def __repr__(self) -> str:
        return "SecretKeystream(<secret>)"

    def __call__(self, count: int) -> npt.NDArray[np.uint64]:
        """The next `count` words, shape (count,), uniform."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")


def _encryptor(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
