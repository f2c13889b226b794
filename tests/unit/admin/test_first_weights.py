"""A file of first weights becomes one artifact, or is refused by its key."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from lepton_admin.submission import load_first_weights
from lepton_core.errors import InputError, JobError, SettingsError
from lepton_core.job import JobFile, ModelSpec
from lepton_core.settings import parse_settings
from lepton_pool.models import Architecture

MODEL = Architecture(ModelSpec(kind="mlp", hidden=(4,)), 6, 3)


def torch_weights():
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def test_the_state_of_a_torch_module_is_taken_as_it_is_and_always_as_the_same_bytes(tmp_path):
    weights, file = torch_weights(), tmp_path / "weights.safetensors"
    file.write_bytes(save(weights, metadata={"format": "pt"}))
    artifact = load_first_weights(file, MODEL)
    assert all(np.array_equal(load(artifact)[name], tensor) for name, tensor in weights.items())
    file.write_bytes(artifact)
    assert load_first_weights(file, MODEL) == artifact


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no safetensors", "not a model file"),
        (save({**torch_weights(), "2.bias": np.zeros(4, np.float32)}), "another shape"),
        (save({**torch_weights(), "extra": np.zeros(4, np.float32)}), "do not fit the layout"),
        (save({**torch_weights(), "2.bias": np.zeros(3)}), "another type"),
        (save({**torch_weights(), "2.bias": np.full(3, np.inf, np.float32)}), "not finite"),
    ],
)
def test_first_weights_of_another_model_are_refused_by_key_and_file(tmp_path, content, told):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    with pytest.raises(JobError, match=told) as refused:
        load_first_weights(file, MODEL)
    assert refused.value.where == f"model.initial_weights, {file}"


def test_a_missing_file_of_first_weights_is_told(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        load_first_weights(tmp_path / "weights.safetensors", MODEL)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"initial_weights": "w.safetensors", "seed": 3}, "seed has no meaning with initial_weights"),
        ({"initial": "0" * 64}, "model.initial: unknown key; did you mean 'initial_weights'?"),
    ],
)
def test_a_job_file_names_a_file_and_no_seed_beside_it(model, told):
    task = {
        "ontology": "0" * 64,
        "vocabulary": "https://example.org/",
        "features": [{"concept": "a"}],
        "target": {"concept": "t", "positive": "x"},
    }
    with pytest.raises(SettingsError) as refused:
        parse_settings(JobFile, {"name": "test", "task": task, "model": model}, source="job.toml")
    assert told in str(refused.value)
