"""A private step clips, samples, adds noise and divides as the accountant is told it does."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lepton_client.train.alone import train_alone
from lepton_client.train.dpsgd import PrivateModule
from lepton_client.train.learner import train_round
from lepton_client.train.rows import Rows, loss_of
from lepton_core.errors import CodecError, InputError, RefusedError
from lepton_core.job import Job
from lepton_pool import models
from lepton_pool.models import architecture_of, initial_vector, model_layout

FALSE_ALARM = 1e-6
FEATURES = 6
RNG = np.random.default_rng(5)


def make_job(model=None, *, features=FEATURES, target=None, privacy=None, **training):
    return Job.model_validate(
        {
            "name": "test",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/",
                "features": [{"concept": f"f{index}"} for index in range(features)],
                "target": {"concept": "t"} | (target or {"positive": "yes"}),
            },
            "model": model or {"kind": "mlp", "hidden": [4]},
            "training": {"rounds": 3, "local_steps": 2, "sampling_rate": 0.5, "learning_rate": 0.5} | training,
            "privacy": {"mode": "record-local", "clip_norm": 0.7, "noise_multiplier": 1.5} | (privacy or {}),
        }
    )


def make_rows(count, features=FEATURES, classes=2):
    inputs = RNG.uniform(-1, 1, (count, features)).astype(np.float32)
    return Rows(inputs, np.floor((inputs[:, 0] + 1) / 2 * classes).astype(np.float32))


def first(job):
    return initial_vector(architecture_of(job))


def every(job):
    return np.arange(model_layout(architecture_of(job)).length, dtype=np.int64)


def update_of(job, rows, *, kept=None, expected_batch=20.0, model=None):
    return train_round(
        PrivateModule(job),
        first(job) if model is None else model,
        every(job) if kept is None else kept,
        rows,
        expected_batch=expected_batch,
    )


def reference_gradients(job, vector, rows):
    """Each row's gradient by plain autograd, one row at a time."""
    module = models.build_model(architecture_of(job))
    models.load_vector(module, vector)
    found = []
    for features, target in zip(torch.from_numpy(rows.features), torch.from_numpy(rows.target), strict=True):
        module.zero_grad()
        loss_of(module(features[None]), target[None], "mean").backward()
        found.append(torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()]))
    return torch.stack(found).numpy()


def gradient_sum(job, rows, *, clip_norm, kept=None, vector=None):
    """The clipped sum's kept coordinates, in float64."""
    private = PrivateModule(job)
    private._sums.flat.copy_(torch.from_numpy(first(job) if vector is None else vector))
    kept = every(job) if kept is None else kept
    mask = None if len(kept) == private.length else torch.zeros(private.length, dtype=torch.bool)
    if mask is not None:
        mask[torch.from_numpy(kept)] = True
    return private._clipped_sum(rows, np.arange(len(rows.target)), mask, clip_norm=clip_norm)[kept].copy()


THREE = {"classes": ["a", "b", "c"]}
CNN = {"kind": "cnn", "image": [1, 4, 4], "channels": [2, 3], "hidden": [4]}


@pytest.mark.parametrize("target", [None, THREE])
@pytest.mark.parametrize(("model", "features"), [({"kind": "logistic"}, 6), (None, 6), (CNN, 16)])
def test_clipped_gradients_are_those_of_plain_autograd_row_by_row(model, features, target):
    job = make_job(model, features=features, target=target)
    rows = make_rows(30, features, classes=job.task.target.class_count)
    vector = first(job) + RNG.uniform(-0.1, 0.1, len(first(job))).astype(np.float32)
    expected = reference_gradients(job, vector, rows)
    factors = np.minimum(1.0, 0.7 / np.linalg.norm(expected, axis=1, keepdims=True))
    assert (factors < 1.0).any()
    found = gradient_sum(job, rows, clip_norm=0.7, vector=vector)
    assert np.allclose(found, (factors * expected).sum(axis=0), atol=1e-5)


def test_the_noise_of_an_update_has_the_variance_the_accountant_is_told():
    job = make_job({"kind": "mlp", "hidden": [1000]}, local_steps=3)
    empty = Rows(np.zeros((0, FEATURES), np.float32), np.zeros(0, np.float32))
    update = update_of(job, empty, expected_batch=20.0).astype(np.float64)
    deviation = np.sqrt(3) * 0.5 / 20 * 1.5 * 0.7
    assert stats.kstest(update / deviation, "norm").pvalue > FALSE_ALARM
    low, high = stats.chi2.ppf([FALSE_ALARM, 1 - FALSE_ALARM], len(update))
    assert low < float(update @ update) / deviation**2 < high


