"""A round's arithmetic, the same at members and coordinator: an update as words, a sum of words as the next model."""

from __future__ import annotations

import numpy as np

from lepton_compression.update import decode_sum, encode
from lepton_core.errors import CodecError
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState, apply_update
from lepton_core.ports import Randomness
from lepton_core.ring import Words, pack, require_range, unpack, words_for
from lepton_pool.plain import encode_plain
from lepton_pool.terms import derive_ring_plan
from lepton_pool.weighting import FULL_WEIGHT, WEIGHT_LANES, is_weighted, require_weight_sum, weight_of


def encode_update(job: Job, update: Vector, rows: int, codec_seed: bytes, randomness: Randomness) -> Words:
    """A member's update, shape (model_length,), as packed words without masks, shape (terms.words,), uint64.

    `rows` is how many rows it was learnt from; it counts only in a job whose members weigh by their rows.

    Raises:
        CodecError: an update of another length, or with a value that is not finite.
    """
    weight = weight_of(job, rows)
    if not job.aggregation.secure:
        return encode_plain(job, update, weight)
    plan = derive_ring_plan(job)
    lanes = encode(update, plan, codec_seed, randomness, weight=weight / FULL_WEIGHT)
    require_range(lanes, plan.lane_bits, plan.members_max)
    words = pack(lanes, plan.lane_bits)
    if not is_weighted(job):
        return words
    return np.concatenate([words, pack(np.array([weight], dtype=np.int64), WEIGHT_LANES.bits)])


def decode_mean(job: Job, words: Words, members: int, codec_seed: bytes) -> Vector:
    """The mean update, shape (model_length,), float32, of the unmasked sum over so many members' words.

    Raises:
        CodecError: words that no sum of so many members gives, or members without any weight.
    """
    plan = derive_ring_plan(job)
    if members < 1:
        raise CodecError("a sum over nobody", expected="at least 1 member", got=str(members))
    cut = words_for(plan.padded_length, plan.lane_bits)
    lanes = unpack(words[: cut if is_weighted(job) else None], plan.lane_bits, plan.padded_length)
    if not is_weighted(job):
        return decode_sum(lanes, members, plan, codec_seed)
    weights = int(unpack(words[cut:], WEIGHT_LANES.bits, WEIGHT_LANES.length)[0])
    shares = require_weight_sum(weights, members) / FULL_WEIGHT
    return decode_sum(lanes, members, plan, codec_seed, weights=shares)


def next_model(
    job: Job, model: Vector, state: OptimizerState, words: Words, *, members: int, codec_seed: bytes
) -> tuple[Vector, OptimizerState]:
    """The model that follows from a model and the unmasked sum of a round on it, and the optimizer's state after it.

    Raises:
        CodecError: as `decode_mean`, or a next model with a value that is not finite.
    """
    return apply_update(job.training.server, model, decode_mean(job, words, members, codec_seed), state)
