"""Everybody builds the same model, and knows its layout and first weights without torch."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest
import torch
from torch import nn

from lepton_core.errors import InputError, JobError, NotFoundError, RefusedError
from lepton_core.ids import digest_of
from lepton_core.job import ModelSpec
from lepton_pool import models
from lepton_pool.models import (
    Architecture,
    build_model,
    initial_vector,
    layout_of,
    load_vector,
    model_layout,
    vector_of,
)

SPECS = [
    Architecture(ModelSpec(kind="logistic"), 30),
    Architecture(ModelSpec(kind="logistic"), 30, 3),
    Architecture(ModelSpec(kind="mlp", hidden=(16,)), 30),
    Architecture(ModelSpec(kind="mlp", hidden=(16, 8)), 30, 10),
    Architecture(ModelSpec(kind="mlp", hidden=()), 3),
    Architecture(ModelSpec(kind="cnn", image=(1, 8, 8), channels=(4, 8), hidden=(16,)), 64, 2),
    Architecture(ModelSpec(kind="cnn", image=(3, 9, 7), channels=(4,), hidden=()), 189),
]


def test_layout_by_arithmetic_is_that_of_the_torch_module():
    for architecture in SPECS:
        assert model_layout(architecture) == layout_of(build_model(architecture))


def test_every_model_gives_one_logit_a_row_or_one_a_class_even_for_no_or_one_row():
    for architecture in SPECS:
        for rows in (0, 1, 5):
            logits = build_model(architecture)(torch.zeros(rows, architecture.features))
            assert logits.shape == ((rows,) if architecture.outputs == 1 else (rows, architecture.outputs))


def test_first_weights_are_the_same_bits_for_ever():
    vector = initial_vector(Architecture(ModelSpec(kind="mlp", hidden=(16,), seed=7), 30))
    assert vector.dtype == np.float32
    assert digest_of(vector.astype("<f4").tobytes()) == MLP_DIGEST
    assert not np.array_equal(vector, initial_vector(Architecture(ModelSpec(kind="mlp", hidden=(16,), seed=8), 30)))


MLP_DIGEST = "c9e3d009bf2220e1f6c2bcd2080b8758be464ffe366cde354446dccd6aef6952"


def test_first_weights_fill_their_bounds_and_the_last_biases_are_zero():
    vector = initial_vector(Architecture(ModelSpec(kind="mlp", hidden=(64,)), 30))
    first, last = vector[: 64 * 31], vector[64 * 31 :]
    assert 0.99 * np.sqrt(6 / 30) < np.abs(first).max() <= np.sqrt(6 / 30)
    assert np.abs(last).max() <= np.sqrt(6 / 64)
    assert abs(first.std() - np.sqrt(2 / 30)) < 0.01
    assert last[-1] == 0
    several = initial_vector(Architecture(ModelSpec(kind="mlp", hidden=(64,)), 30, 10))
    assert np.flatnonzero(several == 0).tolist() == list(range(len(several) - 10, len(several)))
    for outputs in (1, 4):
        assert not initial_vector(Architecture(ModelSpec(kind="logistic"), 30, outputs)).any()


def test_layout_and_first_weights_of_built_in_models_do_not_import_torch():
    code = (
        "import sys; from lepton_core.job import ModelSpec; from lepton_pool.models import *;"
        "a = Architecture(ModelSpec(kind='cnn', image=(1, 8, 8)), 64, 3); model_layout(a); initial_vector(a);"
        "import lepton_pool.kinds, lepton_pool.local; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_vector_goes_into_a_module_and_comes_out_again():
    for architecture in SPECS:
        module = build_model(architecture)
        vector = initial_vector(architecture)
        load_vector(module, vector)
        assert np.array_equal(vector_of(module), vector)
        for bad in (vector[:-1], vector.astype(np.float64)):
            with pytest.raises(InputError, match="does not fit"):
                load_vector(module, bad)


@pytest.mark.parametrize(
    ("spec", "features"),
    [
        (ModelSpec(kind="cnn"), 64),
        (ModelSpec(kind="cnn", image=(1, 8, 8)), 63),
        (ModelSpec(kind="cnn", image=(1, 8, 8), channels=(1, 1, 1, 1)), 64),
        (ModelSpec(kind="cnn", image=(-1, -8, 8)), 64),
        (ModelSpec(kind="mlp", hidden=(65_536, 65_536)), 30),
        (ModelSpec(kind="logistic"), 0),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_before_it_is_allocated(spec, features):
    with pytest.raises(JobError):
        model_layout(Architecture(spec, features))
    with pytest.raises(JobError):
        build_model(Architecture(spec, features))


def make_small(features, outputs, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, 4), nn.LayerNorm(4), nn.Linear(4, outputs))


def make_statistical(features, outputs, seed):
    return nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))


@pytest.fixture
def _installed(monkeypatch):
    points = EntryPoints(
        EntryPoint(name=name, value=f"{__name__}:{function}", group="lepton.models")
        for name, function in [("small", "make_small"), ("statistical", "make_statistical"), ("mlp", "make_small")]
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[make_small.__module__])
    monkeypatch.setattr(models, "entry_points", points.select)


@pytest.mark.usefixtures("_installed")
def test_an_installed_model_is_built_by_name_and_starts_from_the_seed():
    small, other = (Architecture(ModelSpec(kind="small", seed=seed), 5, 3) for seed in (3, 4))
    layout = model_layout(small)
    assert [place.name for place in layout.places][:2] == ["0.weight", "0.bias"]
    assert layout.places[-1].shape == (3,)
    assert np.array_equal(initial_vector(small), initial_vector(small))
    assert not np.array_equal(initial_vector(small), initial_vector(other))


@pytest.mark.usefixtures("_installed")
def test_an_installed_model_never_takes_the_place_of_a_built_in_one():
    assert len(build_model(Architecture(ModelSpec(kind="mlp", hidden=(2,)), 5))) == 4


@pytest.mark.usefixtures("_installed")
def test_running_statistics_are_refused_and_the_replacement_named():
    with pytest.raises(RefusedError, match="GroupNorm") as refused:
        model_layout(Architecture(ModelSpec(kind="statistical"), 5))
    assert refused.value.reason == "RUNNING_STATISTICS"
    assert "layer 1" in refused.value.where


def test_a_model_nobody_installed_is_not_found():
    with pytest.raises(NotFoundError, match="no such model"):
        model_layout(Architecture(ModelSpec(kind="no-such-model"), 5))
