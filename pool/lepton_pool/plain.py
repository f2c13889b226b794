"""Updates that nothing hides: by the job's codec, and the member's weight, in the words that a round's terms count.

Float32 is sent as it is, lane 2i the low half of word i. Any other codec's payload stands behind the 32-byte seed that
its sender has drawn, filled up with zeros to whole words. An update is clipped to the job's norm before it leaves, as
in a secure round; the coordinator checks that what it decodes is no longer than the codec can make of such an update.
What top-k and sign leave out of it, and what of an update and the residual together would be longer than the norm, is
the member's residual, to be added to its next update once this one has counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from lepton_compression.update import (
    SEED_BYTES,
    Eden,
    Float16,
    Float32,
    PlainCodec,
    Sign,
    TopK,
    decode_plain_update,
    encode_plain_update,
    payload_bytes,
)
from lepton_compression.update.eden import expected_error
from lepton_core.errors import CodecError
from lepton_core.job import Job
from lepton_core.layout import Vector, require_finite
from lepton_core.ports import Randomness
from lepton_core.ring import Words, pack, unpack
from lepton_core.secagg.terms import LaneGroup
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.weighting import FULL_WEIGHT, WEIGHT_LANES, require_weight_sum

#: How often a seed is drawn anew until the decoded update is as short as is asked; the first nearly always does it.
_MOST_SEEDS = 100
_VALUE_BITS = 32
#: What rounding to float32 may add to a clipped update's norm, relative.
_NORM_SLACK = 1e-5
#: What rounding to half precision may add, relative; and what a random rotation may beyond what EDEN adds on average.
_HALF_SLACK = 1e-3
_EDEN_SLACK = 1.1


def codec_of(job: Job) -> PlainCodec:
    """How updates of the job are sent."""
    match job.aggregation.codec:
        case "float32":
            return Float32()
        case "float16":
            return Float16()
        case "eden":
            return Eden(job.aggregation.bits if job.aggregation.bits is not None else Eden().bits)
        case "topk":
            return TopK(job.aggregation.fraction if job.aggregation.fraction is not None else TopK().fraction)
        case "sign":
            return Sign()
        case _:
            assert_never(job.aggregation.codec)


def plain_version(job: Job) -> str:
    """Name and version of the encoding; bound into a round's terms."""
    codec = codec_of(job)
    return "float/1" if isinstance(codec, Float32) else f"{str(codec).lower()}/1"


def plain_lanes(job: Job) -> tuple[LaneGroup, ...]:
    """The lanes of an update, and of its weight."""
    length = model_layout(architecture_of(job)).length
    codec = codec_of(job)
    if isinstance(codec, Float32):
        return LaneGroup(length, _VALUE_BITS), WEIGHT_LANES
    return LaneGroup(2 * -(-(SEED_BYTES + payload_bytes(codec, length)) // 8), _VALUE_BITS), WEIGHT_LANES


def encode_plain(job: Job, update: Vector, weight: int, randomness: Randomness) -> Words:
    """A member's update, shape (model_length,), clipped to the job's norm, and its weight; shape (terms.words,).

    Raises:
        CodecError: an update of another length, with a value that is not finite or that the codec cannot hold, or in a
            job that feeds back.
    """
    if job.aggregation.feeds_back:
        raise CodecError(
            "an update without what earlier ones left out",
            where="aggregation.codec",
            expected="a codec without error feedback",
            got=job.aggregation.codec,
        )
    return _words(job, _encoded(job, _clipped(job, update), randomness), weight)


@dataclass(frozen=True, eq=False)
class FedBack:
    """An update in a job that feeds back, as it is sent, and what of it is not."""

    #: Shape (terms.words,).
    words: Words
    #: Shape (model_length,), float32: clipped update and residual before, less what the decoder makes of the words.
    residual: Vector


def encode_fed_back(
    job: Job, update: Vector, weight: int, randomness: Randomness, *, residual: Vector | None
) -> FedBack:
    """As `encode_plain`, for a codec that feeds back; `residual` is what has not been sent yet, None for nothing.

    Raises:
        CodecError: as `encode_plain`, a residual of another length, or a codec that has no feedback.
    """
    clipped, drawn = _clipped(job, update), randomness.token(SEED_BYTES)
    known = residual if residual is not None else np.zeros_like(clipped)
    longest = job.aggregation.update_norm
    encoded = encode_plain_update(codec_of(job), clipped, drawn, residual=known, longest=longest)
    return FedBack(_words(job, drawn + encoded.payload, weight), encoded.residual)


def _clipped(job: Job, update: Vector) -> Vector:
    length = model_layout(architecture_of(job)).length
    if update.shape != (length,) or update.dtype != np.float32:
        raise CodecError("an update of another length", expected=f"({length},)", got=f"{update.shape}")
    norm = _norm(require_finite(update, "update"))
    factor = min(1.0, job.aggregation.update_norm / norm) if norm else 1.0
    return update if factor == 1.0 else (update.astype(np.float64) * factor).astype(np.float32)


def _words(job: Job, encoded: bytes, weight: int) -> Words:
    lanes, _ = plain_lanes(job)
    content = np.zeros(8 * lanes.words, dtype=np.uint8)
    content[: len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
    words = content.view("<u8").astype(np.uint64, copy=False)
    return np.concatenate([words, pack(np.array([weight], dtype=np.int64), WEIGHT_LANES.bits)])


def _encoded(job: Job, clipped: Vector, randomness: Randomness) -> bytes:
    codec = codec_of(job)
    if isinstance(codec, Float32):
        return clipped.astype("<f4").tobytes()
    for _ in range(_MOST_SEEDS):
        seed = randomness.token(SEED_BYTES)
        encoded = encode_plain_update(codec, clipped, seed)
        if _norm(clipped - encoded.residual) <= _most_norm(job):
            return seed + encoded.payload
    raise CodecError("an update that the codec makes too long", where="aggregation.codec", got=str(codec))


def _decoded(job: Job, content: bytes) -> Vector:
    codec, length = codec_of(job), model_layout(architecture_of(job)).length
    if isinstance(codec, Float32):
        return require_finite(np.frombuffer(content, dtype="<f4", count=length).astype(np.float32), "update")
    end = SEED_BYTES + payload_bytes(codec, length)
    return decode_plain_update(codec, content[SEED_BYTES:end], length, content[:SEED_BYTES])


def _most_norm(job: Job) -> float:
    """Longest that a decoded update may be: an unbiased codec's is longer than what it encodes."""
    codec, most = codec_of(job), job.aggregation.update_norm
    if isinstance(codec, Eden):
        return most * math.sqrt(1.0 + expected_error(codec.bits)) * _EDEN_SLACK
    return most * (1.0 + _HALF_SLACK if isinstance(codec, Float16) else 1.0 + _NORM_SLACK)


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
    update = _decoded(job, payload[:cut])
    weight = int(unpack(np.frombuffer(payload[cut:], dtype="<u8").astype(np.uint64), WEIGHT_LANES.bits, 1)[0])
    norm, most = _norm(update), _most_norm(job)
    if norm > most or weight > FULL_WEIGHT:
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
