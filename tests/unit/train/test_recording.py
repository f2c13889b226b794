"""A model of Linear layers is run without autograd, and what is recorded of it is what autograd gives."""

import copy
import itertools

import pytest
import torch
from torch import nn

from lepton_client.train.layers import trained_layers
from lepton_client.train.recording import Recorder
from lepton_core.errors import RefusedError


def stack(*widths, last=()):
    layers = [nn.Linear(widths[0], widths[1])]
    for before, after in itertools.pairwise(widths[1:]):
        layers += [nn.ReLU(), nn.Linear(before, after)]
    return nn.Sequential(*layers, *last)


#: Name: what builds it.
MODELS = {
    "one layer": lambda: nn.Linear(6, 3),
    "binary layer": lambda: stack(6, 1, last=[nn.Flatten(0)]),
    "two layers": lambda: stack(6, 5, 3),
    "binary": lambda: stack(6, 8, 4, 1, last=[nn.Flatten(0)]),
    "many": lambda: stack(6, 8, 7, 9, 3),
}


def recorders(module):
    """Of the same weights: one that runs them by products, and one by autograd, as a hook may do anything."""
    by_autograd = copy.deepcopy(module)
    by_autograd.register_forward_hook(lambda layer, given, outputs: None)
    pair = [Recorder(each, trained_layers(each)) for each in (module, by_autograd)]
    assert [one._stages is None for one in pair] == [False, True]
    return pair


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weighed", [False, True])
def test_both_passes_by_products_are_those_of_autograd(name, weighed):
    torch.manual_seed(2)
    features, target = torch.randn(40, 6), torch.randint(0, 2, (40,)).float()
    weights = torch.rand(40) if weighed else None
    found, expected = (one.record(features, target, weights) for one in recorders(MODELS[name]()))
    assert list(found) == list(expected)
    for layer in found:
        ((inputs, gradients),), ((right_inputs, right_gradients),) = found[layer], expected[layer]
        assert torch.equal(inputs, right_inputs)
        assert torch.allclose(gradients, right_gradients, rtol=1e-4, atol=1e-6)
        assert torch.equal(gradients == 0.0, right_gradients == 0.0)  # where a ReLU is shut
        assert not gradients.requires_grad


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e38])
def test_a_row_that_is_not_finite_on_the_way_is_so_in_both_and_changes_no_other(value):
    torch.manual_seed(3)
    features, target = torch.randn(5, 6), torch.zeros(5)
    features[2] = value
    found, expected = (one.record(features, target) for one in recorders(stack(6, 8, 3)))
    for layer in found:
        ((_, gradients),), ((_, right),) = found[layer], expected[layer]
        assert torch.equal(gradients.isfinite(), right.isfinite())
        assert torch.allclose(gradients, right, rtol=1e-4, atol=1e-6, equal_nan=True)
        assert bool(gradients[[0, 1, 3, 4]].isfinite().all())


class Doubled(nn.Linear):
    """What is no torch.nn.Linear."""

    def forward(self, features):
        return 2.0 * super().forward(features)


def tied():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer)


def hooked():
    module = stack(6, 5, 3)
    module[0].register_forward_pre_hook(lambda layer, given: (given[0] + 1.0,))
    return module


def frozen():
    module = stack(6, 5, 3)
    module[2].requires_grad_(False)
    return module


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)),
        lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU()),
        lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)),
        lambda: nn.Sequential(stack(6, 5, 3)),
        tied,
        hooked,
        frozen,
    ],
)
def test_any_other_model_is_left_to_autograd(build):
    module = build()
    assert Recorder(module, trained_layers(module))._stages is None


def test_a_subclass_of_linear_is_left_to_the_rule_for_other_layers():
    with pytest.raises(RefusedError, match="without a rule"):
        trained_layers(nn.Sequential(Doubled(6, 5), nn.ReLU(), nn.Linear(5, 3)))
