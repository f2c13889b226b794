"""How each layer's per-row gradients come about, and which layers are refused.

| layer | inputs | way |
|---|---|---|
| Linear, alone in the model | (rows, d) | closed form: the loss's gradient is known, nothing is differentiated |
| Linear | (rows, d), called once | book-keeping: nothing a row is held but its input and its output's gradient |
| Linear | more dimensions, or called several times | per row, a matrix product a row |
| Conv1d to Conv3d, Embedding, GroupNorm, LayerNorm | any | per row, by Opacus' rule |

A layer without trainable parameters needs no rule. Every other layer is refused, and so is whatever keeps running
statistics of records.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import nn

from lepton_client.train.opacus_parts import Sampler, load_parts, prepare_convolutions
from lepton_core.errors import RefusedError
from lepton_pool.models import refuse_running_statistics

#: A layer's inputs and the loss's gradients for its outputs, one pair a call; both begin with the rows.
Calls = Sequence[tuple[torch.Tensor, torch.Tensor]]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Layers whose per-row gradients come from Opacus.
_BY_OPACUS = (*_CONVOLUTIONS, nn.Embedding, nn.GroupNorm, nn.LayerNorm)
#: What does the same work and has a rule; what is not listed is told which layers have one.
_REPLACEMENTS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.LSTM, "opacus.layers.DPLSTM"),
    (nn.GRU, "opacus.layers.DPGRU"),
    (nn.RNN, "opacus.layers.DPRNN"),
    (nn.RNNCellBase, "a cell of torch.nn.Linear layers"),
    (nn.MultiheadAttention, "torch.nn.Linear for queries, keys and values, and scaled_dot_product_attention"),
    (nn.EmbeddingBag, "torch.nn.Embedding and a mean over its words"),
    (nn.modules.conv._ConvTransposeNd, "torch.nn.Upsample and a convolution"),  # noqa: SLF001 (no public base class)
    (nn.PReLU, "torch.nn.LeakyReLU"),
    (nn.RMSNorm, "torch.nn.LayerNorm"),
    (nn.Bilinear, "torch.nn.Linear on the product of its inputs"),
)
#: Rows that Opacus unfolds at once: a convolution's unfolded inputs are many times its inputs.
_ROWS_UNFOLDED = 32


class Method(enum.Enum):
    """How a layer's rows are clipped."""

    CLOSED_FORM = "closed form"
    BOOK_KEEPING = "book-keeping"
    PER_ROW = "per-row gradients"
    PER_ROW_OPACUS = "per-row gradients by Opacus"


@dataclass(frozen=True)
class TrainedLayer:
    """A layer with trainable parameters, and where they lie in the flat model."""

    name: str
    layer: nn.Module
    #: By the parameter's name in the layer, in the model's order.
    places: Mapping[str, slice]

    @property
    def values(self) -> int:
        """Trainable values of this layer."""
        return sum(place.stop - place.start for place in self.places.values())


def trained_layers(module: nn.Module) -> tuple[TrainedLayer, ...]:
    """The module's layers with trainable parameters, each with a rule; in the module's order.

    Raises:
        RefusedError: running statistics, a layer without a rule, or a parameter of two layers; the layer and what to
            use in its place are named.
    """
    refuse_running_statistics(module)
    starts: dict[nn.Parameter, slice] = {}
    length = 0
    for parameter in module.parameters():
        if parameter.requires_grad:
            starts[parameter] = slice(length, length + parameter.numel())
            length += parameter.numel()
    layers: list[TrainedLayer] = []
    taken: set[nn.Parameter] = set()
    for name, layer in module.named_modules():
        # Opacus' recurrent layers hold those of the cells within them a second time.
        within = {parameter for child in layer.children() for parameter in child.parameters()}
        named = layer.named_parameters(recurse=False)
        own = {key: parameter for key, parameter in named if parameter.requires_grad and parameter not in within}
        if not own:
            continue
        _require_rule(name, layer)
        if not taken.isdisjoint(own.values()):
            refuse_layer(name, layer, "a parameter that two layers share", "give each layer parameters of its own")
        taken.update(own.values())
        layers.append(TrainedLayer(name, layer, {key: starts[parameter] for key, parameter in own.items()}))
    prepare_convolutions(module)
    return tuple(layers)


def is_linear(layer: nn.Module) -> bool:
    """Whether the layer computes what torch.nn.Linear does, be it a subclass's."""
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def stages_of_linear(module: nn.Module, layers: Sequence[TrainedLayer]) -> tuple[nn.Module, ...] | None:
    """The stages of a model of trained Linear layers with a ReLU between any two, and a flattening of its logits.

    None for every other model, and where a hook could change what a stage computes.
    """
    stages = tuple(module) if type(module) is nn.Sequential else (module,)
    body = stages
    while len(body) > 1 and type(body[-1]) is nn.Flatten:
        body = body[:-1]
    kinds = tuple(type(stage) for stage in body)
    alternate = kinds == ((nn.Linear, nn.ReLU) * len(body))[: len(body)] and len(body) % 2 == 1
    if not alternate or tuple(trained.layer for trained in layers) != body[::2]:
        return None
    # torch has no public name for the hooks.
    hooked = any(stage._forward_hooks or stage._forward_pre_hooks for stage in (module, *stages))  # noqa: SLF001
    return None if hooked else stages


