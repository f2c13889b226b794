"""Masks: AES-256-CTR keystreams added to or taken from packed words, modulo 2^64.

Everything that knows how a mask is made is here, so that another kind (a key-homomorphic one) can take its place.
Word i of a mask is bytes 8i..8i+7 of the keystream, little-endian; the counter of a block is offset / 16, so any
slice of any mask is made on its own. Source: NIST SP 800-38A, section 6.5 (CTR), standard incrementing function over
all 128 bits. A key is used for one mask in one direction of one round: it is derived with sid, ids and lanes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from lepton_core.errors import CodecError
from lepton_core.ids import MemberId
from lepton_core.ring import Words
from lepton_core.secagg.agreement import Secret, derive_key
from lepton_core.secagg.terms import LaneGroup, Terms

Sign = Literal[1, -1]

#: 256 KiB of keystream, as many zeros and as many words stay in the second-level cache; one large temporary would not.
_BUFFER_BYTES = 256 * 2**10
_ZEROS = bytes(_BUFFER_BYTES)
#: A cipher's state is about 1 kB; a coordinator that removes 100,000 masks does so in portions.
_MASKS_AT_A_TIME = 512
_BLOCK_BYTES = 16


@dataclass(frozen=True)
class MaskStream:
    """One mask over one lane group, and the sign with which it is added."""

    group: int
    key: Secret
    sign: Sign


def pair_streams(shared: Secret, sid: bytes, me: MemberId, other: MemberId, terms: Terms) -> tuple[MaskStream, ...]:
    """What `me` adds for the pair with `other`, one stream a lane group; `other` adds the same with opposite signs."""
    low, high = sorted((me, other))
    sign: Sign = 1 if me == low else -1
    return _streams(shared, terms.lane_groups, sign, sid, b"pair", low, high)


def self_streams(seed: Secret, sid: bytes, me: MemberId, terms: Terms) -> tuple[MaskStream, ...]:
    """What `me` adds for itself, one stream a lane group."""
    return _streams(seed, terms.lane_groups, 1, sid, b"self", me)


def negated(streams: Iterable[MaskStream]) -> tuple[MaskStream, ...]:
    """The streams that take these away again."""
    return tuple(MaskStream(stream.group, stream.key, -1 if stream.sign == 1 else 1) for stream in streams)


def add_mask(words: Words, key: Secret, sign: Sign, start_word: int = 0) -> None:
    """Add (or subtract) words `start_word ..` of the key's mask to `words` in place, modulo 2^64.

    Raises:
        CodecError: not a writable one-dimensional vector of uint64.
    """
    add_masks(words, ((key, sign),), start_word)


def add_masks(words: Words, masks: Sequence[tuple[Secret, Sign]], start_word: int = 0) -> None:
    """`add_mask` for each key and sign; all masks of one slice before the next, so that the slice stays in the cache.

    Raises:
        CodecError: as `add_mask`.
    """
    if words.ndim != 1 or words.dtype != np.uint64 or not words.flags.writeable or start_word < 0:
        raise CodecError("masks are added to a writable vector of uint64", got=f"{words.dtype}, shape {words.shape}")
    buffer = bytearray(min(_BUFFER_BYTES, 8 * len(words)))
    for first in range(0, len(masks), _MASKS_AT_A_TIME):
        streams = [
            (_encryptor_at(key, start_word), np.add if sign == 1 else np.subtract)
            for key, sign in masks[first : first + _MASKS_AT_A_TIME]
        ]
        for start in range(0, len(words), _BUFFER_BYTES // 8):
            part = words[start : start + _BUFFER_BYTES // 8]
            zeros, into = memoryview(_ZEROS)[: 8 * len(part)], memoryview(buffer)[: 8 * len(part)]
            keystream = np.frombuffer(into, dtype="<u8")
            for encryptor, operation in streams:
                encryptor.update_into(zeros, into)
                operation(part, keystream, out=part)


def _encryptor_at(key: Secret, start_word: int) -> CipherContext:
    block, skipped_words = divmod(start_word, _BLOCK_BYTES // 8)
    encryptor = Cipher(AES256(key.value), CTR(block.to_bytes(_BLOCK_BYTES, "big"))).encryptor()
    encryptor.update(_ZEROS[: 8 * skipped_words])
    return encryptor


def add_streams(words: Words, streams: Sequence[MaskStream], terms: Terms) -> None:
    """Add every stream to its lane group of a whole packed vector, in place."""
    for index, group in enumerate(split_groups(words, terms)):
        add_masks(group, masks_of(streams, index))


def masks_of(streams: Iterable[MaskStream], group: int) -> list[tuple[Secret, Sign]]:
    """Key and sign of each stream over one lane group."""
    return [(stream.key, stream.sign) for stream in streams if stream.group == group]


def split_groups(words: Words, terms: Terms) -> list[Words]:
    """Views of the packed vector's lane groups, in order.

    Raises:
        CodecError: the vector is not as long as the terms say.
    """
    if words.ndim != 1 or words.dtype != np.uint64 or len(words) != terms.words:
        raise CodecError(
            "packed words that do not fit the terms",
            expected=f"{terms.words} uint64",
            got=f"{words.dtype} of shape {words.shape}",
        )
    parts: list[Words] = []
    start = 0
    for group in terms.lane_groups:
        parts.append(words[start : start + group.words])
        start += group.words
    return parts


def _streams(
    secret: Secret, groups: Sequence[LaneGroup], sign: Sign, sid: bytes, kind: bytes, *members: MemberId
) -> tuple[MaskStream, ...]:
    return tuple(
        MaskStream(
            index,
            derive_key(
                secret,
                b"lepton/secagg/v1/mask",
                sid,
                kind,
                *members,
                index.to_bytes(4, "big"),
                group.bits.to_bytes(4, "big"),
            ),
            sign,
        )
        for index, group in enumerate(groups)
    )
