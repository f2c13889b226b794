"""A whole job on one set of rows, as if its owner had no partners: the baseline that a demonstration shows.

No real site would release what comes out beside a federation's model: it spends the same budget a second time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lepton_client.train.learner import build_learner, build_summing_learner, sum_round, train_round
from lepton_client.train.noise import SecretStream
from lepton_client.train.rows import Rows
from lepton_core.errors import InputError
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState, apply_update
from lepton_pool.models import architecture_of, initial_vector


def train_alone(job: Job, rows: Rows) -> Vector:
    """The model after all rounds of the job's recipe on these rows, shape (length,), float32.

    As many steps, the same clipping, noise and server optimizer as in the federation, so the same epsilon; but nobody
    else's update, and, as nothing is sent, no common mask, no bound on the update and no rounding. The batch
    denominator is taken from the rows themselves.

    Of a job with distributed noise, what a trusted curator would get from the rows: all of the noise, as continuous
    Gaussians, on their sum.

    Raises:
        InputError: no rows.
        JobError, RefusedError, NotFoundError: the model cannot be built or trained privately.
        FaultError, CodecError: training diverged.
    """
    if len(rows.target) == 0:
        raise InputError("nobody learns from no rows", where="target", expected="at least one row", got="0")
    model = initial_vector(architecture_of(job))
    expected_batch = rows.units(job.privacy.unit).count * job.training.record_rate
    learn = _curator(job, rows, expected_batch) if job.privacy.mode == "record-distributed" else None
    learner = build_learner(job)
    state: OptimizerState = {}
    for _ in range(job.training.rounds):
        update = learn(model) if learn else train_round(learner, model, None, rows, expected_batch=expected_batch)
        model, state = apply_update(job.training.server, model, update, state)
    return model


def _curator(job: Job, rows: Rows, expected_batch: float) -> Callable[[Vector], Vector]:
    """Central DP-SGD, one step a round: the clipped sum over all rows or a sample, noise, the public denominator."""
    summing, stream = build_summing_learner(job), SecretStream()
    deviation = (job.privacy.noise_multiplier or 0.0) * job.privacy.clip_norm
    step = job.training.learning_rate / expected_batch

    def learn(model: Vector) -> Vector:
        total = sum_round(summing, model, None, rows, sampling_rate=job.training.record_rate)
        return (-step * (total + stream.gaussian(len(total), deviation))).astype(np.float32)

    return learn