def method_of(layer: nn.Module, calls: Calls) -> Method:
    """How the rows of a layer that was called so are clipped, if it is not the model's only one."""
    if not is_linear(layer):
        return Method.PER_ROW_OPACUS
    return Method.BOOK_KEEPING if len(calls) == 1 and calls[0][0].ndim == 2 else Method.PER_ROW


def row_gradients(trained: TrainedLayer, calls: Calls, out: torch.Tensor, subject: torch.Tensor | None = None) -> None:
    """Writes each row's gradient for the layer's parameters, flat and in their order, into `out`: (rows, values).

    With `subject`, which says whose each row is, (rows,), int64: each subject's sum, (subjects, values); no more rows'
    own are held than are computed at once.
    """
    out.zero_()
    starts = {}
    start = 0
    for key, place in trained.places.items():
        starts[key] = slice(start, start := start + place.stop - place.start)
    for inputs, gradients in calls:
        for rows, found in _pieces(trained.layer, inputs, gradients):
            for key, place in starts.items():
                own = found[key].reshape(rows.stop - rows.start, -1)
                if subject is None:
                    out[rows, place] += own
                else:
                    out[:, place].index_add_(0, subject[rows], own)


def _pieces(
    layer: nn.Module, inputs: torch.Tensor, gradients: torch.Tensor
) -> Iterator[tuple[slice, Mapping[str, torch.Tensor]]]:
    """A few rows after another: which, and by parameter name their gradients, (those rows, ...)."""
    if is_linear(layer):
        yield slice(0, len(inputs)), _linear_gradients(inputs, gradients)
        return
    sampler = load_parts().samplers[type(layer)]
    for start in range(0, len(inputs), _ROWS_UNFOLDED):
        rows = slice(start, min(start + _ROWS_UNFOLDED, len(inputs)))
        yield rows, _by_opacus(sampler, layer, inputs[rows], gradients[rows])


def _linear_gradients(inputs: torch.Tensor, gradients: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Of inputs (rows, ..., d) and gradients (rows, ..., outputs): weight (rows, outputs, d), bias (rows, outputs)."""
    inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    gradients = gradients.reshape(len(gradients), -1, gradients.shape[-1])
    return {"weight": torch.bmm(gradients.transpose(1, 2), inputs), "bias": gradients.sum(dim=1)}


def _by_opacus(
    sampler: Sampler, layer: nn.Module, inputs: torch.Tensor, gradients: torch.Tensor
) -> Mapping[str, torch.Tensor]:
    for parameter in layer.parameters(recurse=False):
        parameter.requires_grad_(True)  # what Opacus asks before it computes a parameter's
    try:
        found = sampler(layer, [inputs], gradients)
    finally:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
    return {key: found[parameter] for key, parameter in layer.named_parameters(recurse=False)}


def _require_rule(name: str, layer: nn.Module) -> None:
    """Refuses a layer without a rule, or with an option that its rule leaves out of account."""
    if is_linear(layer):
        return
    if type(layer) not in _BY_OPACUS:
        names = ", ".join(kind.__name__ for kind in (nn.Linear, *_BY_OPACUS))
        hint = next((text for kind, text in _REPLACEMENTS if isinstance(layer, kind)), None)
        raise RefusedError(
            "a layer without a rule for per-sample gradients",
            where=f"model layer {name or 'itself'}",
            expected=names,
            got=type(layer).__name__,
            hint=f"use {hint} in its place" if hint else "build the model from the layers named",
            reason="NO_GRADIENT_RULE",
        )
    if isinstance(layer, _CONVOLUTIONS) and layer.padding_mode != "zeros":
        refuse_layer(name, layer, f"padding_mode {layer.padding_mode!r}", "set padding_mode='zeros'")
    if isinstance(layer, nn.LayerNorm) and layer.bias is None:
        refuse_layer(name, layer, "a LayerNorm without a bias", "set bias=True")
    if isinstance(layer, nn.Embedding) and (
        layer.padding_idx is not None or layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    ):
        refuse_layer(
            name,
            layer,
            "an Embedding that changes its words or their gradients",
            "leave padding_idx, max_norm, scale_grad_by_freq and sparse as they are by default",
        )


def refuse_layer(name: str, layer: nn.Module, what: str, hint: str) -> NoReturn:
    """Raises what tells that this layer has no per-sample gradients as it is used.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(
        f"{what} has no per-sample gradients",
        where=f"model layer {name or 'itself'}",
        expected="layers that are called, and treat every row by itself",
        got=type(layer).__name__,
        hint=hint,
        reason="NO_GRADIENT_RULE",
    )
