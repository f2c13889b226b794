"""A round's arithmetic, the same at members and coordinator: an update as words, a sum of words as the next model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lepton_compression.update import (
    SEED_BYTES,
    SecretKeystream,
    decode_and_test,
    decode_noised,
    decode_sum,
    derive_dither,
    encode_noised,
    encode_with_report,
)
from lepton_core.errors import CodecError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState, apply_update
from lepton_core.ports import Randomness
from lepton_core.ring import Words, pack, require_range, unpack
from lepton_core.secagg.terms import LaneGroup
from lepton_pool.measured import MEASURED_LANES, Measured, is_measured, measured_lanes, measured_of
from lepton_pool.plain import encode_plain
from lepton_pool.terms import derive_noise_plan, derive_ring_plan, lane_groups
from lepton_pool.weighting import FULL_WEIGHT, WEIGHT_LANES, is_weighted, require_weight_sum, weight_of

#: What training gives: an update, float32; in mode `record-distributed` the sum of the clipped gradients, float64.
Learnt: TypeAlias = Vector | npt.NDArray[np.float64]


def encode_update(
    job: Job, update: Learnt, rows: int, *, member: MemberId, codec_seed: bytes, randomness: Randomness
) -> Words:
    """A member's update, shape (model_length,), as packed words without masks, shape (terms.words,), uint64.

    With distributed noise the member's share is in them, drawn anew at each call: its charge is due before.
    `rows` is how many rows it was learnt from; it counts only in a job whose members weigh by their rows.

    Raises:
        CodecError: an update of another length, or with a value that is not finite.
    """
    if job.privacy.distributed:
        rounding, noise = (SecretKeystream(randomness.token(SEED_BYTES)) for _ in range(2))
        return encode_noised(
            update.astype(np.float64, copy=False), derive_noise_plan(job), codec_seed, rounding=rounding, noise=noise
        )
    weight, update = weight_of(job, rows), require_update(update)
    if not job.aggregation.secure:
        return encode_plain(job, update, weight, randomness)
    plan = derive_ring_plan(job)
    dither = derive_dither(codec_seed, member) if plan.dithered else None
    lanes, report = encode_with_report(update, plan, codec_seed, randomness, dither=dither, weight=weight / FULL_WEIGHT)
    require_range(lanes, plan.lane_bits, plan.members_max)
    words = [pack(lanes, plan.lane_bits)]
    if is_weighted(job):
        words.append(pack(np.array([weight], dtype=np.int64), WEIGHT_LANES.bits))
    if is_measured(job):
        words.append(pack(measured_lanes(report, plan), MEASURED_LANES.bits))
    return np.concatenate(words) if len(words) > 1 else words[0]


def require_update(learnt: Learnt) -> Vector:
    """What was learnt, if it is an update.

    Raises:
        CodecError: it is a sum of gradients, which no mode but `record-distributed` sends.
    """
    if learnt.dtype != np.float32:
        raise CodecError("not an update", where="update", expected="float32", got=str(learnt.dtype))
    return learnt.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the unmasked sum of a round says."""

    #: The members' mean update, shape (model_length,), float32.
    mean: Vector
    #: None in a private job, or if a member has spoilt it.
    measured: Measured | None
    #: Relative error of the decoding's self-test; 0 if it was not asked for.
    residual: float


def decode_mean(
    job: Job, words: Words, members: Sequence[MemberId], codec_seed: bytes, *, self_test: bool = False
) -> Decoded:
    """The mean update of the unmasked sum over these members' words.

    Raises:
        CodecError: words that no sum of so many members gives, or members without any weight.
        FaultError: the self-test, if asked for, shows that this machine computes wrongly.
    """
    if not members:
        raise CodecError("a sum over nobody", expected="at least 1 member", got="0")
    if job.privacy.distributed:
        mean, residual = decode_noised(words, len(members), derive_noise_plan(job), codec_seed, self_test=self_test)
        return Decoded(_step_of(job, mean), None, residual)
    plan = derive_ring_plan(job)
    parts = iter(_unpacked(words, lane_groups(job)))
    lanes, shares, measured = next(parts), None, None
    if is_weighted(job):
        shares = require_weight_sum(int(next(parts)[0]), len(members)) / FULL_WEIGHT
    if is_measured(job):
        measured = measured_of(next(parts), len(members), plan)
    dithers = [derive_dither(codec_seed, member) for member in members] if plan.dithered else []
    if self_test:
        mean, residual = decode_and_test(lanes, len(members), plan, codec_seed, dithers=dithers, weights=shares)
    else:
        mean, residual = decode_sum(lanes, len(members), plan, codec_seed, dithers=dithers, weights=shares), 0.0
    return Decoded(mean, measured, residual)


def _step_of(job: Job, mean: Vector) -> Vector:
    """The update that a decoded mean stands for, shape (model_length,): where it is of gradients, a step against them.

    Computed so that everybody gets the same bits.
    """
    recipe = job.training
    if job.privacy.mode != "record-distributed" or recipe.expected_rows is None:
        return mean
    step = recipe.learning_rate / (recipe.expected_rows * recipe.record_rate)
    return (mean.astype(np.float64) * -step).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Advanced:
    """The model that follows a round."""

    #: Shape (model_length,), float32.
    model: Vector
    state: OptimizerState
    #: What encoding has cost the members; None in a private job.
    measured: Measured | None
    #: Relative error of the decoding's self-test; 0 if it was not asked for.
    residual: float


def next_model(
    job: Job,
    model: Vector,
    state: OptimizerState,
    words: Words,
    *,
    members: Sequence[MemberId],
    codec_seed: bytes,
    self_test: bool = False,
) -> Advanced:
    """What follows from a model and the unmasked sum of a round on it.

    Raises:
        CodecError: as `decode_mean`, or a next model with a value that is not finite.
        FaultError: as `decode_mean`.
    """
    decoded = decode_mean(job, words, members, codec_seed, self_test=self_test)
    after, state_after = apply_update(job.training.server, model, decoded.mean, state)
    return Advanced(after, state_after, decoded.measured, decoded.residual)


def _unpacked(words: Words, groups: Sequence[LaneGroup]) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Each group's lanes, shape (length,), int64."""
    parts, start = [], 0
    for number, group in enumerate(groups, 1):
        # The last group takes what is left, so that words of another length are refused.
        cut = words[start : start + group.words if number < len(groups) else None]
        parts.append(unpack(cut, group.bits, group.length))
        start += group.words
    return parts
