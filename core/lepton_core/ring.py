"""Integer lanes packed in 64-bit words: addition of words adds every lane, modulo 2^64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_core.errors import CodecError
from lepton_core.lane_widths import lanes_per_word, words_for

#: Packed words, shape (words,), uint64; sums are taken modulo 2^64.
Words = npt.NDArray[np.uint64]
#: One integer a value, shape (length,), int64.
Lanes = npt.NDArray[np.int64]

#: Widths at which a word's lanes, lowest first, are its bytes in memory as integers of that width.
_STORED: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4")}
#: Words packed at a time: their lanes are read once for each lane of a word, and stay in the cache until then.
_TILE = 2**14


def require_range(values: Lanes, bits: int, members: int) -> None:
    """Refuse values that the sum of `members` such vectors might not keep in their lanes; call it before noise.

    Raises:
        CodecError: not int64, or a value outside [0, (2^bits - 1) / members]; says how many, not where or what.
    """
    if values.dtype != np.int64:
        raise CodecError("lanes hold int64", expected="values rounded to int64", got=str(values.dtype))
    largest = (2**bits - 1) // members
    # Seen as unsigned, a negative value is larger than any lane.
    outside = int(np.count_nonzero(values.view(np.uint64) > np.uint64(largest)))
    if outside:
        raise CodecError(
            "values out of range",
            expected=f"0 to {largest}, so that the sum of {members} members fits a lane of {bits} bits",
            got=f"{outside} values outside",
        )


def pack(values: Lanes, bits: int) -> Words:
    """Values into words by the linear map sum_j v_j 2^(jb) mod 2^64; value i is lane i mod L of word i // L.

    The map is a homomorphism for integers of any sign and size; range is the caller's to check before noise.

    Raises:
        CodecError: not one-dimensional, not int64, or not a lane width.
    """
    if values.ndim != 1 or values.dtype != np.int64:
        raise CodecError("lanes must be a vector of int64", got=f"{values.dtype} of shape {values.shape}")
    per_word = lanes_per_word(bits)
    unsigned = values.view(np.uint64)
    if len(values) % per_word == 0:
        padded = unsigned
    else:
        padded = np.zeros(words_for(len(values), bits) * per_word, dtype=np.uint64)
        padded[: len(values)] = unsigned
    stored = _STORED.get(bits)
    if stored is not None and len(values) and int(unsigned.max()) < 2**bits:
        return padded.astype(stored).view("<u8").astype(np.uint64, copy=False)  # no carry: lanes are what memory holds
    grid = padded.reshape(-1, per_word)  # (words, lanes a word)
    words = np.empty(len(grid), dtype=np.uint64)
    for start in range(0, len(words), _TILE):
        tile, lanes = words[start : start + _TILE], grid[start : start + _TILE]
        tile[:] = lanes[:, per_word - 1]
        for lane in reversed(range(per_word - 1)):
            tile <<= np.uint64(bits)
            tile += lanes[:, lane]
    return words


def unpack(words: Words, bits: int, length: int) -> Lanes:
    """The lanes of words whose lane sums are all in [0, 2^bits); shape (length,), int64.

    Raises:
        CodecError: the words are not `words_for(length, bits)` many.
    """
    per_word = lanes_per_word(bits)
    if words.ndim != 1 or words.dtype != np.uint64 or len(words) != words_for(length, bits):
        raise CodecError(
            "packed words of another length",
            expected=f"{words_for(length, bits)} uint64",
            got=f"{words.dtype} of shape {words.shape}",
        )
    stored = _STORED.get(bits)
    if stored is not None:
        return words.astype("<u8", copy=False).view(stored)[:length].astype(np.int64)
    mask = np.uint64(2**bits - 1)
    grid = np.empty((len(words), per_word), dtype=np.uint64)
    for start in range(0, len(words), _TILE):
        rest, lanes = words[start : start + _TILE].copy(), grid[start : start + _TILE]
        for lane in range(per_word):
            np.bitwise_and(rest, mask, out=lanes[:, lane])
            rest >>= np.uint64(bits)
    return grid.reshape(-1)[:length].view(np.int64)
