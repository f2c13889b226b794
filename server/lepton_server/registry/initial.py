"""A job's first model, from the public seed that everybody knows."""

from __future__ import annotations

from lepton_core.errors import LeptonError
from lepton_pool.models import initial_vector, model_layout
from lepton_pool.weights import encode_weights
from lepton_server.jobs.events import InitialModelFailed, InitialModelReady, RunInitialModel
from lepton_server.store.port import Artifacts


def run(effect: RunInitialModel, artifacts: Artifacts) -> InitialModelReady | InitialModelFailed:
    """Make and keep the initial weights; the same job gives the same bytes. CPU only: call it off the event loop."""
    try:
        features = len(effect.job.task.features)
        layout = model_layout(effect.job.model, features)
        data = encode_weights(layout, initial_vector(effect.job.model, features))
        return InitialModelReady(effect.job_id, artifacts.put(data))
    except LeptonError as error:
        return InitialModelFailed(effect.job_id, error)
