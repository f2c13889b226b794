"""Secret randomness for private training: AES-256-CTR keyed by the operating system, as uniform and Gaussian numbers.

No seed can be given, and the global seeds of numpy and torch change nothing.
"""

from __future__ import annotations

import math
import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Doubles = npt.NDArray[np.float64]

_KEY_BYTES = 32
_COUNTER_BYTES = 16


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
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)

    def uniform(self, count: int) -> Doubles:
        """Uniform multiples of 2^-53 in (0, 1], shape (count,)."""
        return ((self.words(count) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def chosen(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        """A Poisson sample of `range(count)`: each index is in it with probability `rate`, independently; sorted.

        The probability is exact to 2^-53; rate 1 takes every index.
        """
        return np.flatnonzero(self.uniform(count) <= rate)

    def gaussian(self, count: int, standard_deviation: float) -> Doubles:
        """Independent centred Gaussians, shape (count,), float64.

        Box and Muller 1958 on 53-bit uniforms: the largest possible value is 8.57 standard deviations; beyond it lies a
        probability of 1e-17, far below any delta. Doubles leak low bits of what is added to them (Mironov 2012); the
        sum is rounded to float32, clipped, rotated and rounded to 16 bits or fewer before anything leaves.
        """
        pairs = (count + 1) // 2
        uniforms = self.uniform(2 * pairs)
        radius = np.sqrt(-2.0 * np.log(uniforms[:pairs]))
        angle = (2.0 * math.pi) * uniforms[pairs:]
        return standard_deviation * np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
