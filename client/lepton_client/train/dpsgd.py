"""DP-SGD on one owner's rows: the steps a member takes in a round of a private job.

One step (Abadi et al. 2016, algorithm 1, with a public denominator):
1. Poisson sample: every row is in the batch with the public rate q, by secret bits. Empty batches are kept.
2. Per-sample gradients of the summed loss.
3. Coordinates that the round does not keep are left out, and only then
4. each row's gradient is clipped to L2 norm C, over all parameters together, and summed (`clipping`).
5. The sum gets Gaussian noise of standard deviation sigma * C on every kept coordinate,
6. is divided by the public expected batch size B, never by the number drawn, and
7. subtracted from the weights at the learning rate.

The privacy of `local_steps` such steps is `SampledGaussian(sigma, q, local_steps)`.
Nothing but the weights comes out: no loss, no count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from lepton_client.train.clipping import ClippedSums
from lepton_client.train.layers import Method
from lepton_client.train.noise import SecretStream
from lepton_client.train.rows import Rows
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_pool.models import architecture_of, build_model

#: Most values that are held of a batch's rows at once: 256 MiB of float32. Larger batches are taken in parts.
_MOST_HELD_VALUES = 1 << 26
#: Noise is drawn for so many coordinates at once.
_NOISE_BLOCK = 1 << 15


class PrivateModule:
    """A job's model, ready to take private steps on flat weights.

    Raises:
        JobError, NotFoundError: the model cannot be built.
        RefusedError: running statistics, or a layer without a rule for per-sample gradients.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._architecture = architecture_of(job)
        self._sums = ClippedSums(build_model(self._architecture), self._architecture.features)
        self._total = torch.zeros(self._sums.length, dtype=torch.float64)
        self._stream = SecretStream()

    @property
    def length(self) -> int:
        """Values of the flat model."""
        return self._sums.length

    @property
    def methods(self) -> Mapping[str, Method]:
        """How each trained layer's rows are clipped, by the layer's name."""
        return self._sums.methods

    def train(
        self,
        model: Vector,
        kept: npt.NDArray[np.int64] | None,
        rows: Rows,
        *,
        expected_batch: float,
        shuffle: int | None,
    ) -> Vector:
        """The weights after the job's local steps, shape (length,); only kept coordinates differ from `model`'s.

        Raises:
            InputError: rows that do not fit the job.
        """
        del shuffle  # private batches are drawn by secret bits
        rows.require_fit(self._architecture.features, self._job.task.target.class_count)
        recipe, privacy = self._job.training, self._job.privacy
        noise = (privacy.noise_multiplier or 0.0) * privacy.clip_norm
        index = None if kept is None or len(kept) == self.length else torch.from_numpy(kept)
        mask = None if index is None else torch.zeros(self.length, dtype=torch.bool).index_fill_(0, index, value=True)
        weights = self._sums.flat
        weights.copy_(torch.from_numpy(model))
        for _ in range(recipe.local_steps):
            drawn = self._stream.chosen(len(rows.target), recipe.sampling_rate)
            total = self._clipped_sum(rows, drawn, mask, clip_norm=privacy.clip_norm)
            if index is not None:
                total = total[index]
            self._descend(total, index, noise, recipe.learning_rate / expected_batch)
        trained: Vector = weights.numpy().copy()
        return trained

    def _clipped_sum(
        self, rows: Rows, drawn: npt.NDArray[np.int64], mask: torch.Tensor | None, *, clip_norm: float
    ) -> torch.Tensor:
        """Sum of the drawn rows' clipped gradients, (length,), float64; overwritten by the next call.

        Where `mask`, (length,), is false, values mean nothing.
        """
        self._total.zero_()
        for start in range(0, len(drawn), step := max(1, _MOST_HELD_VALUES // self._sums.held_per_row)):
            part = drawn[start : start + step]
            features, target = torch.from_numpy(rows.features[part]), torch.from_numpy(rows.target[part])
            self._sums.add(self._total, features, target, clip_norm=clip_norm, kept=mask)
        return self._total

    def _descend(self, total: torch.Tensor, index: torch.Tensor | None, noise: float, rate: float) -> None:
        """One step against the sum of the kept coordinates and noise of that standard deviation; `total` is spent."""
        for start in range(0, len(total), _NOISE_BLOCK):
            part = slice(start, start + _NOISE_BLOCK)
            change = total[part]
            change += torch.from_numpy(self._stream.gaussian(len(change), noise))
            if index is None:
                self._sums.flat[part].sub_(change, alpha=rate)
            else:
                self._sums.flat[index[part]] -= rate * change
