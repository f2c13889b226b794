"""Training without privacy is what a plain loop in torch does, bit for bit, and only where the round trains."""

import numpy as np
import pytest
import torch
from torch import nn

from lepton_client.train.learner import build_learner, train_round
from lepton_client.train.plain import PlainModule
from lepton_client.train.rows import Rows
from lepton_core.errors import CodecError, FaultError, InputError, RefusedError
from lepton_core.job import Job
from lepton_pool import models
from lepton_pool.models import architecture_of, initial_vector

FEATURES = 6
RNG = np.random.default_rng(5)
EPOCHS = {"batching": "epochs", "local_epochs": 2, "batch_size": 16, "shuffle_seed": 5}
THREE = {"classes": ["a", "b", "c"]}


def make_job(*, target=None, **training):
    return Job.model_validate(
        {
            "name": "test",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/",
                "features": [{"concept": f"f{index}"} for index in range(FEATURES)],
                "target": {"concept": "t"} | (target or {"positive": "yes"}),
            },
            "model": {"kind": "mlp", "hidden": [4]},
            "training": {"rounds": 3, "learning_rate": 0.5} | training,
            "privacy": {"mode": "none"},
        }
    )


def make_rows(count, classes=2):
    inputs = RNG.uniform(-1, 1, (count, FEATURES)).astype(np.float32)
    return Rows(inputs, np.floor((inputs[:, 0] + 1) / 2 * classes).astype(np.float32))


def first(job):
    return initial_vector(architecture_of(job))


def update_of(job, rows, *, kept=None, expected_batch=20.0, shuffle=None, model=None):
    vector = first(job) if model is None else model
    kept = np.arange(len(first(job)), dtype=np.int64) if kept is None else kept
    return train_round(build_learner(job), vector, kept, rows, expected_batch=expected_batch, shuffle=shuffle)


def plain_loop(job, rows, seed):
    """What a reader of the recipe would write in torch."""
    module = models.build_model(architecture_of(job))
    models.load_vector(module, first(job))
    features, target = torch.from_numpy(rows.features), torch.from_numpy(rows.target)
    optimizer = torch.optim.SGD(module.parameters(), lr=job.training.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(job.training.local_epochs):
        order = torch.randperm(len(target), generator=generator)
        for start in range(0, len(target), job.training.batch_size):
            batch = order[start : start + job.training.batch_size]
            logits = module(features[batch])
            loss = (
                nn.functional.binary_cross_entropy_with_logits(logits, target[batch])
                if logits.ndim == 1
                else nn.functional.cross_entropy(logits, target[batch].long())
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return models.vector_of(module) - first(job)


@pytest.mark.parametrize("target", [None, THREE])
def test_epochs_in_a_public_order_are_bit_for_bit_those_of_a_plain_loop_in_torch(target):
    job = make_job(target=target, **EPOCHS)
    rows = make_rows(50, job.task.target.class_count)
    found = update_of(job, rows, shuffle=1007)
    assert np.array_equal(found, plain_loop(job, rows, 1007))
    assert not np.array_equal(found, update_of(job, rows, shuffle=1008))


def test_an_order_without_a_public_seed_is_new_each_time_and_takes_every_row_once():
    job = make_job(**(EPOCHS | {"shuffle_seed": None, "batch_size": 1}))
    rows = make_rows(30)
    updates = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 (the global seed is what is tested)
        torch.manual_seed(0)
        updates.append(update_of(job, rows))
    assert not np.array_equal(*updates)
    order = PlainModule(job)._order(30, None)
    assert sorted(order.tolist()) == list(range(30))


def test_an_epoch_in_one_batch_is_gradient_descent_on_the_mean_whatever_the_order():
    job = make_job(**(EPOCHS | {"batch_size": 1000, "local_epochs": 1}))
    rows = make_rows(30)
    assert np.allclose(update_of(job, rows, shuffle=1), update_of(job, rows, shuffle=2), atol=1e-6)
    poisson = make_job(sampling_rate=1.0, local_steps=1)
    assert np.allclose(update_of(job, rows, shuffle=1), update_of(poisson, rows, expected_batch=30.0), atol=1e-6)


def test_the_seed_of_an_order_differs_by_round_and_member():
    training = make_job(**EPOCHS).training
    assert training.shuffle_of(0, 0) == 5 + 1000
    assert training.shuffle_of(2, 3) == 5 + 3000 + 3
    assert make_job().training.shuffle_of(2, 3) is None


@pytest.mark.parametrize("training", [EPOCHS, {"local_steps": 2, "sampling_rate": 0.5}])
def test_only_kept_coordinates_change(training):
    kept = np.array([0, 7, 9], dtype=np.int64)
    update = update_of(make_job(**training), make_rows(60), kept=kept, shuffle=3)
    assert np.flatnonzero(update).tolist() == kept.tolist()


def test_a_poisson_step_is_divided_by_the_public_batch_and_not_by_what_was_drawn():
    job = make_job(sampling_rate=1.0, local_steps=1)
    rows = make_rows(30)
    assert np.allclose(
        update_of(job, rows, expected_batch=10.0), 3 * update_of(job, rows, expected_batch=30.0), rtol=1e-4, atol=1e-7
    )


def test_poisson_batches_change_from_round_to_round_and_may_be_empty():
    job = make_job(sampling_rate=0.5, local_steps=1)
    rows = make_rows(30)
    assert not np.array_equal(update_of(job, rows), update_of(job, rows))
    empty = Rows(np.zeros((0, FEATURES), np.float32), np.zeros(0, np.float32))
    for training in ({"local_steps": 2}, EPOCHS):
        assert not update_of(make_job(**training), empty).any()


def test_a_large_batch_goes_through_the_model_in_parts(monkeypatch):
    rows = make_rows(50)
    for training in ({"sampling_rate": 1.0, "local_steps": 2}, EPOCHS | {"batch_size": 50}):
        job = make_job(**training)
        whole = update_of(job, rows, shuffle=1)
        monkeypatch.setattr("lepton_client.train.plain._MOST_ROWS", 8)
        assert np.allclose(update_of(job, rows, shuffle=1), whole, atol=1e-6)
        monkeypatch.undo()


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


def test_rows_of_another_job_are_refused():
    with pytest.raises(InputError, match="do not fit the job"):
        update_of(make_job(), make_rows(90, classes=3))


def test_a_layer_that_keeps_statistics_is_refused_without_privacy_too(monkeypatch):
    monkeypatch.setattr(
        "lepton_client.train.plain.build_model",
        lambda model: nn.Sequential(nn.Linear(model.features, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0)),
    )
    with pytest.raises(RefusedError, match="GroupNorm"):
        build_learner(make_job())


@pytest.mark.parametrize("training", [EPOCHS, {"local_steps": 8, "sampling_rate": 1.0}])
def test_training_that_diverges_is_a_fault_and_gives_nothing(training):
    with pytest.raises((FaultError, CodecError)):
        update_of(make_job(learning_rate=1e38, **training), make_rows(30), expected_batch=1e-3, shuffle=1)