@pytest.mark.parametrize("target", [None, THREE])
def test_one_record_moves_the_noiseless_sum_by_at_most_the_clipping_norm(target):
    job = make_job(target=target)
    rows = make_rows(40)
    outlier = np.full((1, FEATURES), 1e4, np.float32)
    without = gradient_sum(job, rows, clip_norm=0.7)
    moved = []
    for label in range(job.task.target.class_count):
        more = Rows(np.concatenate([rows.features, outlier]), np.append(rows.target, np.float32(label)))
        moved.append(np.linalg.norm(gradient_sum(job, more, clip_norm=0.7) - without))
    assert 0.69 < max(moved) <= 0.7 + 1e-9


def test_gradients_are_masked_before_they_are_clipped():
    job = make_job()
    rows = make_rows(1)
    kept = np.array([2, 5, 30], dtype=np.int64)
    gradient = reference_gradients(job, first(job), rows)[0][kept].astype(np.float64)
    norm = float(np.linalg.norm(gradient)) / 2
    assert np.allclose(gradient_sum(job, rows, clip_norm=norm, kept=kept), gradient / 2, rtol=1e-4)


def test_only_kept_coordinates_change():
    job = make_job()
    kept = np.array([0, 7, 9], dtype=np.int64)
    update = update_of(job, make_rows(30), kept=kept)
    assert np.flatnonzero(update).tolist() == kept.tolist()


def test_gradients_in_chunks_are_those_of_the_whole_batch(monkeypatch):
    job = make_job()
    rows = make_rows(30)
    whole = gradient_sum(job, rows, clip_norm=0.7)
    monkeypatch.setattr("lepton_client.train.dpsgd._MOST_HELD_VALUES", 7 * PrivateModule(job)._sums.held_per_row)
    assert np.allclose(gradient_sum(job, rows, clip_norm=0.7), whole, atol=1e-7)


def test_global_seeds_do_not_repeat_an_update():
    job = make_job()
    rows = make_rows(30)
    updates = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 (the global seed is what is tested)
        torch.manual_seed(0)
        updates.append(update_of(job, rows))
    assert not np.array_equal(*updates)


def test_a_job_tells_how_each_layer_is_clipped():
    assert {str(way.value) for way in PrivateModule(make_job({"kind": "logistic"})).methods.values()} == {"closed form"}
    assert {name: way.value for name, way in PrivateModule(make_job(CNN, features=16)).methods.items()} == {
        "1": "per-row gradients by Opacus",
        "4": "per-row gradients by Opacus",
        "9": "book-keeping",
        "11": "book-keeping",
    }


def build_with(layer):
    return lambda model: nn.Sequential(nn.Linear(model.features, 4), layer, nn.Linear(4, 1), nn.Flatten(0))


def test_running_statistics_are_refused_and_the_replacement_named(monkeypatch):
    monkeypatch.setattr("lepton_client.train.dpsgd.build_model", build_with(nn.BatchNorm1d(4)))
    with pytest.raises(RefusedError, match="GroupNorm"):
        PrivateModule(make_job())


def test_a_layer_without_a_gradient_rule_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("lepton_client.train.dpsgd.build_model", build_with(nn.PReLU()))
    with pytest.raises(RefusedError, match="PReLU") as refused:
        PrivateModule(make_job())
    assert refused.value.reason == "NO_GRADIENT_RULE"
    assert "Linear" in refused.value.expected


@pytest.mark.parametrize(
    "bad",
    [
        {"model": np.zeros(3, np.float32)},
        {"kept": np.array([0, 0], dtype=np.int64)},
        {"kept": np.array([-1], dtype=np.int64)},
        {"kept": np.array([33], dtype=np.int64)},
        {"kept": np.array([0.0])},
        {"expected_batch": 0.0},
        {"expected_batch": float("nan")},
    ],
)
def test_what_does_not_fit_the_model_is_refused(bad):
    with pytest.raises(InputError):
        update_of(make_job(), make_rows(5), **bad)


def test_a_model_that_is_not_finite_is_refused():
    with pytest.raises(CodecError, match="not finite"):
        update_of(make_job(), make_rows(5), model=np.full(33, np.nan, np.float32))


def test_rows_of_another_job_are_refused():
    for rows in (make_rows(5, FEATURES + 1), make_rows(90, classes=3)):
        with pytest.raises(InputError, match="do not fit the job"):
            update_of(make_job(), rows)


def test_a_job_trained_alone_learns_what_is_there_to_learn():
    job = make_job(rounds=20, local_steps=5, learning_rate=2.0)
    rows = make_rows(500)
    vector = train_alone(job, rows)
    module = models.build_model(architecture_of(job))
    models.load_vector(module, vector)
    with torch.no_grad():
        right = (module(torch.from_numpy(rows.features)).numpy() > 0) == (rows.target > 0.5)
    assert right.mean() > 0.85
