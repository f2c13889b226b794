"""A whole job on one set of rows, as if its owner had no partners: the baseline that a demonstration shows.

No real site would release what comes out beside a federation's model: it spends the same budget a second time.
"""

from __future__ import annotations

import numpy as np

from lepton_client.train.dpsgd import PrivateModule, Rows
from lepton_core.job import Job
from lepton_core.layout import Vector, require_finite
from lepton_pool.models import initial_vector


def train_alone(job: Job, rows: Rows) -> Vector:
    """The model after rounds * local_steps steps of the job's recipe, shape (length,), float32.

    Same steps, clipping and noise as a member takes in all rounds together, so the same epsilon. There is no server:
    every coordinate is trained in every step, and the steps follow each other directly. The batch denominator is taken
    from the rows themselves.

    Raises:
        JobError, RefusedError, NotFoundError: the model cannot be built or trained privately.
        CodecError: training diverged.
    """
    features = rows.features.shape[1]
    start = initial_vector(job.model, features).astype(np.float64)
    kept = np.arange(len(start), dtype=np.int64)
    expected_batch = max(1, len(rows.target)) * job.training.sampling_rate
    count = job.training.rounds * job.training.local_steps
    weights = PrivateModule(job, features).steps(start, kept, rows, expected_batch=expected_batch, count=count)
    return require_finite(weights.astype(np.float32), "the model trained alone")
