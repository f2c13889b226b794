"""Which coordinates a round's members send: a uniform subset of fixed size that all draw alike from the round's seed.

The subset is the same for every member: supports of their own would reveal which coordinates matter to whom, and
their union could not be summed in lanes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lepton_compression.update.plan import RingPlan
from lepton_compression.update.streams import keystream_words, require_seed
from lepton_core.errors import CodecError

#: Sorted coordinates, shape (kept_length,), int64.
Indices = npt.NDArray[np.int64]

_LABEL = b"lepton/codec/v1/mask"
#: Standard deviations around the expected cut within which the cut is looked for; missing it costs time only.
_BRACKET_SIGMAS = 6.0
_LARGEST_KEY = 2**64 - 1


def kept_indices(plan: RingPlan, seed: bytes) -> Indices:
    """The coordinates of this round, sorted, shape (kept_length,), int64.

    Coordinate i gets the key of the upper bits of word i of the seed's AES stream, followed by i itself in the lowest
    `bit_length(model_length - 1)` bits; the `kept_length` smallest keys are kept. Keys are distinct, so the
    result does not depend on how they are selected.

    Raises:
        CodecError: a seed that is not 32 bytes.
    """
    require_seed(seed, "codec seed")
    length, kept = plan.model_length, plan.kept_length
    if kept == length:
        return np.arange(length, dtype=np.int64)
    # Almost every key lies far from the cut: below `low` it is in, above `high` out, and few are left to be ranked.
    slack = _BRACKET_SIGMAS * math.sqrt(kept * (1.0 - kept / length)) + 16.0
    low, high = (_key_at((kept + side * slack) / length) for side in (-1.0, 1.0))
    found = _select(plan, seed, low, high)
    if found is None:
        found = _select(plan, seed, 0, _LARGEST_KEY)
    if found is None:
        raise CodecError("no coordinates for this plan", expected=f"{kept} of {length}")
    return found


def _key_at(quantile: float) -> int:
    """The key below which this share of all keys is expected, kept within 0 and `_LARGEST_KEY`."""
    return min(max(int(quantile * 2.0**64), 0), _LARGEST_KEY)


def _select(plan: RingPlan, seed: bytes, low: int, high: int) -> Indices | None:
    """The kept coordinates, if the cut lies among the keys from `low` to `high`, else None."""
    index_mask = np.uint64(2 ** (plan.model_length - 1).bit_length() - 1)
    kept = np.empty(plan.model_length, dtype=np.bool_)
    near: list[npt.NDArray[np.uint64]] = []
    start = 0
    for words in keystream_words(_LABEL, seed, plan.model_length):
        stop = start + len(words)
        keys = (words & ~index_mask) | np.arange(start, stop, dtype=np.uint64)
        np.less(keys, np.uint64(low), out=kept[start:stop])
        near.append(keys[(keys >= np.uint64(low)) & (keys <= np.uint64(high))])
        start = stop
    ranked = np.sort(np.concatenate(near))
    missing = plan.kept_length - int(np.count_nonzero(kept))
    if not 0 <= missing <= len(ranked):
        return None
    kept[(ranked[:missing] & index_mask).astype(np.int64)] = True
    return np.flatnonzero(kept)
