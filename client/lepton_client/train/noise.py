"""Secret randomness for private training: AES-256-CTR keyed by the operating system, as uniform and Gaussian numbers.

No seed can be given, and the global seeds of numpy and torch change nothing.
"""

from __future__ import annotations

import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lepton_compression.native import load_kernels
from lepton_core.layout import Vector

Doubles = npt.NDArray[np.float64]

_KEY_BYTES = 32
_COUNTER_BYTES = 16
#: Gaussians are made from so many pairs of words at once, which stay in the processor's cache.
_PAIRS_AT_ONCE = 1 << 14
#: What is enciphered to get the key stream; as many bytes as are asked for at once most often.
_ZEROS = memoryview(bytes(16 * _PAIRS_AT_ONCE))
#: The bits of the double 1.
_ONE = np.uint64(0x3FF0000000000000)


class SecretStream:
    """An endless stream of secret random numbers; its key is drawn at construction and never shown.

    Guarantees: words are AES-256-CTR key stream under a fresh key of `os.urandom`, so no number repeats or depends on
    anything in this process. Not for use by two threads at once.
    """

    def __init__(self) -> None:
        cipher = Cipher(algorithms.AES(os.urandom(_KEY_BYTES)), modes.CTR(bytes(_COUNTER_BYTES)))
        self._stream = cipher.encryptor()

    def __repr__(self) -> str:
        return "SecretStream(<secret>)"

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Uniform 64-bit words, shape (count,)."""
        zeros = _ZEROS[: 8 * count] if 8 * count <= len(_ZEROS) else bytes(8 * count)
        return np.frombuffer(self._stream.update(zeros), dtype=np.uint64)

    def chosen(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        """A Poisson sample of `range(count)`: each index is in it with probability `rate`, independently; sorted.

        The probability is exact to 2^-53; rate 1 takes every index.
        """
        limit = math.floor(rate * 2**53) << 11  # of words: their upper 53 bits, and one, are at most rate * 2^53
        if limit >= 2**64:
            return np.arange(count)
        return np.flatnonzero(self.words(count) < np.uint64(limit))

    def gaussian(self, count: int, standard_deviation: float) -> Doubles:
        """Independent centred Gaussians, shape (count,), float64.

        Box and Muller 1958 on uniform multiples of 2^-52 in (0, 1]: the largest possible value is 8.49 standard
        deviations; beyond it lies a probability of 2e-17, far below any delta. Doubles leak low bits of what is added
        to them (Mironov 2012); the sum is rounded to float32, clipped, rotated and rounded to 16 bits or fewer before
        anything leaves.
        """
        pairs = (count + 1) // 2
        values = np.empty(2 * pairs)
        kernels = load_kernels()
        for start in range(0, pairs, _PAIRS_AT_ONCE):
            piece = values[2 * start : 2 * (start + _PAIRS_AT_ONCE)]
            words = self.words(len(piece))
            if kernels is None:
                _box_muller(words, piece, standard_deviation)
            else:
                kernels.gaussians(words, piece, standard_deviation)
        return values[:count]

    def descend(self, weights: Vector, total: Doubles, standard_deviation: float, rate: float) -> None:
        """Subtracts `rate` times total and noise, (count,), from as many weights in place; noise as of `gaussian`."""
        kernels = load_kernels()
        for start in range(0, len(weights), 2 * _PAIRS_AT_ONCE):
            piece = slice(start, min(start + 2 * _PAIRS_AT_ONCE, len(weights)))
            count = piece.stop - start
            if kernels is not None:
                words = self.words(count + count % 2)
                kernels.descend(words, total[piece], weights[piece], deviation=standard_deviation, rate=rate)
                continue
            change = self.gaussian(count, standard_deviation)
            with np.errstate(over="ignore", invalid="ignore"):  # weights that ran to infinity are told after the round
                change += total[piece]
                change *= rate
                weights[piece] -= change.astype(np.float32)


def _box_muller(words: npt.NDArray[np.uint64], values: Doubles, deviation: float) -> None:
    """What `Kernels.gaussians` computes, but for the last bits: both (2 pairs,)."""
    pairs = len(words) // 2
    # The upper 52 bits are the mantissa of a double in [1, 2): no conversion, which processors do slowly.
    drawn = ((words >> np.uint64(12)) | _ONE).view(np.float64)
    radius, angle = torch.from_numpy(drawn[:pairs]), torch.from_numpy(drawn[pairs:])
    radius.sub_(2.0).neg_().log_().mul_(-2.0).sqrt_().mul_(deviation)
    angle.mul_(2.0 * math.pi)
    pair = torch.from_numpy(values).view(2, pairs)
    torch.cos(angle, out=pair[0])
    torch.sin(angle, out=pair[1])
    pair.mul_(radius)
