"""Subjects' clipped sums are those of the naive loop over subjects, and none moves a sum beyond the bound."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lepton_client.train import subjects as module_of_squares
from lepton_client.train.clipping import ClippedSums
from lepton_client.train.dpsgd import PrivateModule
from lepton_client.train.learner import sum_round
from lepton_client.train.row_by_row import gradients_row_by_row
from lepton_client.train.rows import Rows
from lepton_client.train.units import Units
from lepton_core.errors import InputError, RefusedError
from lepton_core.job import Job
from tests.property.budget import examples
from tests.unit.train.test_clipping import HOSTILE, MODELS, NORM, build, made_rows, mlp, own_parameters
from tests.unit.train.test_dpsgd import CNN, THREE, every, first, make_job, make_rows, update_of

SIZES = np.array([1, 3, 1, 65, 2, 30, 1, 5, 1], dtype=np.int64)


def clipped(sums, features, target, sizes, kept=None, norm=NORM):
    total = np.zeros(sums.length)
    sums.add(total, features, target, clip_norm=norm, kept=kept, sizes=np.asarray(sizes, dtype=np.int64))
    return torch.from_numpy(total) if kept is None else torch.from_numpy(total).masked_fill(~kept, 0.0)


def naive(sums, features, target, sizes, kept=None, norm=NORM):
    """The sum over subjects of their mean gradients, each clipped; and how many were."""
    parameters = [parameter for layer in sums._layers for parameter in own_parameters(layer)]
    gradients = gradients_row_by_row(sums._recorder._module, parameters, features, target).double()
    if kept is not None:
        gradients = gradients * kept
    total, cut, start = torch.zeros(sums.length, dtype=torch.float64), 0, 0
    for size in sizes:
        mean = gradients[start : (start := start + int(size))].mean(dim=0)
        total += mean * min(1.0, norm / max(float(mean.norm()), 1e-300))
        cut += float(mean.norm()) > norm
    return total, cut


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("name", MODELS)
def test_the_sum_is_that_of_the_naive_loop_over_subjects(name, share):
    sums, features, _ = build(name)
    classes = 2 if name in {"binary head", "twice"} else 3
    kept = None if share == 1.0 else torch.rand(sums.length, generator=torch.Generator().manual_seed(2)) < share
    for sizes in (SIZES, [67], [1]):  # many subjects, one with all rows, one row
        rows = made_rows(sum(sizes), features, words=name == "words", classes=classes)
        norm = 0.3 if share == 1.0 else 0.1
        expected, cut = naive(sums, *rows, sizes, kept, norm)
        assert torch.allclose(clipped(sums, *rows, sizes, kept, norm), expected, rtol=1e-4, atol=2e-5)
        assert cut > 0 or len(sizes) == 1 or sums.length < 10


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    classes=st.integers(1, 4),
    sizes=st.lists(st.one_of(st.integers(1, 4), st.integers(60, 70)), max_size=6),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    norm=st.sampled_from([1e-3, 0.5, 1e3]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    act=st.sampled_from([nn.ReLU, nn.Tanh]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=examples(12, 500))
def test_any_small_network_is_clipped_as_the_naive_loop_does(widths, classes, sizes, scale, norm, share, act, seed):
    torch.manual_seed(seed)
    module = mlp(*widths, classes, act=act)
    sums = ClippedSums(nn.Sequential(module, nn.Flatten(0)) if classes == 1 else module, widths[0])
    features, target = made_rows(sum(sizes), widths[0], classes=max(2, classes), seed=seed)
    kept = None if share == 1.0 else torch.rand(sums.length) < share
    empty = torch.zeros(sums.length, dtype=torch.float64)
    expected = naive(sums, features * scale, target, sizes, kept, norm)[0] if sizes else empty
    found = clipped(sums, features * scale, target, sizes, kept, norm)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * norm * max(1, len(sizes)))


@pytest.mark.parametrize("name", ["head", "mlp", "attention", "images"])
def test_a_subject_of_one_row_counts_as_the_row_and_none_add_nothing(name):
    sums, features, _ = build(name)
    rows = made_rows(20, features)
    total = np.zeros(sums.length)
    sums.add(total, *rows, clip_norm=NORM)
    assert torch.allclose(clipped(sums, *rows, [1] * 20), torch.from_numpy(total), rtol=1e-6, atol=1e-7)
    assert not clipped(sums, *made_rows(0, features), []).any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["head", "mlp", "twice", "attention", "images"])
def test_a_long_subject_in_slices_is_the_subject_as_a_whole(name, masked):
    sums, features, _ = build(name)
    kept = torch.rand(sums.length, generator=torch.Generator().manual_seed(3)) < 0.5 if masked else None
    inputs, target = made_rows(100, features, classes=2)
    for norm in (1e-2, 1e3):
        total = np.zeros(sums.length)
        slices = [(inputs[start : start + 30], target[start : start + 30]) for start in range(0, 100, 30)]
        sums.add_long(total, iter(slices), 100, clip_norm=norm, kept=kept)
        found = torch.from_numpy(total) if kept is None else torch.from_numpy(total).masked_fill(~kept, 0.0)
        assert torch.allclose(found, clipped(sums, inputs, target, [100], kept, norm), rtol=1e-3, atol=1e-5 * norm)
        assert float(found.norm()) <= norm


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["head", "binary head", "mlp", "twice", "attention", "images"])
def test_a_hostile_subject_stays_within_the_bound_and_touches_no_other(name, value, masked):
    sums, features, _ = build(name)
    inputs, target = made_rows(9, features, classes=2)
    kept = torch.rand(sums.length, generator=torch.Generator().manual_seed(3)) < 0.5 if masked else None
    mine = slice(3, 6)
    others = torch.cat([inputs[:3], inputs[6:]]), torch.cat([target[:3], target[6:]])
    without = clipped(sums, *others, [2, 1, 3], kept)
    for hit in (slice(None), slice(0, 1)):
        bad = inputs.clone()
        bad[4, hit] = value  # one of its three rows
        alone = clipped(sums, bad[mine], target[mine], [3], kept)
        assert float(alone.norm()) <= NORM
        assert torch.allclose(clipped(sums, bad, target, [2, 1, 3, 3], kept), without + alone, atol=2e-6)
        long = np.zeros(sums.length)
        sums.add_long(long, iter([(bad[mine], target[mine])]), 3, clip_norm=NORM, kept=kept)
        assert np.linalg.norm(long if kept is None else long[kept.numpy()]) <= NORM


@pytest.mark.parametrize("name", ["head", "mlp", "twice", "attention", "images"])
def test_rows_that_a_crafted_model_makes_cancel_cannot_stretch_the_bound(name):
    sums, features, _ = build(name)
    first_weights = sums.flat.clone()
    half = torch.rand(sums.length, generator=torch.Generator().manual_seed(3)) < 0.5
    # The same row under every class: with weights that do not tell the classes apart, its gradients nearly cancel.
    inputs = made_rows(1, features)[0].repeat(6, 1)
    target = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    for exponent, norm, kept in itertools.product((-30, -15, 0, 10, 20, 30), (1e-6, 1.0, 1e6), (None, half)):
        sums.flat.copy_(first_weights.double() * 10.0**exponent)
        assert float(clipped(sums, inputs, target, [6], kept, norm).norm()) <= norm


def test_long_rows_that_cancel_leave_no_rounding_behind():
    # The pair's sum has norm 1000, which the squares of its rows, 10^26, hide in float64; and adding such rows to a
    # total and taking them off again would leave only three digits of what another subject has there.
    sums = ClippedSums(nn.Linear(3, 2, bias=False), 3)
    sums.flat.zero_()
    inputs = torch.tensor([[1e13, 0.0, 0.0], [1e13, 0.0, 4e3], [0.1, 0.2, 0.3]])
    target = torch.tensor([0.0, 1.0, 0.0])
    alone = clipped(sums, inputs[2:], target[2:], [1], norm=1.0)
    pair = clipped(sums, inputs[:2], target[:2], [2], norm=1.0)
    assert float(pair.norm()) <= 1.0
    assert torch.allclose(clipped(sums, inputs, target, [2, 1], norm=1.0), pair + alone, atol=1e-9)


@pytest.mark.parametrize("target", [None, THREE])
@pytest.mark.parametrize(("model", "features"), [({"kind": "logistic"}, 6), (None, 6), (CNN, 16)])
@given(draw=st.data())
@settings(max_examples=examples(8, 300))
def test_adding_or_removing_a_subject_with_all_its_rows_moves_the_sum_by_at_most_the_clipping_norm(
    model, features, target, draw
):
    job = make_job(model, features=features, target=target, privacy={"unit": "subject"})
    sizes = draw.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    scale = draw.draw(st.sampled_from([1.0, 1e4, 1e30]))
    rows = make_rows(sum(sizes), features, classes=job.task.target.class_count)
    subjects = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(sum(sizes)).permutation(len(subjects))  # a subject's rows lie anywhere
    mine = subjects[order] == 0
    inputs = rows.features[order] * np.where(mine, np.float32(scale), np.float32(1.0))[:, None]
    whole = Rows(inputs, rows.target[order], subjects[order])
    without = Rows(inputs[~mine], rows.target[order][~mine], subjects[order][~mine])
    moved = summed(job, whole) - summed(job, without)
    assert np.linalg.norm(moved) <= 0.7 + 1e-9


def summed(job, rows, norm=0.7):
    private = PrivateModule(job)
    private._sums.flat.copy_(torch.from_numpy(first(job)))
    return private._clipped_sum(rows, np.arange(rows.units("subject").count), None, clip_norm=norm).copy()


def test_a_rounds_one_sum_is_over_subjects_where_they_are_protected():
    whole = {"mode": "record-distributed", "unit": "subject"}
    recipe = {"batching": "all", "expected_rows": 20}
    plain = make_job(privacy={"unit": "subject"}).model_dump(mode="json")
    training = {key: value for key, value in plain["training"].items() if key not in {"local_steps", "sampling_rate"}}
    job = Job.model_validate(plain | {"privacy": plain["privacy"] | whole, "training": training | recipe})
    rows = make_rows(30)
    rows = Rows(rows.features, rows.target, np.repeat(np.arange(4), [1, 20, 2, 7]))
    kept = every(job)[::2]
    for which in (None, kept):
        found = sum_round(PrivateModule(job), first(job), which, rows, sampling_rate=1.0)
        mask = None if which is None else torch.from_numpy(np.isin(every(job), which))
        private = PrivateModule(job)
        private._sums.flat.copy_(torch.from_numpy(first(job)))
        expected = private._clipped_sum(rows, np.arange(4), mask, clip_norm=0.7)
        assert np.allclose(found, np.where(mask.numpy(), expected, 0.0) if mask is not None else expected, atol=1e-12)
        assert np.linalg.norm(found) <= 4 * 0.7
    with pytest.raises(RefusedError):
        sum_round(PrivateModule(job), first(job), None, make_rows(5), sampling_rate=1.0)


def test_one_record_of_a_subject_can_move_the_sum_by_nearly_twice_the_norm():
    # Which is why a charge for subjects counts for more than itself in the budget for records.
    job = make_job({"kind": "logistic"}, privacy={"unit": "subject"})
    inputs = np.full((2, 6), 100.0, np.float32)
    inputs[1] *= 3
    both = Rows(inputs, np.array([0.0, 1.0], np.float32), np.zeros(2, np.int64))
    one = Rows(inputs[:1], both.target[:1], both.subjects[:1])
    assert 1.99 * 0.7 < np.linalg.norm(summed(job, both) - summed(job, one)) <= 2 * 0.7


def test_memory_is_bounded_by_parts_and_slices_that_change_nothing(monkeypatch):
    job = make_job(privacy={"unit": "subject"})
    rows = make_rows(60)
    subjects = np.repeat(np.arange(5), [1, 40, 2, 10, 7])[np.random.default_rng(1).permutation(60)]
    rows = Rows(rows.features, rows.target, subjects)
    whole = summed(job, rows)
    largest = []
    add, add_long = ClippedSums.add, ClippedSums.add_long

    def watched(sums, total, features, *args, **names):
        largest.append(len(features))
        add(sums, total, features, *args, **names)

    def watched_long(sums, total, slices, *args, **names):
        taken = list(slices)
        largest.extend(len(features) for features, _ in taken)
        add_long(sums, total, iter(taken), *args, **names)

    monkeypatch.setattr(ClippedSums, "add", watched)
    monkeypatch.setattr(ClippedSums, "add_long", watched_long)
    monkeypatch.setattr("lepton_client.train.dpsgd._MOST_HELD_VALUES", 11 * PrivateModule(job)._sums.held_per_row)
    assert np.allclose(summed(job, rows), whole, atol=1e-7)
    assert max(largest) <= 11  # of 40 rows that the longest has
    assert sum(largest) == 60


def test_subjects_are_drawn_with_all_their_rows_and_at_the_rate():
    units = Units(300, np.arange(300) % 100)
    assert units.count == 100
    parts = list(units.parts(np.array([7, 99]), 1000))
    assert [part.rows.tolist() for part in parts] == [[7, 107, 207, 99, 199, 299]]
    assert parts[0].sizes.tolist() == [3, 3]
    assert [part.sizes.tolist() for part in units.parts(np.arange(5), 7)] == [[3, 3], [3, 3], [3]]
    assert list(units.parts(np.zeros(0, np.int64), 7)) == []
    assert Units(0, np.zeros(0, np.int64)).count == 0


@given(subjects=st.lists(st.integers(-3, 6), max_size=40), most=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=examples(40, 1000))
def test_every_row_of_a_drawn_subject_and_no_other_is_in_exactly_one_part(subjects, most, seed):
    whose = np.array(subjects, dtype=np.int64)
    units = Units(len(whose), whose)
    drawn = np.flatnonzero(np.random.default_rng(seed).random(units.count) < 0.5)
    parts = list(units.parts(drawn, most))
    names = np.unique(whose)[drawn]
    found = [whose[row] for part in parts for row in part.rows]
    assert sorted(row for part in parts for row in part.rows.tolist()) == np.flatnonzero(np.isin(whose, names)).tolist()
    assert found == [name for name in names for _ in range(int((whose == name).sum()))]
    assert all(part.sizes.sum() == len(part.rows) for part in parts)
    assert all(len(part.rows) <= most or len(part.sizes) == 1 for part in parts)


def test_noise_is_the_same_whatever_the_unit():
    job = make_job({"kind": "mlp", "hidden": [1000]}, local_steps=3, privacy={"unit": "subject"})
    empty = Rows(np.zeros((0, 6), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    update = update_of(job, empty, expected_batch=20.0).astype(np.float64)
    deviation = np.sqrt(3) * 0.5 / 20 * 1.5 * 0.7
    assert float(update @ update) / deviation**2 / len(update) == pytest.approx(1.0, abs=0.1)


def test_rows_that_nobody_is_named_for_are_refused_before_a_step():
    job = make_job(privacy={"unit": "subject"})
    with pytest.raises(RefusedError) as refused:
        update_of(job, make_rows(5), kept=every(job))
    assert refused.value.reason == "MISSING_SUBJECT"
    rows = make_rows(5)
    for wrong in (np.zeros(4, np.int64), np.zeros(5, np.int32), np.zeros((5, 1), np.int64)):
        with pytest.raises(InputError, match="subjects"):
            Rows(rows.features, rows.target, wrong)


def test_squares_are_never_below_the_truth():
    generator = torch.Generator().manual_seed(5)
    for size in (2, 30, 64, 65, 200):
        inputs = torch.rand(size, 7, generator=generator) * 1e6
        gradients = torch.rand(size, 3, generator=generator)
        gradients[size // 2 :] = -gradients[: size - size // 2].clone()  # all of it cancels but a row
        inputs[size // 2 :] = inputs[: size - size // 2].clone()
        exact = sum(
            np.outer(g, a).astype(np.longdouble)
            for g, a in zip(gradients.double().numpy(), inputs.double().numpy(), strict=True)
        )
        found = module_of_squares.subject_squares(
            inputs, gradients, np.array([size]), parameters=frozenset({"weight"}), masks={}
        )
        assert float(found[0]) >= float((exact**2).sum())
        assert math.isfinite(float(found[0]))
