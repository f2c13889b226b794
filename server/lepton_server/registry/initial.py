"""A job's first model, from the public seed or artifact that everybody knows."""

from __future__ import annotations

from lepton_core.errors import CodecError, LeptonError
from lepton_core.ids import Digest
from lepton_core.layout import Layout
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.weights import decode_weights, encode_weights, largest_weights
from lepton_server.jobs.events import InitialModelFailed, InitialModelReady, RunInitialModel
from lepton_server.store.port import Artifacts, get_bounded


def run(effect: RunInitialModel, artifacts: Artifacts) -> InitialModelReady | InitialModelFailed:
    """Make and keep the initial weights; the same job gives the same bytes. CPU only: call it off the event loop."""
    try:
        architecture = architecture_of(effect.job)
        layout = model_layout(architecture)
        if effect.job.model.initial is not None:
            digest = Digest(effect.job.model.initial)
            _require_canonical(layout, get_bounded(artifacts, digest, largest_weights(layout)))
            return InitialModelReady(effect.job_id, digest)
        data = encode_weights(layout, initial_vector(architecture))
        return InitialModelReady(effect.job_id, artifacts.put(data))
    except LeptonError as error:
        return InitialModelFailed(effect.job_id, error)


def _require_canonical(layout: Layout, data: bytes) -> None:
    """Refuse bytes that are not the one artifact of their weights: members know a model by its digest.

    Raises:
        CodecError: other tensors than the layout's, values that are not finite, or other bytes.
    """
    if encode_weights(layout, decode_weights(layout, data)) != data:
        raise CodecError(
            "first weights that are not in their one form",
            where="model.initial",
            expected="the model's tensors and nothing else, as `encode_weights` writes them",
            hint="submit the job with `lepton job submit`",
        )
