"""A model version's metrics on the job's public evaluation set, and what it has cost in privacy so far."""

from __future__ import annotations

import asyncio
import functools

import numpy as np
from safetensors.numpy import load

from lepton_core.errors import InputError, LeptonError
from lepton_core.ids import Digest
from lepton_core.job import Job
from lepton_pool import kinds
from lepton_pool.engine import Engine
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.promise import epsilon_after
from lepton_pool.weights import decode_weights
from lepton_server.jobs.events import EvaluateDone, EvaluateFailed, RunEvaluate
from lepton_server.store.port import Artifacts, get_bounded

#: Largest evaluation set; it is in memory whenever a model is evaluated.
_LARGEST_EVALUATION = 256 * 2**20
#: The names and shapes of two tensors.
_HEADER_BYTES = 2**10


async def run(effect: RunEvaluate, artifacts: Artifacts, engine: Engine) -> EvaluateDone | EvaluateFailed:
    """Evaluate in the engine, account in a thread."""
    try:
        epsilon = await asyncio.to_thread(_epsilon, effect.job, int(effect.version))
        accuracy, auc = await _metrics(effect, artifacts, engine)
    except LeptonError as error:
        return EvaluateFailed(effect.job_id, effect.version, error)
    return EvaluateDone(effect.job_id, effect.version, accuracy, auc, epsilon)


async def _metrics(effect: RunEvaluate, artifacts: Artifacts, engine: Engine) -> tuple[float, float]:
    job = effect.job
    if job.evaluation is None:
        return -1.0, -1.0
    architecture = architecture_of(job)
    largest = min(_LARGEST_EVALUATION, 4 * job.evaluation.rows * (architecture.features + 1) + _HEADER_BYTES)
    tensors = await asyncio.to_thread(
        lambda digest: load(get_bounded(artifacts, digest, largest)), Digest(job.evaluation.digest)
    )
    if sorted(tensors) != ["features", "target"] or any(t.dtype != np.float32 for t in tensors.values()):
        raise InputError("an evaluation set of another form", expected="float32 tensors features and target")
    layout = model_layout(architecture)
    vector = decode_weights(layout, await asyncio.to_thread(artifacts.get, effect.digest))
    metrics = await kinds.evaluate(engine, architecture, vector, tensors["features"], tensors["target"])
    return metrics.accuracy, -1.0 if metrics.auc is None else metrics.auc


@functools.lru_cache(maxsize=4096)
def _epsilon(job: Job, rounds: int) -> float:
    """Upper bound for one unit of an owner that was in every round so far; 0 without privacy or before a round."""
    return epsilon_after(job, rounds)
