"""A job's first model is its seed's or its artifact's, and never anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from lepton_core.ids import Digest, JobId, digest_of
from lepton_core.job import Job
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.weights import encode_weights
from lepton_server.jobs.events import InitialModelFailed, InitialModelReady, RunInitialModel
from lepton_server.registry import initial
from lepton_server.store.artifacts import FolderArtifacts


def make_job(**model: Any) -> Job:
    return Job.model_validate(
        {
            "name": "test",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/",
                "features": [{"concept": "a"}, {"concept": "b"}],
                "target": {"concept": "t", "classes": ["x", "y", "z"]},
            },
            "model": {"kind": "mlp", "hidden": [4], **model},
            "privacy": {"mode": "none"},
        }
    )


def weights(value: float = 0.25) -> dict[str, Any]:
    layout = model_layout(architecture_of(make_job()))
    return {place.name: np.full(place.shape, value, dtype=np.float32) for place in layout.places}


def run(folder: Path, content: bytes) -> InitialModelReady | InitialModelFailed:
    artifacts = FolderArtifacts(folder)
    artifacts.put(content)
    return initial.run(RunInitialModel(JobId("test"), make_job(initial=digest_of(content))), artifacts)


def test_without_an_artifact_the_first_model_comes_from_the_seed(tmp_path: Path) -> None:
    artifacts, job = FolderArtifacts(tmp_path), make_job(seed=3)
    done = initial.run(RunInitialModel(JobId("test"), job), artifacts)
    assert isinstance(done, InitialModelReady)
    architecture = architecture_of(job)
    assert artifacts.get(done.digest) == encode_weights(model_layout(architecture), initial_vector(architecture))


def test_the_artifact_that_a_job_names_is_its_first_model(tmp_path: Path) -> None:
    content = save(weights())
    assert run(tmp_path, content) == InitialModelReady(JobId("test"), Digest(digest_of(content)))


@pytest.mark.parametrize(
    "tensors",
    [
        weights(np.nan),
        {**weights(), "other": np.zeros(3, dtype=np.float32)},
        {**weights(), "2.bias": np.zeros(4, dtype=np.float32)},
        {name: tensor.astype(np.float64) for name, tensor in weights().items()},
        {name: tensor for name, tensor in weights().items() if name != "0.bias"},
    ],
)
def test_weights_of_another_model_or_that_are_not_finite_fail_the_job(tmp_path: Path, tensors: dict[str, Any]) -> None:
    assert isinstance(run(tmp_path, save(tensors)), InitialModelFailed)


def test_bytes_beside_the_weights_fail_the_job(tmp_path: Path) -> None:
    failed = run(tmp_path, save(weights(), metadata={"note": "anything"}))
    assert isinstance(failed, InitialModelFailed)
    assert failed.error.where == "model.initial"
