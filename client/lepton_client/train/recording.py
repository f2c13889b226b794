"""What a forward and a backward pass leave of each trained layer: its inputs, and the gradients for its outputs.

No parameter's gradient is computed. Where a model is Linear layers with ReLUs between them, nothing is differentiated:
the logits' gradients are p - y, and those of the layers before them are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from lepton_client.train.layers import Calls, TrainedLayer, refuse_layer, stages_of_linear
from lepton_client.train.rows import loss_of


@dataclass(frozen=True)
class _Call:
    """One call of a layer, and at which versions its tensors were seen."""

    inputs: torch.Tensor
    outputs: torch.Tensor
    versions: tuple[int, int]


class Recorder:
    """Runs a model whose parameters no longer ask for gradients; the model is the recorder's alone."""

    def __init__(self, module: nn.Module, layers: Sequence[TrainedLayer]) -> None:
        self._module = module
        self._layers = layers
        #: The stages of a model that is run without autograd, or None.
        self._stages = stages_of_linear(module, layers)
        #: Whether the model is one Linear layer, whose gradients need no backward pass.
        self.is_head = self._stages is not None and len(layers) == 1
        self._calls: dict[str, list[_Call]] = {}
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        for layer in module.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False  # type: ignore[assignment]  # torch's activations: they would change what is held
        if self._stages is None:
            for trained in layers:
                trained.layer.register_forward_hook(self._hook(trained.name), with_kwargs=True)

    def record(
        self, features: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
    ) -> Mapping[str, Calls]:
        """Every layer's calls, of rows (rows, d) and their classes (rows,); gradients are those of the summed loss.

        With `weights`, (rows,), float32, each row's loss counts so much.

        Raises:
            RefusedError: a layer that was not called, that does not keep rows in the first dimension, or whose inputs
                or outputs were changed in place after.
        """
        if self._stages is not None:
            return self._by_products(self._stages, features, target, weights)
        self._calls = {trained.name: [] for trained in self._layers}
        with torch.enable_grad():
            if weights is None:
                loss = loss_of(self._module(features), target, "sum")
            else:
                loss = loss_of(self._module(features), target, "none") @ weights
        calls, self._calls = self._calls, {}
        for trained in self._layers:
            _require_by_row(trained, calls[trained.name], len(features))
        outputs = [call.outputs for of_layer in calls.values() for call in of_layer]
        found = iter(torch.autograd.grad(loss, outputs, allow_unused=True))
        return {
            name: [(call.inputs, _or_zeros(next(found), call.outputs)) for call in of_layer]
            for name, of_layer in calls.items()
        }

    def _by_products(
        self,
        stages: Sequence[nn.Module],
        features: torch.Tensor,
        target: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> Mapping[str, Calls]:
        """Both passes of Linear layers with ReLUs between them."""
        with torch.no_grad():
            values, inputs = features, []
            for stage in stages:
                if type(stage) is nn.Linear:
                    inputs.append(values)
                values = stage(values)
            gradients = [_logits_gradients(values, target)]
            if weights is not None:
                gradients[0].mul_(weights.unsqueeze(1))
            for trained, before in zip(self._layers[:0:-1], inputs[:0:-1], strict=True):
                back = gradients[-1].mm(cast("nn.Linear", trained.layer).weight)
                gradients.append(_through_relu(back, before))
        return {
            trained.name: [(given, gradient)]
            for trained, given, gradient in zip(self._layers, inputs, reversed(gradients), strict=True)
        }

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        def note(layer: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any], outputs: torch.Tensor) -> None:
            del layer
            if name not in self._calls:
                return  # a run that is not recorded
            inputs: torch.Tensor = given[0] if given else next(iter(keywords.values()))
            if not outputs.requires_grad:
                outputs.requires_grad_()  # here the backward pass ends
            self._calls[name].append(_Call(inputs.detach(), outputs, _versions(inputs, outputs)))

        return note


def _logits_gradients(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The summed loss's gradient for the logits, (rows, outputs): p - y, probabilities less the class's indicator."""
    if logits.ndim == 1:
        return (torch.sigmoid(logits) - target).unsqueeze(1)
    gradients = torch.softmax(logits, dim=1)
    return gradients.scatter_add_(1, target.long().unsqueeze(1), gradients.new_full((len(target), 1), -1.0))


def _through_relu(gradients: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """A ReLU's gradients for its inputs, of those for its outputs: 0 where an output is, as autograd has it."""
    through: torch.Tensor = torch.ops.aten.threshold_backward(gradients, outputs, 0)
    return through


def _versions(inputs: torch.Tensor, outputs: torch.Tensor) -> tuple[int, int]:
    """How often each was changed in place; a detached tensor counts with the one it came from."""
    return inputs._version, outputs._version  # noqa: SLF001 (torch has no public name for it)


def _or_zeros(gradient: torch.Tensor | None, outputs: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(outputs) if gradient is None else gradient


def _require_by_row(trained: TrainedLayer, calls: Sequence[_Call], rows: int) -> None:
    if not calls:
        refuse_layer(trained.name, trained.layer, "a layer whose forward is not called", "call it, not its weights")
    for call in calls:
        if len(call.inputs) != rows or len(call.outputs) != rows:
            what = "a layer that gets other rows than the model"
            refuse_layer(trained.name, trained.layer, what, "keep each row's values in the first dimension")
        if _versions(call.inputs, call.outputs) != call.versions:
            what = "a layer whose inputs or outputs are changed in place"
            refuse_layer(trained.name, trained.layer, what, "compute new tensors in place of changing these")
