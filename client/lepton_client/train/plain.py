"""Training of jobs without privacy, at torch's full speed: one forward and one backward pass a batch, nothing clipped.

| batching | a round's batches | a step goes against |
|---|---|---|
| `poisson` | `local_steps`; each row is in it at `sampling_rate`, in secret | their sum, over the expected batch |
| `epochs` | `local_epochs` times all rows, `batch_size` at a time, the last may be fewer | their mean |

The order of an epoch is `torch.randperm(rows, generator=torch.Generator().manual_seed(shuffle))`, and that generator's
next permutation for every further epoch; without a public seed it is drawn from the operating system's randomness.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from lepton_client.train.noise import SecretStream
from lepton_client.train.rows import Rows, loss_of
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_pool.models import architecture_of, build_model, load_vector, refuse_running_statistics, vector_of

#: Rows of a batch that go through the model at once; larger batches add their gradients up.
_MOST_ROWS = 4096


class PlainModule:
    """A job's model, ready to be trained as it is.

    Raises:
        JobError, NotFoundError: the model cannot be built.
        RefusedError: running statistics.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._architecture = architecture_of(job)
        self._module = build_model(self._architecture)
        refuse_running_statistics(self._module)
        self._module.train()
        self._parameters = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
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
    ) -> Vector:
        """The weights after a round, shape (length,), float32; coordinates that are not kept are those of `model`.

        Raises:
            InputError: a model or rows that do not fit.
        """
        rows.require_fit(self._architecture.features, self._job.task.target.class_count)
        load_vector(self._module, model)
        masks = self._masks(kept) if kept is not None and len(kept) < self._length else None
        if self._job.training.batching == "epochs":
            self._epochs(rows, masks, shuffle)
        else:
            self._poisson(rows, masks, expected_batch)
        return vector_of(self._module)

    def _epochs(self, rows: Rows, masks: list[torch.Tensor] | None, shuffle: int | None) -> None:
        recipe = self._job.training
        generator = torch.Generator().manual_seed(shuffle) if shuffle is not None else None
        for _ in range(recipe.local_epochs):
            order = self._order(len(rows.target), generator)
            features, target = torch.from_numpy(rows.features[order]), torch.from_numpy(rows.target[order])
            for start in range(0, len(target), recipe.batch_size):
                batch = slice(start, start + recipe.batch_size)
                size = len(target[batch])
                self._descend(features[batch], target[batch], masks, divisor=size)

    def _poisson(self, rows: Rows, masks: list[torch.Tensor] | None, expected_batch: float) -> None:
        recipe = self._job.training
        for _ in range(recipe.local_steps):
            drawn = self._stream.chosen(len(rows.target), recipe.sampling_rate)
            features, target = torch.from_numpy(rows.features[drawn]), torch.from_numpy(rows.target[drawn])
            self._descend(features, target, masks, divisor=expected_batch)

    def _order(self, count: int, generator: torch.Generator | None) -> npt.NDArray[np.int64]:
        if generator is None:
            return np.argsort(self._stream.words(count), kind="stable")
        order: npt.NDArray[np.int64] = torch.randperm(count, generator=generator).numpy()
        return order

    def _descend(
        self, features: torch.Tensor, target: torch.Tensor, masks: list[torch.Tensor] | None, *, divisor: float
    ) -> None:
        """One step against the gradient of the loss, summed over the batch and divided by `divisor`."""
        for parameter in self._parameters:
            parameter.grad = None
        for start in range(0, len(target), _MOST_ROWS):
            part = slice(start, start + _MOST_ROWS)
            logits, labels = self._module(features[part]), target[part]
            if divisor == len(labels):
                loss = loss_of(logits, labels, "mean")  # bit for bit what a plain loop in torch computes
            else:
                loss = loss_of(logits, labels, "sum") / divisor
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        with torch.no_grad():
            for index, parameter in enumerate(self._parameters):
                if parameter.grad is not None:
                    if masks is not None:
                        parameter.grad.mul_(masks[index])
                    parameter.add_(parameter.grad, alpha=-self._job.training.learning_rate)

    def _masks(self, kept: npt.NDArray[np.int64]) -> list[torch.Tensor]:
        """1 on kept coordinates and 0 elsewhere, one tensor a parameter."""
        flat = torch.zeros(self._length)
        flat[torch.from_numpy(kept)] = 1.0
        sizes = [parameter.numel() for parameter in self._parameters]
        return [
            part.reshape(parameter.shape)
            for part, parameter in zip(torch.split(flat, sizes), self._parameters, strict=True)
        ]
