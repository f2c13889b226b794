"""Clipped sums are those of the naive loop, for every layer that has a rule, and no row ever exceeds the bound."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own abbreviation)

from lepton_client.train import clipping
from lepton_client.train.clipping import ClippedSums, clipping_factors
from lepton_client.train.layers import Method
from lepton_client.train.row_by_row import gradients_row_by_row
from lepton_compression.native import load_kernels
from lepton_core.errors import RefusedError
from tests.property.budget import examples

NORM = 0.7


class Words(nn.Module):
    """Features are numbers of words."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, features):
        return self.head(self.words(features.long()).mean(dim=1))


class Attention(nn.Module):
    """Two Linear layers of inputs of three dimensions, and one of two."""

    def __init__(self):
        super().__init__()
        self.projected = nn.Linear(2, 12)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3, bias=False)

    def forward(self, features):
        query, key, value = self.projected(features.unflatten(1, (3, 2))).chunk(3, dim=2)
        return self.head(self.norm(F.scaled_dot_product_attention(query, key, value)).sum(dim=1))


class Twice(nn.Module):
    """One layer called twice, one whose output does not matter."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 2)
        self.head = nn.Linear(6, 1)

    def forward(self, features):
        self.unused(features)
        return self.head(torch.tanh(self.cell(torch.tanh(self.cell(input=features))))).flatten(0)


def mlp(*widths, act=nn.ReLU, bias=True):
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), act()]
    return nn.Sequential(*layers[:-1])


def frozen_bias():
    module = mlp(6, 5, 3)
    module[0].bias.requires_grad_(False)
    return module


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (2, 6, 6)),
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 2, groups=2),
        nn.LayerNorm([6, 2, 2]),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


BOOK, HEAD, ROWS, OPACUS = Method.BOOK_KEEPING, Method.CLOSED_FORM, Method.PER_ROW, Method.PER_ROW_OPACUS
#: Name: what builds it, its features, and how its layers are clipped.
MODELS = {
    "binary head": (lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), 6, [HEAD]),
    "head": (lambda: nn.Linear(6, 3), 6, [HEAD]),
    "mlp": (lambda: mlp(6, 8, 7, 3), 6, [BOOK] * 3),
    "mlp without biases": (lambda: mlp(6, 8, 3, act=nn.Tanh, bias=False), 6, [BOOK] * 2),
    "mlp with dropout": (lambda: nn.Sequential(mlp(6, 8, 5), nn.Dropout(0.0), nn.Linear(5, 3)), 6, [BOOK] * 3),
    "frozen bias": (frozen_bias, 6, [BOOK] * 2),
    "twice": (Twice, 6, [ROWS, BOOK, BOOK]),
    "attention": (Attention, 6, [ROWS, OPACUS, BOOK]),
    "words": (Words, 4, [OPACUS, BOOK]),
    "images": (convolutional, 72, [OPACUS, OPACUS, OPACUS, OPACUS, BOOK]),
    "series": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (2, 6)), nn.Conv1d(2, 3, 3, padding="same"), nn.Flatten(), nn.Linear(18, 3)
        ),
        12,
        [OPACUS, BOOK],
    ),
}


def build(name):
    torch.manual_seed(1)
    make, features, methods = MODELS[name]
    return ClippedSums(make(), features), features, methods


def made_rows(count, features, *, words=False, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, features, generator=generator) * (5 if words else 4) - (0 if words else 2)
    return inputs, torch.randint(0, classes, (count,), generator=generator).float()


def clipped(sums, features, target, kept=None, norm=NORM):
    into = np.zeros(sums.length)
    sums.add(into, features, target, clip_norm=norm, kept=kept)
    total = torch.from_numpy(into)
    return total if kept is None else total.masked_fill(~kept, 0.0)


def naive(sums, features, target, kept=None, norm=NORM):
    """The sum, and how many rows were clipped."""
    parameters = [parameter for layer in sums._layers for parameter in own_parameters(layer)]
    gradients = gradients_row_by_row(sums._recorder._module, parameters, features, target).double()
    if kept is not None:
        gradients = gradients * kept
    norms = gradients.norm(dim=1, keepdim=True)
    return (gradients * (norm / norms).clamp(max=1.0)).sum(dim=0), int((norms > norm).sum())


def own_parameters(trained):
    return [getattr(trained.layer, key) for key in trained.places]


@pytest.fixture(params=["compiled", "in torch", "in torch, in slices"])
def loops(request, monkeypatch):
    """Sums with the compiled loops, as on a machine where none were built, and there with a batch in many slices."""
    if request.param != "compiled":
        monkeypatch.setattr(clipping, "load_kernels", lambda: None)
    elif load_kernels() is None:
        pytest.skip("the installation had no C compiler")
    if "slices" in request.param:
        monkeypatch.setattr(clipping, "_VALUES_WIDENED", 64)


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("name", MODELS)
def test_the_sum_is_that_of_the_naive_loop(name, share):
    sums, features, methods = build(name)
    assert list(sums.methods.values()) == methods
    classes = 2 if name in {"binary head", "twice"} else 3
    kept = None if share == 1.0 else torch.rand(sums.length, generator=torch.Generator().manual_seed(2)) < share
    for count in (1, 230):  # 230: more than what is unfolded or summed at once
        rows = made_rows(count, features, words=name == "words", classes=classes)
        norm = 0.7 if share == 1.0 else 0.2
        expected, cut = naive(sums, *rows, kept, norm)
        assert torch.allclose(clipped(sums, *rows, kept, norm), expected, rtol=1e-4, atol=2e-5)
        assert cut > 0 or count == 1 or sums.length < 10


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    classes=st.integers(1, 4),
    count=st.integers(0, 12),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    norm=st.sampled_from([1e-3, 0.5, 1e3]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    act=st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=examples(30, 1000))
def test_any_small_network_is_clipped_as_the_naive_loop_does(widths, classes, count, scale, norm, share, act, seed):
    torch.manual_seed(seed)
    module = mlp(*widths, classes, act=act)
    sums = ClippedSums(nn.Sequential(module, nn.Flatten(0)) if classes == 1 else module, widths[0])
    features, target = made_rows(count, widths[0], classes=max(2, classes), seed=seed)
    kept = None if share == 1.0 else torch.rand(sums.length) < share
    expected = naive(sums, features * scale, target, kept, norm)[0] if count else torch.zeros(sums.length)
    found = clipped(sums, features * scale, target, kept, norm)
    assert torch.allclose(found, expected.double(), rtol=1e-3, atol=1e-4 * norm * max(1, count))


@pytest.mark.parametrize("name", ["head", "mlp", "attention", "images"])
def test_no_rows_add_nothing(name):
    sums, features, _ = build(name)
    assert torch.equal(clipped(sums, *made_rows(0, features)), torch.zeros(sums.length, dtype=torch.float64))


HOSTILE = {
    "infinite": math.inf,
    "not a number": math.nan,
    "huge": 1e30,
    "largest": 3.4e38,
    "tiny": 1e-42,
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["head", "binary head", "mlp", "twice", "attention", "images", "series"])
def test_a_hostile_row_stays_within_the_bound_and_touches_no_other(name, value, masked):
    sums, features, _ = build(name)
    inputs, target = made_rows(5, features, classes=2)
    kept = torch.rand(sums.length, generator=torch.Generator().manual_seed(3)) < 0.5 if masked else None
    others = clipped(sums, torch.cat([inputs[:2], inputs[3:]]), torch.cat([target[:2], target[3:]]), kept)
    for hit in (slice(None), slice(0, 1)):
        bad = inputs.clone()
        bad[2, hit] = value
        alone = clipped(sums, bad[2:3], target[2:3], kept)
        assert float(alone.norm()) <= NORM
        assert torch.allclose(clipped(sums, bad, target, kept), others + alone, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["head", "mlp"])
def test_a_hostile_row_stays_within_the_bound_where_no_loops_were_built(name, value, masked, monkeypatch):
    monkeypatch.setattr(clipping, "load_kernels", lambda: None)
    test_a_hostile_row_stays_within_the_bound_and_touches_no_other(name, value, masked)


@pytest.mark.parametrize("name", ["head", "mlp", "twice", "attention", "images"])
def test_a_crafted_model_cannot_stretch_the_bound(name):
    sums, features, _ = build(name)
    first, half = sums.flat.clone(), torch.rand(sums.length, generator=torch.Generator().manual_seed(3)) < 0.5
    inputs, target = made_rows(2, features, classes=2)
    for exponent, norm, kept in itertools.product((-40, -30, -15, 10, 20, 30, 38), (1e-6, 1.0, 1e6), (None, half)):
        sums.flat.copy_(first.double() * 10.0**exponent)
        for row in range(len(target)):
            assert float(clipped(sums, inputs[row : row + 1], target[row : row + 1], kept, norm).norm()) <= norm


def test_no_factor_lets_a_row_exceed_the_bound_or_is_subnormal():
    lengths = np.array([0.0, 1e-150, 0.5, 1.0, 1.0 + 2**-23, 1e30, 1e150, math.inf, math.nan])
    factors = clipping_factors(lengths**2, 1.0)
    assert factors[:3].tolist() == [1.0, 1.0, 1.0]
    assert (factors[3:6] * lengths[3:6] <= 1.0).all()
    assert (factors[3:6] * lengths[3:6] > 1.0 - 1e-6).all()
    assert factors[6:].tolist() == [0.0, 0.0, 0.0]


def test_many_rows_at_the_bound_never_exceed_it():
    torch.manual_seed(4)
    sums = ClippedSums(mlp(30, 40, 3), 30)
    inputs, target = made_rows(200, 30)
    lengths = [
        float(clipped(sums, inputs[row : row + 1], target[row : row + 1], norm=1e-3).norm()) for row in range(200)
    ]
    assert 1e-3 * (1 - 1e-6) < max(lengths) <= 1e-3
    assert min(lengths) > 1e-3 * (1 - 1e-6)


class Mixing(nn.Module):
    """Every row sees the batch's mean."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, features):
        hidden = torch.tanh(self.first(features))
        return self.head(hidden - hidden.mean(dim=0))


