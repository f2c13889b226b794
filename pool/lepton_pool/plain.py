"""Updates that nothing hides: float32 as it is, and the member's weight, in the words that a round's terms count.

Lane 2i is the low half of word i. An update is clipped to the job's norm before it leaves, as in a secure round; the
coordinator checks that it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from lepton_core.errors import CodecError
from lepton_core.job import Job
from lepton_core.layout import Vector, require_finite
from lepton_core.ring import Words, pack, unpack
from lepton_core.secagg.terms import LaneGroup
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.weighting import FULL_WEIGHT, WEIGHT_LANES, require_weight_sum

#: Name and version of the encoding; bound into a round's terms.
PLAIN_VERSION = "float/1"
_VALUE_BITS = 32
#: What rounding to float32 may add to a clipped update's norm, relative.
_NORM_SLACK = 1e-5


def plain_lanes(job: Job) -> tuple[LaneGroup, ...]:
    """The lanes of an update, and of its weight."""
    return LaneGroup(model_layout(architecture_of(job)).length, _VALUE_BITS), WEIGHT_LANES


def encode_plain(job: Job, update: Vector, weight: int) -> Words:
    """A member's update, shape (model_length,), clipped to the job's norm, and its weight; shape (terms.words,).

    Raises:
        CodecError: an update of another length, or with a value that is not finite.
    """
    lanes, _ = plain_lanes(job)
    if update.shape != (lanes.length,) or update.dtype != np.float32:
        raise CodecError("an update of another length", expected=f"({lanes.length},)", got=f"{update.shape}")
    norm = _norm(require_finite(update, "update"))
    factor = min(1.0, job.aggregation.update_norm / norm) if norm else 1.0
    values = np.zeros(2 * lanes.words, dtype="<f4")
    values[: lanes.length] = update if factor == 1.0 else update.astype(np.float64) * factor
    words = values.view("<u8").astype(np.uint64, copy=False)
    return np.concatenate([words, pack(np.array([weight], dtype=np.int64), WEIGHT_LANES.bits)])


def parse_plain(job: Job, payload: bytes) -> tuple[Vector, int]:
    """A member's update, shape (model_length,), float32, and its weight from 0 to `FULL_WEIGHT`.

    Raises:
        CodecError: another length, a value that is not finite, a longer update than the job allows, or no weight.
    """
    lanes, _ = plain_lanes(job)
    if len(payload) != 8 * (lanes.words + WEIGHT_LANES.words):
        raise CodecError(
            "an update of another length",
            expected=f"{8 * (lanes.words + WEIGHT_LANES.words)} bytes",
            got=f"{len(payload)} bytes",
        )
    cut = 8 * lanes.words
    update = np.frombuffer(payload, dtype="<f4", count=lanes.length).astype(np.float32, copy=False)
    weight = int(unpack(np.frombuffer(payload[cut:], dtype="<u8").astype(np.uint64), WEIGHT_LANES.bits, 1)[0])
    norm, most = _norm(require_finite(update, "update")), job.aggregation.update_norm
    if norm > most * (1.0 + _NORM_SLACK) or weight > FULL_WEIGHT:
        raise CodecError(
            "an update that no member sends",
            where="aggregation.update_norm",
            expected=f"norm at most {most:g}, weight at most {FULL_WEIGHT}",
            got=f"{norm:g} and {weight}",
        )
    return update, weight


def mean_plain(job: Job, payloads: Iterable[bytes]) -> Vector:
    """The members' mean update by weight, shape (model_length,), float32; the same for the same order of payloads.

    Raises:
        CodecError: as `parse_plain`, or members without any weight.
    """
    total, weights, members = np.zeros(model_layout(architecture_of(job)).length), 0, 0
    for payload in payloads:
        update, weight = parse_plain(job, payload)
        total += update * np.float64(weight)
        weights, members = weights + weight, members + 1
    return (total / require_weight_sum(weights, members)).astype(np.float32)


def _norm(vector: Vector) -> float:
    """L2 norm in float64."""
    exact = vector.astype(np.float64)
    return math.sqrt(float(exact @ exact))
