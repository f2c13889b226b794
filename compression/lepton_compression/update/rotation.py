"""The randomized Hadamard rotation: seeded signs, a seeded interleave, then orthonormal Hadamard blocks.

It makes the values of any vector look Gaussian with one public standard deviation, so that one public scale serves
all. A vector of P = 4096 m + T values, T < 4096, is cut into a tail of T values and m blocks of 4096:

- the tail takes every (P // T)-th coordinate from a seeded offset, is permuted, and is cut into blocks of descending
  powers of two, the binary digits of T, down to 16; so padding stays under 16 values;
- the rest is read as a grid of 4096 rows and m columns; rows are taken in 256 groups of 16, each group is turned by a
  seeded number of columns, and each column is a block. The stride spreads neighbours over all blocks, and the turns
  keep a structure of period m, such as a hot input of a square layer, from falling into one block.

Seed material is one Philox stream: ceil(P / 64) words of signs (value i's sign is bit i mod 64 of word i // 64; 1 is
minus), 256 words of turns, 1 word of the tail's offset, T words of the tail's sorting keys; words are taken modulo
the number of choices.

Guarantees: linear and orthonormal. On float64 integers whose transform stays below 2^53, blocks of 4096 are exact, and
every other block is exact but for one multiplication by a constant: the result is the same on every machine.

Source: Ailon & Chazelle 2009; Suresh et al. 2017, section 3, for rotated quantization of updates.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lepton_compression.update.plan import LARGEST_BLOCK, SMALLEST_BLOCK
from lepton_compression.update.streams import philox_words
from lepton_core.errors import CodecError

F = TypeVar("F", np.float32, np.float64)

_LABEL = b"lepton/codec/v1/rotation"
#: Side of a Hadamard factor; 4096 = 16^3.
_FACTOR = 16
_GROUPS = LARGEST_BLOCK // _FACTOR
#: Blocks transformed at a time: two temporaries of 1 MiB at float32, and matrix products too small for BLAS threads,
#: which would spin against each other on a shared machine.
_COLUMNS = 64


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
        sign_words = -(-length // 64)
        words = philox_words(_LABEL, seed, sign_words + _GROUPS + 1 + self._tail_length)
        signs, turns, offset, keys = np.split(words, np.cumsum([sign_words, _GROUPS, 1]))
        bits = np.unpackbits(signs.astype("<u8").view(np.uint8), count=length, bitorder="little")
        #: 1 or -1 by place in the rotated vector, shape (length,).
        self._signs: npt.NDArray[np.int8] = 1 - 2 * bits.view(np.int8)
        self._turns = [int(word) % max(self._blocks, 1) for word in turns]
        self._tail_stride = length // self._tail_length if self._tail_length else 0
        self._tail_offset = int(offset[0]) % self._tail_stride if self._tail_length else 0
        self._tail_order = np.argsort(keys, kind="stable")

    def forward(self, vector: npt.NDArray[F]) -> npt.NDArray[F]:
        """The rotated vector, shape (length,), of the same float type."""
        self._require(vector)
        head, tail = self._split(vector)
        out = np.empty_like(vector)
        cut = self._blocks * LARGEST_BLOCK
        if self._blocks:
            grid = out[:cut].reshape(LARGEST_BLOCK, self._blocks)
            self._turn(head, grid)
            _transform_grid(grid, grid)
        signed = tail[self._tail_order] * self._signs[cut:]
        start = 0
        for size in _tail_blocks(self._tail_length):
            out[cut + start : cut + start + size] = _transform_block(signed[start : start + size])
            start += size
        return out

    def inverse(self, rotated: npt.NDArray[F]) -> npt.NDArray[F]:
        """The vector that `forward` would turn into this one, shape (length,), of the same float type."""
        self._require(rotated)
        cut = self._blocks * LARGEST_BLOCK
        grid = np.empty((LARGEST_BLOCK, self._blocks), dtype=rotated.dtype)
        if self._blocks:
            _transform_grid(rotated[:cut].reshape(LARGEST_BLOCK, self._blocks), grid)
        tail = np.empty(self._tail_length, dtype=rotated.dtype)
        start = 0
        for size in _tail_blocks(self._tail_length):
            block = _transform_block(rotated[cut + start : cut + start + size])
            places = self._tail_order[start : start + size]
            tail[places] = block * self._signs[cut + start : cut + start + size]
            start += size
        return self._join(self._turn_back(grid), tail)

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

    def _turn(self, head: npt.NDArray[F], out: npt.NDArray[F]) -> None:
        """The head with its groups of rows turned, and signed, into `out` of shape (4096, m)."""
        grid = head.reshape(_GROUPS, _FACTOR, self._blocks)
        signs = self._signs[: head.size].reshape(grid.shape)
        turned = out.reshape(grid.shape)
        for group, turn in enumerate(self._turns):
            split = self._blocks - turn
            np.multiply(grid[group, :, turn:], signs[group, :, :split], out=turned[group, :, :split])
            np.multiply(grid[group, :, :turn], signs[group, :, split:], out=turned[group, :, split:])

    def _turn_back(self, turned: npt.NDArray[F]) -> npt.NDArray[F]:
        """The head that `_turn` makes into this, shape (4096 m,)."""
        grid = turned.reshape(_GROUPS, _FACTOR, self._blocks)
        signs = self._signs[: turned.size].reshape(grid.shape)
        head = np.empty_like(grid)
        for group, turn in enumerate(self._turns):
            split = self._blocks - turn
            np.multiply(grid[group, :, :split], signs[group, :, :split], out=head[group, :, turn:])
            np.multiply(grid[group, :, split:], signs[group, :, split:], out=head[group, :, :turn])
        return head.reshape(-1)

    def _require(self, vector: npt.NDArray[F]) -> None:
        if vector.shape != (self._length,):
            raise CodecError("a vector of another length", expected=f"({self._length},)", got=str(vector.shape))


def _tail_blocks(length: int) -> list[int]:
    """The binary digits of a multiple of 16 below 4096, largest first."""
    return [1 << bit for bit in reversed(range(length.bit_length())) if length >> bit & 1]


def _transform_grid(grid: npt.NDArray[F], out: npt.NDArray[F]) -> None:
    """The orthonormal Hadamard transform of each column of (4096, m) into `out`, which may be `grid` itself."""
    factor = _hadamard(_FACTOR, grid.dtype, scale=0.25)  # three make 1 / sqrt(4096), exactly
    first = np.empty((LARGEST_BLOCK, min(_COLUMNS, grid.shape[1])), dtype=grid.dtype)
    second = np.empty_like(first)
    for start in range(0, grid.shape[1], _COLUMNS):
        source, target = grid[:, start : start + _COLUMNS], out[:, start : start + _COLUMNS]
        columns = source.shape[1]
        one, two = first[:, :columns], second[:, :columns]
        np.matmul(factor, source.reshape(256, 16, columns), out=one.reshape(256, 16, columns))
        np.matmul(factor, _middle(one), out=_middle(two))
        np.matmul(factor, _outer(two), out=_outer(target))


def _middle(grid: npt.NDArray[F]) -> npt.NDArray[F]:
    """A view of (4096, columns) as (16, 16, 16, columns) whose third axis is the middle digit of the row."""
    return grid.reshape(16, 16, 16, grid.shape[1]).transpose(0, 2, 1, 3)


def _outer(grid: npt.NDArray[F]) -> npt.NDArray[F]:
    """A view of (4096, columns) as (256, 16, columns) whose second axis is the highest digit of the row."""
    return grid.reshape(16, 256, grid.shape[1]).transpose(1, 0, 2)


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
    """Sylvester's matrix of `scale` and -`scale`, shape (size, size)."""
    matrix: npt.NDArray[np.int8] = np.ones((1, 1), dtype=np.int8)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix * scale).astype(dtype)
