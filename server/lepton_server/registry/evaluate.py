"""A model version's metrics on the job's public evaluation set, and what it has cost in privacy so far."""

from __future__ import annotations

import asyncio
import functools

import numpy as np
from safetensors.numpy import load

from lepton_core.errors import InputError, LeptonError
from lepton_core.ids import Digest, ModelVersion
from lepton_core.job import Job
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import SampledGaussian
from lepton_pool import kinds
from lepton_pool.engine import Engine
from lepton_pool.models import architecture_of, model_layout
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
        epsilon = await asyncio.to_thread(epsilon_after, effect.job, effect.version)
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


def epsilon_after(job: Job, version: ModelVersion) -> float:
    """Upper bound for one record of an owner that was in every round so far; 0 without privacy or before a round."""
    if job.privacy.mode == "none" or version == 0:
        return 0.0
    return _epsilon(
        job.privacy.noise_multiplier or 0.0,
        job.training.sampling_rate,
        version * job.training.local_steps,
        job.privacy.delta,
    )


@functools.lru_cache(maxsize=4096)
def _epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    return epsilon_of((SampledGaussian(noise_multiplier, sampling_rate, steps),), delta)
