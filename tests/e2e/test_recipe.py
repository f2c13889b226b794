"""Federated averaging over real daemons is what a plain loop in one process computes, with masks and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from sklearn.datasets import load_digits
from torch import nn

from benchmarks.federation import Fixed, run_job
from benchmarks.federation_digits import HELD_OUT, write_digits
from benchmarks.federation_site import federation

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("recipe")]
MEMBERS, ROUNDS, HIDDEN = 4, 3, 16
FEEDING_ROUNDS = 10


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    digits = write_digits(folder / "data", MEMBERS, (HIDDEN,))
    with federation(folder, digits, MEMBERS) as running:
        yield running, digits


def averaged(first: Path, rounds: int = ROUNDS) -> tuple[dict[str, np.ndarray], float]:
    """The recipe as a reader would write it down: the last weights, and the accuracy on the rows held out."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(7).permutation(len(labels))
    features = torch.from_numpy((pixels[order] / 16).astype(np.float32))
    target = torch.from_numpy(labels[order])
    module = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    weights = {name: torch.from_numpy(tensor) for name, tensor in load(first.read_bytes()).items()}
    for number in range(1, rounds + 1):
        total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in weights.items()}
        for member in range(MEMBERS):
            rows, classes = features[HELD_OUT:][member::MEMBERS], target[HELD_OUT:][member::MEMBERS]
            module.load_state_dict(weights)
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1000 * number + member))
            for start in range(0, len(rows), 32):
                batch = shuffled[start : start + 32]
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(rows[batch]), classes[batch]).backward()
                optimizer.step()
            for name, tensor in module.state_dict().items():
                total[name] += tensor.to(torch.float64) * (len(rows) / (len(features) - HELD_OUT))
        weights = {name: tensor.to(torch.float32) for name, tensor in total.items()}
    module.load_state_dict(weights)
    with torch.no_grad():
        right = (module(features[:HELD_OUT]).argmax(dim=1) == target[:HELD_OUT]).float().mean().item()
    return {name: tensor.numpy() for name, tensor in weights.items()}, right


@pytest.mark.parametrize(("secure", "tolerance"), [(False, 2e-5), (True, 1e-4)])
def test_a_job_over_real_daemons_gives_the_weights_of_a_loop_in_one_process(site, secure, tolerance):
    running, digits = site
    view = run_job(running, Fixed(MEMBERS, ROUNDS, (HIDDEN,), accuracy=0.0), digits, secure=secure)
    expected, accuracy = averaged(digits.weights)
    found = load(running.researcher.download(view.models[-1].digest))
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert np.abs(found[name] - tensor).max() < tolerance
    assert view.models[-1].accuracy == pytest.approx(accuracy, abs=0.003)
    assert all(model.auc == -1.0 for model in view.models)
    assert [len(round_.survivors) for round_ in view.rounds if round_.state == "completed"] == [MEMBERS] * ROUNDS


def test_a_job_of_one_byte_a_parameter_tells_what_it_cost_and_learns_as_well(site):
    running, digits = site
    fixed = Fixed(MEMBERS, ROUNDS, (HIDDEN,), accuracy=0.0)
    view = run_job(running, fixed, digits, secure=True, aggregation={"bytes_per_parameter": 1.0})
    _, accuracy = averaged(digits.weights)
    assert view.models[-1].accuracy == pytest.approx(accuracy, abs=0.02)
    assert 0.9 < view.bytes_per_parameter <= 1.0
    for done in view.rounds:
        told = done.encoding
        assert told.codec.startswith("ring/3 ")
        assert done.payload_bytes == pytest.approx(told.bits_per_parameter / 8 * view.model_parameters)
        assert told.bytes_down > done.payload_bytes  # the sum, and who signed it
        assert told.clipped_members == 0
        assert 0 <= told.saturated_share <= 2 * told.expected_saturation
        assert 0 <= told.decode_residual < 1e-12
        assert 0 < told.squared_error < 0.01  # of updates whose norms are 0.2 to 0.73


@pytest.mark.nightly  # by day whole worlds of such jobs are simulated
def test_a_job_in_the_plain_may_send_four_bits_a_parameter(site):
    running, digits = site
    fixed = Fixed(MEMBERS, ROUNDS, (HIDDEN,), accuracy=0.0)
    view = run_job(running, fixed, digits, secure=False, aggregation={"secure": False, "codec": "eden"})
    _, accuracy = averaged(digits.weights)
    assert view.models[-1].accuracy == pytest.approx(accuracy, abs=0.05)
    assert view.bytes_per_parameter < 0.6
    assert {done.encoding.codec for done in view.rounds} == {"eden(bits=4.0)/1"}


@pytest.mark.parametrize(
    ("codec", "most_bytes", "within"),
    [
        ({"codec": "topk", "fraction": 0.1}, 0.65, 0.1),
        pytest.param({"codec": "sign"}, 0.25, 0.15, marks=pytest.mark.nightly),
    ],
    ids=["topk", "sign"],
)
def test_a_job_in_the_plain_may_feed_back_what_it_leaves_out_and_learns_nearly_as_well(site, codec, most_bytes, within):
    running, digits = site
    fixed = Fixed(MEMBERS, FEEDING_ROUNDS, (HIDDEN,), accuracy=0.0)
    view = run_job(running, fixed, digits, secure=False, aggregation={"secure": False, **codec})
    _, accuracy = averaged(digits.weights, FEEDING_ROUNDS)
    assert accuracy > 0.7
    assert view.models[-1].accuracy == pytest.approx(accuracy, abs=within)
    assert [len(done.survivors) for done in view.rounds] == [MEMBERS] * FEEDING_ROUNDS
    assert view.bytes_per_parameter < most_bytes
    for owner, folder in zip(running.owners, running.folders, strict=True):  # what was not sent is deleted with its job
        running.processes.wait_until(lambda place=folder / "residuals": not any(place.iterdir()), "the end", owner)


def test_a_job_in_the_plain_may_send_its_models_down_as_differences(site):
    running, digits = site
    fixed = Fixed(MEMBERS, ROUNDS, (HIDDEN,), accuracy=0.0)
    view = run_job(running, fixed, digits, secure=False, aggregation={"secure": False, "downlink": "delta"})
    expected, accuracy = averaged(digits.weights)
    found = load(running.researcher.download(view.models[-1].digest))
    assert view.models[-1].accuracy == pytest.approx(accuracy, abs=0.01)
    for name, tensor in expected.items():
        assert np.abs(found[name] - tensor).max() < 5e-3
    downs = [done.encoding.bytes_down / view.model_parameters for done in view.rounds[:-1]]
    assert all(0.9 < down < 1.2 for down in downs)


@pytest.mark.parametrize(
    ("encoding", "most"),
    [
        pytest.param({"bytes_per_parameter": 0.2}, 0.2, marks=pytest.mark.nightly),
        ({"kept_fraction": 0.2, "mask": "rows"}, 0.6),
    ],
    ids=["coordinates", "rows"],
)
def test_a_job_of_a_fifth_of_a_byte_keeps_rows_or_coordinates_and_runs_to_its_end(site, encoding, most):
    running, digits = site
    fixed = Fixed(MEMBERS, ROUNDS, (HIDDEN,), accuracy=0.0)
    view = run_job(running, fixed, digits, secure=True, aggregation=encoding)
    assert [done.state for done in view.rounds] == ["completed"] * ROUNDS
    assert view.bytes_per_parameter <= most
