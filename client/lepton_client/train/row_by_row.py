"""Per-row gradients as their definition has them, a row at a time: slow, and what every faster way must equal."""

from __future__ import annotations

import torch
from torch import nn

from lepton_client.train.rows import loss_of


def gradients_row_by_row(
    module: nn.Module, parameters: list[nn.Parameter], features: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Each row's gradient of its loss by plain autograd, (rows, values of the parameters); features: (rows, d)."""
    trainable = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            return torch.stack(
                [
                    _gradient(module, parameters, features[row : row + 1], target[row : row + 1])
                    for row in range(len(target))
                ]
            )
    finally:
        for parameter, was in zip(parameters, trainable, strict=True):
            parameter.requires_grad_(was)


def _gradient(
    module: nn.Module, parameters: list[nn.Parameter], features: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    loss = loss_of(module(features), target, "sum")
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([one.reshape(-1) for one in found])