class Bypassed(nn.Module):
    """The layer's weights are used without it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, features):
        return self.head(F.linear(features, self.first.weight, self.first.bias))


class PartlyBypassed(Bypassed):
    """The layer's weights are used with it and without it."""

    def forward(self, features):
        return self.head(self.first(features) + F.linear(features, self.first.weight, self.first.bias))


class Changing(Bypassed):
    """A layer's output is changed after it was made, where the gradient for it is not asked."""

    def forward(self, features):
        hidden = torch.tanh(self.first(features))
        return self.head(hidden).relu_() + hidden.sum()


class ChangingTheFirst(Bypassed):
    """The first layer's output is changed in place by a function, which torch itself refuses."""

    def forward(self, features):
        return self.head(F.relu_(self.first(features)))


class Sequences(nn.Module):
    """Steps, not rows, in the first dimension."""

    def __init__(self):
        super().__init__()
        self.step = nn.Linear(2, 3)

    def forward(self, features):
        return self.step(features.unflatten(1, (3, 2)).transpose(0, 1)).sum(dim=0)


def tied():
    module = mlp(6, 6, 6, 3)
    module[2].weight = module[0].weight
    return module


def padded_words():
    module = Words()
    module.words = nn.Embedding(5, 6, padding_idx=0)
    return module


