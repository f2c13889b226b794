"""A whole job on several owners' rows in one process: what a federation learns, where all of the data are public.

Training, encoding, noise and decoding are those of the federation. So is the sum, by whatever adds it up: unless told
otherwise masks, which cancel exactly, are left out, as the network is. For demonstrations, benchmarks and tests:
nothing is protected from whoever runs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from lepton_client.train.learner import Indices, build_learner, build_summing_learner, sum_round, train_round
from lepton_client.train.rows import Rows
from lepton_compression.update import kept_indices
from lepton_core.errors import InputError
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState
from lepton_core.ports import Randomness, SystemRandomness
from lepton_core.privacy.rules import RECORD_MODES
from lepton_core.ring import Words
from lepton_pool.models import architecture_of, initial_vector
from lepton_pool.steps import Learnt, encode_update, next_model
from lepton_pool.terms import derive_ring_plan

#: What an owner learns in a round, from the model and the round's kept coordinates.
Learn = Callable[[Vector, Indices], Learnt]
#: The sum of the owners' words, each of shape (words,), modulo 2^64.
AddUp = Callable[[Sequence[Words]], Words]


def add_in_clear(words: Sequence[Words]) -> Words:
    """What secure aggregation gives, by adding up what it would hide."""
    total: Words = np.sum(words, axis=0, dtype=np.uint64)
    return total


def train_together(
    job: Job,
    parts: Sequence[Rows],
    declared_rows: Sequence[int],
    *,
    randomness: Randomness | None = None,
    add_up: AddUp = add_in_clear,
) -> Vector:
    """The model after all rounds, of which every owner is in each, shape (length,), float32.

    `declared_rows` are the owners' public numbers of rows, or of subjects where they are what is protected; `add_up`
    gets every owner's words once a round, in order.

    Raises:
        InputError: no owners, or more than the job's cohort; rows that do not fit the job.
        JobError, RefusedError, NotFoundError: the model cannot be built or trained privately.
        FaultError, CodecError: training diverged.
    """
    if not job.aggregation.min_cohort <= len(parts) <= job.aggregation.max_cohort:
        raise InputError(
            "not a cohort of this job",
            where="parts",
            expected=f"{job.aggregation.min_cohort} to {job.aggregation.max_cohort} owners",
            got=str(len(parts)),
        )
    source = randomness if randomness is not None else SystemRandomness()
    members = [MemberId(number.to_bytes(16, "big")) for number in range(len(parts))]
    learners = [derive_learner(job, rows, declared) for rows, declared in zip(parts, declared_rows, strict=True)]
    state: OptimizerState = {}
    model = initial_vector(architecture_of(job))
    for number in range(1, job.training.rounds + 1):
        seed = hashlib.sha256(job.digest() + number.to_bytes(4, "big")).digest()
        kept = kept_indices(derive_ring_plan(job), seed)
        sent = []
        for member, learn, rows in zip(members, learners, parts, strict=True):
            learnt = learn(model, kept)
            sent.append(encode_update(job, learnt, len(rows.target), member=member, codec_seed=seed, randomness=source))
        following = next_model(job, model, state, add_up(sent), members=members, codec_seed=seed)
        model, state = following.model, following.state
    return model


def derive_learner(job: Job, rows: Rows, declared_rows: int) -> Learn:
    """How one owner of these rows learns in a round of the job.

    Raises:
        JobError, RefusedError, NotFoundError: the model cannot be built or trained privately.
    """
    rate = job.training.record_rate
    if job.privacy.mode == "record-distributed":
        summing = build_summing_learner(job)
        return lambda model, kept: sum_round(summing, model, kept, rows, sampling_rate=rate)
    learner, on_kept = build_learner(job), job.privacy.mode in RECORD_MODES
    batch = declared_rows * rate
    return lambda model, kept: train_round(learner, model, kept if on_kept else None, rows, expected_batch=batch)
