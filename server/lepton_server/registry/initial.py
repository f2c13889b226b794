"""A job's first model, from the public seed that everybody knows."""

from __future__ import annotations

from lepton_core.errors import LeptonError
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.weights import encode_weights
from lepton_server.jobs.events import InitialModelFailed, InitialModelReady, RunInitialModel
from lepton_server.store.port import Artifacts


def run(effect: RunInitialModel, artifacts: Artifacts) -> InitialModelReady | InitialModelFailed:
    """Make and keep the initial weights; the same job gives the same bytes. CPU only: call it off the event loop."""
    try:
        architecture = architecture_of(effect.job)
        data = encode_weights(model_layout(architecture), initial_vector(architecture))
        return InitialModelReady(effect.job_id, artifacts.put(data))
    except LeptonError as error:
        return InitialModelFailed(effect.job_id, error)
