"""How far bytes are from uniform: words without masks and masks that are used twice show it."""

from __future__ import annotations

import math

import numpy as np

#: Standard deviations of chi-square beyond which bytes are not uniform; chance goes there once in 10^10 times.
FAR = 8.0


def deviation(data: bytes) -> float:
    """Chi-square over the 256 values of a byte, in standard deviations from its mean."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    return (float(((counts - expected) ** 2 / expected).sum()) - 255) / math.sqrt(2 * 255)