def around(layer, width=6):
    return lambda: nn.Sequential(nn.Linear(6, 6), layer(), nn.Linear(width, 3))


REFUSED = {
    "BatchNorm": (around(lambda: nn.BatchNorm1d(6)), "GroupNorm"),
    "InstanceNorm with statistics": (around(lambda: nn.InstanceNorm1d(6, track_running_stats=True)), "GroupNorm"),
    "LSTM": (around(lambda: nn.LSTM(6, 6)), "DPLSTM"),
    "GRU": (around(lambda: nn.GRU(6, 6)), "DPGRU"),
    "MultiheadAttention": (around(lambda: nn.MultiheadAttention(6, 2)), "scaled_dot_product_attention"),
    "ConvTranspose": (around(lambda: nn.ConvTranspose1d(1, 1, 3)), "Upsample"),
    "EmbeddingBag": (around(lambda: nn.EmbeddingBag(4, 6)), "torch.nn.Embedding"),
    "PReLU": (around(nn.PReLU), "LeakyReLU"),
    "RMSNorm": (around(lambda: nn.RMSNorm(6)), "LayerNorm"),
    "weight norm": (around(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))), "layers named"),
    "LayerNorm without bias": (around(lambda: nn.LayerNorm(6, bias=False)), "bias=True"),
    "padded convolution": (
        around(lambda: nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")),
        "padding_mode='zeros'",
    ),
    "padded words": (padded_words, "padding_idx"),
    "tied": (tied, "parameters of its own"),
    "mixing": (Mixing, "no row depend on another"),
    "bypassed": (Bypassed, "call it"),
    "partly bypassed": (PartlyBypassed, "call each layer by itself"),
    "changing": (Changing, "in place of changing"),
    "changing the first": (ChangingTheFirst, "relu in place of relu_"),
    "other widths": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Linear(5, 3)), "shapes between layers"),
    "sequences": (Sequences, "first dimension"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_clipped_is_refused_with_the_layer_and_what_to_use_instead(name):
    make, hint = REFUSED[name]
    module = make()
    with pytest.raises(RefusedError) as refused:
        ClippedSums(module, 6)
    assert hint in refused.value.hint
    assert refused.value.reason in {"NO_GRADIENT_RULE", "RUNNING_STATISTICS"}
    assert refused.value.where.startswith("model layer ")
