"""DP-SGD on one owner's rows: the steps a member takes in a round of a private job.

One step (Abadi et al. 2016, algorithm 1, with a public denominator):
1. Poisson sample: every row is in the batch with the public rate q, by secret bits. Empty batches are kept.
2. Per-sample gradients of the summed loss, by Opacus.
3. Coordinates that the round does not keep are set to 0, and only then
4. each row's gradient is clipped to L2 norm C, over all parameters together.
5. The sum gets Gaussian noise of standard deviation sigma * C on every kept coordinate,
6. is divided by the public expected batch size B, never by the number drawn, and
7. subtracted from the weights at the learning rate.

The privacy of `local_steps` such steps is `SampledGaussian(sigma, q, local_steps)`.
Nothing but the weights comes out: no loss, no count.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_client.train.noise import SecretStream
from lepton_client.train.opacus_parts import load_parts, prepare_convolutions
from lepton_client.train.rows import Rows, loss_of
from lepton_core.errors import RefusedError
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_pool.models import architecture_of, build_model, load_vector, refuse_running_statistics

#: Rows whose gradients are held at once: at most this many values, 256 MiB of float32.
_MOST_GRADIENT_VALUES = 1 << 26
#: More than two float32 roundings of every coordinate can add to a row's norm, relative: 2 * 2^-24.
_ROUNDING_SLACK = 2.0**-22


class PrivateModule:
    """A job's model, ready to take private steps on flat weights.

    Raises:
        JobError, NotFoundError: the model cannot be built.
        RefusedError: running statistics, or a layer that Opacus has no rule for.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._architecture = architecture_of(job)
        module = build_model(self._architecture)
        refuse_running_statistics(module)
        parts = load_parts()
        _refuse_layers_without_rule(module, parts.rules)
        prepare_convolutions(module)
        self._module = parts.grad_sample_module(module, loss_reduction="sum", strict=True)
        self._module.train()
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._length = sum(parameter.numel() for parameter in self._parameters)
        self._stream = SecretStream()

    @property
    def length(self) -> int:
        """Values of the flat model."""
        return self._length

    def train(
        self,
        model: Vector,
        kept: npt.NDArray[np.int64] | None,
        rows: Rows,
        *,
        expected_batch: float,
        shuffle: int | None,
    ) -> npt.NDArray[np.float64]:
        """The weights after the job's local steps, shape (length,); only kept coordinates differ from `model`'s.

        Raises:
            InputError: rows that do not fit the job.
        """
        del shuffle  # private batches are drawn by secret bits
        rows.require_fit(self._architecture.features, self._job.task.target.class_count)
        kept = np.arange(self._length, dtype=np.int64) if kept is None else kept
        recipe, privacy = self._job.training, self._job.privacy
        noise = (privacy.noise_multiplier or 0.0) * privacy.clip_norm
        weights = model.astype(np.float64)
        for _ in range(recipe.local_steps):
            drawn = self._stream.chosen(len(rows.target), recipe.sampling_rate)
            total = self._gradient_sum(weights, rows, drawn, kept, clip_norm=privacy.clip_norm)
            total += self._stream.gaussian(len(kept), noise)
            weights[kept] -= recipe.learning_rate / expected_batch * total
        return weights

    def _gradient_sum(
        self,
        weights: npt.NDArray[np.float64],
        rows: Rows,
        drawn: npt.NDArray[np.int64],
        kept: npt.NDArray[np.int64],
        *,
        clip_norm: float,
    ) -> npt.NDArray[np.float64]:
        """Sum over the drawn rows of their clipped gradients' kept coordinates, shape (kept,)."""
        total = np.zeros(len(kept))
        with np.errstate(over="ignore"):  # weights that ran to infinity are told at the end of the round
            load_vector(self._module, weights.astype(np.float32))
        index = torch.from_numpy(kept)
        chunk = max(1, _MOST_GRADIENT_VALUES // max(1, self._length))
        for start in range(0, len(drawn), chunk):
            part = drawn[start : start + chunk]
            features, target = torch.from_numpy(rows.features[part]), torch.from_numpy(rows.target[part])
            gradients = self._per_sample(features, target)[:, index]  # (rows, kept)
            total += clip_rows(gradients, clip_norm).sum(dim=0, dtype=torch.float64).numpy()
        return total

    def _per_sample(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Each row's gradient of the loss, shape (rows, length)."""
        for parameter in self._parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus' attribute
        loss = loss_of(self._module(features), target, "sum")
        with warnings.catch_warnings():
            # Opacus hooks the first layer too, whose inputs are data and need no gradient.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        samples = [parameter.grad_sample.reshape(len(target), -1) for parameter in self._parameters]  # type: ignore[attr-defined]  # as above
        return torch.cat(samples, dim=1)


def clip_rows(gradients: torch.Tensor, norm: float) -> torch.Tensor:
    """Every row scaled to L2 norm at most `norm`; shape (rows, values).

    Guarantee: for the norms that a job may ask for, no row's norm exceeds `norm`, whatever the row holds. A row that
    is not finite becomes 0, so that no record can exempt itself from the bound; so does one so long that the factor
    would be subnormal, where rounding is coarse and a crafted model could stretch the bound.
    """
    bound = norm * (1.0 - _ROUNDING_SLACK)
    norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)  # (rows,)
    factors = torch.where(norms > bound, bound / norms, torch.ones_like(norms))
    usable = torch.isfinite(norms) & (factors >= torch.finfo(gradients.dtype).tiny)
    clipped = gradients * factors.to(gradients.dtype).unsqueeze(1)
    return torch.where(usable.unsqueeze(1), clipped, torch.zeros_like(clipped))


def _refuse_layers_without_rule(module: nn.Module, rules: frozenset[type[nn.Module]]) -> None:
    for name, layer in module.named_modules():
        own = [key for key, parameter in layer.named_parameters(recurse=False) if parameter.requires_grad]
        if own and type(layer) not in rules:
            raise RefusedError(
                "a layer without a rule for per-sample gradients",
                where=f"model layer {name or 'itself'}",
                expected=", ".join(sorted(rule.__name__ for rule in rules)),
                got=type(layer).__name__,
                hint="build the model from the layers named",
                reason="NO_GRADIENT_RULE",
            )
