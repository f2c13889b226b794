"""A round's arithmetic, the same at members and coordinator: an update as words, a sum of words as the next model."""

from __future__ import annotations

from lepton_compression.update import decode_sum, encode
from lepton_core.errors import CodecError
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState, apply_update
from lepton_core.ports import Randomness
from lepton_core.ring import Words, pack, require_range, unpack
from lepton_pool.terms import derive_ring_plan


def encode_update(job: Job, update: Vector, codec_seed: bytes, randomness: Randomness) -> Words:
    """A member's update, shape (model_length,), as packed words without masks, shape (terms.words,), uint64.

    Raises:
        CodecError: an update of another length, or with a value that is not finite.
    """
    plan = derive_ring_plan(job)
    lanes = encode(update, plan, codec_seed, randomness)
    require_range(lanes, plan.lane_bits, plan.members_max)
    return pack(lanes, plan.lane_bits)


def decode_mean(job: Job, words: Words, members: int, codec_seed: bytes) -> Vector:
    """The mean update, shape (model_length,), float32, of the unmasked sum over so many members' words.

    Raises:
        CodecError: words that no sum of so many members gives.
    """
    plan = derive_ring_plan(job)
    if members < 1:
        raise CodecError("a sum over nobody", expected="at least 1 member", got=str(members))
    return decode_sum(unpack(words, plan.lane_bits, plan.padded_length), members, plan, codec_seed)


def next_model(
    job: Job, model: Vector, state: OptimizerState, words: Words, *, members: int, codec_seed: bytes
) -> tuple[Vector, OptimizerState]:
    """The model that follows from a model and the unmasked sum of a round on it, and the optimizer's state after it.

    Raises:
        CodecError: as `decode_mean`, or a next model with a value that is not finite.
    """
    return apply_update(job.training.server, model, decode_mean(job, words, members, codec_seed), state)
