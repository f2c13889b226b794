"""The randomized Hadamard rotation: a stride interleave, seeded signs, then orthonormal Hadamard blocks.

It makes the values of any vector look Gaussian with one public standard deviation, so that one public scale serves
all. A vector of P = 4096 m + T values, T < 4096, is cut into a tail of T values and m blocks of 4096:

- the tail takes every (P // T)-th coordinate from a seeded offset, is permuted, and is cut into blocks of descending
  powers of two, the binary digits of T, down to 16; so padding stays under 16 values;
- the rest is read as a grid of 4096 rows and m columns and signed; each column is a block, so that the stride spreads
  neighbours over all blocks;
- columns are mixed, so that neither an outlier nor a structure of period m, such as a hot input of a square layer,
  stays in one block: with s = 16 (4 for m < 16, none for m < 4) and w = m // s, an s x s Hadamard factor joins
  s neighbouring columns throughout the first s w, all are signed again, and another joins s columns at stride w
  throughout the last s w. One value is spread over up to 2^20.

Seed material is one Philox stream: ceil(P / 64) words of signs (value i's sign is bit i mod 64 of word i // 64; 1 is
minus), ceil(4096 m / 64) words of second signs if columns are mixed, 1 word of the tail's offset, T words of the
tail's sorting keys; the offset is its word modulo P // T.

Guarantees: linear and orthonormal. On float64 integers below 2^33 the grid is exact, and every other block is exact
but for one multiplication by a constant: the result is the same on every machine, compiled or in numpy.

Source: Ailon & Chazelle 2009; Suresh et al. 2017, section 3, for rotated quantization of updates.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lepton_compression.native import load_kernels
from lepton_compression.update.plan import LARGEST_BLOCK, SMALLEST_BLOCK
from lepton_compression.update.streams import philox_words
from lepton_core.errors import CodecError

F = TypeVar("F", np.float32, np.float64)

_LABEL = b"lepton/codec/v1/rotation"
#: Side of a Hadamard factor; 4096 = 16^3.
_FACTOR = 16
#: Blocks transformed at a time: wide enough for BLAS to run at speed, and still too small for its threads, which would
#: spin against each other on a shared machine.
_COLUMNS = 512
#: Values and rows mixed at a time: two temporaries of 256 KiB at float32, and again no BLAS threads.
_MIXED = 2**16
_MIXED_ROWS = 512


class Rotation:
    """The rotation of one seed and length; `forward` and `inverse` are each other's inverse and never alter input."""

    def __init__(self, seed: bytes, length: int) -> None:
        """Draw the signs and places.

        Raises:
            CodecError: a length that is not a positive multiple of 16.
        """
        if length < SMALLEST_BLOCK or length % SMALLEST_BLOCK:
            raise CodecError(
                "a length that cannot be rotated", expected=f"a positive multiple of {SMALLEST_BLOCK}", got=str(length)
            )
        self._length = length
        self._blocks, self._tail_length = divmod(length, LARGEST_BLOCK)
        self._mixed = 0 if self._blocks < 4 else 4 if self._blocks < _FACTOR else _FACTOR
        sign_words = -(-length // 64)
        second_words = self._blocks * LARGEST_BLOCK // 64 if self._mixed else 0
        words = philox_words(_LABEL, seed, sign_words + second_words + 1 + self._tail_length)
        cut, end = self._blocks * LARGEST_BLOCK // 64, sign_words + second_words
        #: By place in the grid, a bit a value: before mixing, and between the two mixing steps.
        self._sign_words, self._second_words = words[:cut], words[sign_words:end]
        self._tail_signs = _unpack_signs(words[cut:sign_words], self._tail_length)
        self._tail_stride = length // self._tail_length if self._tail_length else 0
        self._tail_offset = int(words[end]) % self._tail_stride if self._tail_length else 0
        self._tail_order = np.argsort(words[end + 1 :], kind="stable")

    def forward(self, vector: npt.NDArray[F]) -> npt.NDArray[F]:
        """The rotated vector, shape (length,), of the same float type."""
        self._require(vector)
        head, tail = self._split(vector)
        out = np.empty_like(vector)
        cut = self._blocks * LARGEST_BLOCK
        if self._blocks:
            grid = out[:cut].reshape(LARGEST_BLOCK, self._blocks)
            self._mix(head, grid)
            _transform_grid(grid)
        np.multiply(tail[self._tail_order], self._tail_signs, out=out[cut:])
        _transform_tail(out[cut:])
        return out

    def inverse(self, rotated: npt.NDArray[F]) -> npt.NDArray[F]:
        """The vector that `forward` would turn into this one, shape (length,), of the same float type."""
        self._require(rotated)
        cut = self._blocks * LARGEST_BLOCK
        grid = rotated[:cut].reshape(LARGEST_BLOCK, self._blocks).copy()
        if self._blocks:
            _transform_grid(grid)
        blocks = rotated[cut:].copy()
        _transform_tail(blocks)
        tail = np.empty_like(blocks)
        tail[self._tail_order] = blocks * self._tail_signs
        return self._join(self._unmix(grid), tail)

    def _split(self, vector: npt.NDArray[F]) -> tuple[npt.NDArray[F], npt.NDArray[F]]:
        """The vector without its tail coordinates, and these."""
        if not self._tail_length:
            return vector, vector[:0]
        head = np.empty(self._length - self._tail_length, dtype=vector.dtype)
        rows, head_rows, end, head_end = self._rows(vector, head)
        head_rows[:, : self._tail_offset] = rows[:, : self._tail_offset]
        head_rows[:, self._tail_offset :] = rows[:, self._tail_offset + 1 :]
        head[head_end:] = vector[end:]
        return head, rows[:, self._tail_offset]

    def _join(self, head: npt.NDArray[F], tail: npt.NDArray[F]) -> npt.NDArray[F]:
        """The vector that `_split` takes apart into these."""
        if not self._tail_length:
            return head
        vector = np.empty(self._length, dtype=head.dtype)
        rows, head_rows, end, head_end = self._rows(vector, head)
        rows[:, : self._tail_offset] = head_rows[:, : self._tail_offset]
        rows[:, self._tail_offset + 1 :] = head_rows[:, self._tail_offset :]
        rows[:, self._tail_offset] = tail
        vector[end:] = head[head_end:]
        return vector

    def _rows(self, vector: npt.NDArray[F], head: npt.NDArray[F]) -> tuple[npt.NDArray[F], npt.NDArray[F], int, int]:
        """Views of vector and head with one tail coordinate a row, and the ends of what the views cover."""
        end, head_end = self._tail_length * self._tail_stride, self._tail_length * (self._tail_stride - 1)
        shape = (self._tail_length, self._tail_stride)
        return vector[:end].reshape(shape), head[:head_end].reshape(shape[0], shape[1] - 1), end, head_end

    def _mix(self, head: npt.NDArray[F], out: npt.NDArray[F]) -> None:
        """The head signed and its columns mixed, into `out` of shape (4096, m)."""
        grid, kernels = head.reshape(out.shape), load_kernels()
        if kernels is not None:
            if self._mixed:
                kernels.mix(grid, self._sign_words, self._second_words, out, self._mixed)
            else:
                kernels.turn(grid, self._sign_words, out)
            return
        signs, second_signs = self._unpacked_signs()
        if not self._mixed:
            np.multiply(grid, signs, out=out)
            return
        factor = _hadamard(self._mixed, head.dtype, scale=self._mixed**-0.5)
        for rows in self._row_slices():
            signed = grid[rows] * signs[rows]
            joined = signed.copy()
            np.matmul(self._neighbours(signed), factor, out=self._neighbours(joined))
            joined *= second_signs[rows]
            out[rows] = joined
            np.matmul(factor, self._strided(joined), out=self._strided(out[rows]))

    def _unmix(self, grid: npt.NDArray[F]) -> npt.NDArray[F]:
        """The head that `_mix` makes into this, shape (4096 m,)."""
        head, kernels = np.empty_like(grid), load_kernels()
        if kernels is not None:
            if self._mixed:
                kernels.unmix(grid, self._sign_words, self._second_words, head, self._mixed)
            else:
                kernels.turn(grid, self._sign_words, head)
            return head.reshape(-1)
        signs, second_signs = self._unpacked_signs()
        if not self._mixed:
            np.multiply(grid, signs, out=head)
            return head.reshape(-1)
        factor = _hadamard(self._mixed, grid.dtype, scale=self._mixed**-0.5)
        for rows in self._row_slices():
            joined = grid[rows].copy()
            np.matmul(factor, self._strided(grid[rows]), out=self._strided(joined))
            joined *= second_signs[rows]
            signed = joined.copy()
            np.matmul(self._neighbours(joined), factor, out=self._neighbours(signed))
            np.multiply(signed, signs[rows], out=head[rows])
        return head.reshape(-1)

    def _unpacked_signs(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """1 or -1 by place before mixing, and between the two mixing steps if columns are mixed; shape (4096, m)."""
        shape = (LARGEST_BLOCK, self._blocks)
        signs, second = (_unpack_signs(words, 64 * len(words)) for words in (self._sign_words, self._second_words))
        return signs.reshape(shape), second.reshape(shape) if self._mixed else second

    def _row_slices(self) -> list[slice]:
        """Slices of at most `_MIXED_ROWS` rows that hold about `_MIXED` values each."""
        step = min(max(1, _MIXED // self._blocks), _MIXED_ROWS)
        return [slice(start, start + step) for start in range(0, LARGEST_BLOCK, step)]

    def _neighbours(self, rows: npt.NDArray[F]) -> npt.NDArray[F]:
        """A view of the first s w columns as (w, rows, s)."""
        width = self._blocks // self._mixed
        return rows[:, : width * self._mixed].reshape(len(rows), width, self._mixed).transpose(1, 0, 2)

    def _strided(self, rows: npt.NDArray[F]) -> npt.NDArray[F]:
        """A view of the last s w columns as (rows, s, w)."""
        width = self._blocks // self._mixed
        return rows[:, self._blocks - width * self._mixed :].reshape(len(rows), self._mixed, width)

    def _require(self, vector: npt.NDArray[F]) -> None:
        if vector.shape != (self._length,):
            raise CodecError("a vector of another length", expected=f"({self._length},)", got=str(vector.shape))


@lru_cache(maxsize=2)
def rotation_of(seed: bytes, length: int) -> Rotation:
    """The rotation of a round's seed, which is asked for when an update is encoded and when the sum is decoded."""
    return Rotation(seed, length)


def _unpack_signs(words: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int8]:
    """1 for each bit that is 0 and -1 for each that is 1, lowest bit first; shape (count,)."""
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=count, bitorder="little")
    signs = bits.view(np.int8)
    np.negative(signs, out=signs)
    np.bitwise_or(signs, 1, out=signs)  # numpy multiplies octets one by one
    return signs


def _tail_blocks(length: int) -> list[int]:
    """The binary digits of a multiple of 16 below 4096, largest first."""
    return [1 << bit for bit in reversed(range(length.bit_length())) if length >> bit & 1]


def _transform_grid(grid: npt.NDArray[F]) -> None:
    """The orthonormal Hadamard transform of each column of (4096, m), in place."""
    kernels = load_kernels()
    if kernels is not None:
        kernels.transform(grid)
        return
    factor = _hadamard(_FACTOR, grid.dtype, scale=0.25)  # three make 1 / sqrt(4096), exactly
    first = np.empty((LARGEST_BLOCK, min(_COLUMNS, grid.shape[1])), dtype=grid.dtype)
    second = np.empty_like(first)
    for start in range(0, grid.shape[1], _COLUMNS):
        columns = grid[:, start : start + _COLUMNS]
        one, two = first[:, : columns.shape[1]], second[:, : columns.shape[1]]
        np.matmul(factor, columns.reshape(256, 16, -1), out=one.reshape(256, 16, -1))
        np.matmul(factor, _middle(one), out=_middle(two))
        np.matmul(factor, _outer(two), out=_outer(columns))


def _middle(grid: npt.NDArray[F]) -> npt.NDArray[F]:
    """A view of (4096, columns) as (16, 16, 16, columns) whose third axis is the middle digit of the row."""
    return grid.reshape(16, 16, 16, grid.shape[1]).transpose(0, 2, 1, 3)


def _outer(grid: npt.NDArray[F]) -> npt.NDArray[F]:
    """A view of (4096, columns) as (256, 16, columns) whose second axis is the highest digit of the row."""
    return grid.reshape(16, 256, grid.shape[1]).transpose(1, 0, 2)


def _transform_tail(tail: npt.NDArray[F]) -> None:
    """The orthonormal Hadamard transform of each of a tail's blocks, in place."""
    kernels = load_kernels()
    if kernels is not None:
        kernels.blocks(tail)
        return
    start = 0
    for size in _tail_blocks(len(tail)):
        tail[start : start + size] = _transform_block(tail[start : start + size])
        start += size


def _transform_block(block: npt.NDArray[F]) -> npt.NDArray[F]:
    """The orthonormal Hadamard transform of one block of 16 to 2048 values."""
    size = len(block)
    high = size // _FACTOR
    while high > _FACTOR:
        high //= _FACTOR
    grid = block.reshape(high, -1)
    transformed = _hadamard(high, block.dtype) @ grid  # (high, size // high)
    if size > high * _FACTOR:
        transformed = _hadamard(_FACTOR, block.dtype) @ transformed.reshape(high, _FACTOR, -1)
    spread = np.empty((size // _FACTOR, _FACTOR), dtype=block.dtype)
    np.matmul(transformed.reshape(-1, _FACTOR), _hadamard(_FACTOR, block.dtype), out=spread)
    spread *= 1.0 / math.sqrt(size)
    return spread.reshape(-1)


def _hadamard(size: int, dtype: np.dtype[F], scale: float = 1.0) -> npt.NDArray[F]:
    """Sylvester's matrix of `scale` and -`scale`, shape (size, size), read-only."""
    made: npt.NDArray[F] = _make_hadamard(size, dtype, scale)
    return made


@lru_cache(maxsize=64)
def _make_hadamard(size: int, dtype: np.dtype[Any], scale: float) -> npt.NDArray[Any]:
    matrix: npt.NDArray[np.int8] = np.ones((1, 1), dtype=np.int8)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: npt.NDArray[Any] = (matrix * scale).astype(dtype)
    scaled.setflags(write=False)
    return scaled
