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

    Single coordinates are drawn as `draw_sorted` says; whole rows likewise, tensor by tensor, those of tensor g from a
    stream of their own.

    Raises:
        CodecError: a seed that is not 32 bytes.
    """
    require_seed(seed, "codec seed")
    if not plan.row_groups or plan.kept_length == plan.model_length:
        return draw_sorted(_LABEL, seed, plan.model_length, plan.kept_length)
    kept, start = [], 0
    for number, group in enumerate(plan.row_groups):
        rows = draw_sorted(_LABEL + b"/rows/%d" % number, seed, group.rows, group.kept_rows)
        kept.append((start + rows[:, None] * group.row_length + np.arange(group.row_length)).reshape(-1))
        start += group.rows * group.row_length
    return np.concatenate(kept)


def kept_stretch(plan: RingPlan) -> float | npt.NDArray[np.float64]:
    """1/p, p being the chance to be kept: of every coordinate, or of each kept one, shape (kept_length,)."""
    if not plan.row_groups:
        return plan.model_length / plan.kept_length
    stretches = [group.rows / group.kept_rows for group in plan.row_groups]
    return np.repeat(stretches, [group.kept_rows * group.row_length for group in plan.row_groups])


def draw_sorted(label: bytes, seed: bytes, length: int, kept: int) -> Indices:
    """`kept` of `length` numbers, sorted.

    Number i gets the key of the upper bits of word i of the seed's AES stream, followed by i itself in the lowest
    `bit_length(length - 1)` bits; the `kept` smallest keys are kept. Keys are distinct, so the result does not depend
    on how they are selected.
    """
    if kept == length:
        return np.arange(length, dtype=np.int64)
    # Almost every key lies far from the cut: below `low` it is in, above `high` out, and few are left to be ranked.
    slack = _BRACKET_SIGMAS * math.sqrt(kept * (1.0 - kept / length)) + 16.0
    low, high = (_key_at((kept + side * slack) / length) for side in (-1.0, 1.0))
    found = _select(label, seed, (length, kept), (low, high))
    if found is None:
        found = _select(label, seed, (length, kept), (0, _LARGEST_KEY))
    if found is None:
        raise CodecError("no coordinates for this plan", expected=f"{kept} of {length}")
    return found


def _key_at(quantile: float) -> int:
    """The key below which this share of all keys is expected, kept within 0 and `_LARGEST_KEY`."""
    return min(max(int(quantile * 2.0**64), 0), _LARGEST_KEY)


def _select(label: bytes, seed: bytes, numbers: tuple[int, int], cut: tuple[int, int]) -> Indices | None:
    """The kept numbers, if the cut lies among the keys from one to the other, else None."""
    (length, wanted), (low, high) = numbers, cut
    index_mask = np.uint64(2 ** (length - 1).bit_length() - 1)
    kept = np.empty(length, dtype=np.bool_)
    near: list[npt.NDArray[np.uint64]] = []
    start = 0
    for words in keystream_words(label, seed, length):
        stop = start + len(words)
        keys = (words & ~index_mask) | np.arange(start, stop, dtype=np.uint64)
        np.less(keys, np.uint64(low), out=kept[start:stop])
        near.append(keys[(keys >= np.uint64(low)) & (keys <= np.uint64(high))])
        start = stop
    ranked = np.sort(np.concatenate(near))
    missing = wanted - int(np.count_nonzero(kept))
    if not 0 <= missing <= len(ranked):
        return None
    kept[(ranked[:missing] & index_mask).astype(np.int64)] = True
    return np.flatnonzero(kept)
