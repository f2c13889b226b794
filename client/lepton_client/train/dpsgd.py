"""DP-SGD on one owner's rows: the steps a member takes in a round of a private job.

One step (Abadi et al. 2016, algorithm 1, with a public denominator):
1. Poisson sample: every unit is in the batch with the public rate q, by secret bits, and all its rows with it. A unit
   is a row, or all rows of a subject, as the job says. Empty batches are kept.
2. Per-unit gradients: a row's, of its loss, or a subject's, of the mean loss of its rows.
3. Coordinates that the round does not keep are left out, and only then
4. each unit's gradient is clipped to L2 norm C, over all parameters together, and summed (`clipping`).
5. The sum gets Gaussian noise of standard deviation sigma * C on every kept coordinate,
6. is divided by the public expected batch size B in units, never by the number drawn, and
7. subtracted from the weights at the learning rate.

The privacy of `local_steps` such steps is `SampledGaussian(sigma, q, local_steps)`. Where the noise is distributed,
steps 1 to 4 are all (`clipped_sum`), over all rows or a sample, and the member adds its share when it encodes the sum.
Nothing but the weights comes out: no loss, no count.

Memory: of a batch's rows at most `_MOST_HELD_VALUES` values are held, in parts of whole units. A subject of more rows
than that is taken in slices, with one more float64 vector of the model's length (`ClippedSums.add_long`).
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
        self._total = np.zeros(self._sums.length)
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
            RefusedError: MISSING_SUBJECT.
        """
        del shuffle  # private batches are drawn by secret bits
        rows.require_fit(self._architecture.features, self._job.task.target.class_count)
        recipe, privacy = self._job.training, self._job.privacy
        noise = (privacy.noise_multiplier or 0.0) * privacy.clip_norm
        mask = None if kept is None or len(kept) == self.length else _mask_of(kept, self.length)
        weights: Vector = self._sums.flat.numpy()
        weights[:] = model
        for _ in range(recipe.local_steps):
            drawn = self._stream.chosen(rows.units(privacy.unit).count, recipe.sampling_rate)
            total = self._clipped_sum(rows, drawn, mask, clip_norm=privacy.clip_norm)
            rate = recipe.learning_rate / expected_batch
            if mask is None:
                self._stream.descend(weights, total, noise, rate)
            else:
                changed = weights[kept]
                self._stream.descend(changed, total[kept], noise, rate)
                weights[kept] = changed
        return weights.copy()

    def clipped_sum(
        self, model: Vector, kept: npt.NDArray[np.int64] | None, rows: Rows, *, sampling_rate: float
    ) -> npt.NDArray[np.float64]:
        """The sum of the units' clipped gradients at these weights, (length,), float64; 0 on coordinates not kept.

        Each unit is in it with that probability, by secret bits; at 1 all are. One unit moves it by at most the job's
        `clip_norm`. There is no noise in it: nothing of it may leave before it has been noised.

        Raises:
            InputError: rows that do not fit the job.
            RefusedError: MISSING_SUBJECT.
        """
        rows.require_fit(self._architecture.features, self._job.task.target.class_count)
        mask = None if kept is None or len(kept) == self.length else _mask_of(kept, self.length)
        self._sums.flat.numpy()[:] = model
        drawn = self._stream.chosen(rows.units(self._job.privacy.unit).count, sampling_rate)
        total = self._clipped_sum(rows, drawn, mask, clip_norm=self._job.privacy.clip_norm)
        return total.copy() if mask is None else np.where(mask.numpy(), total, 0.0)

    def _clipped_sum(
        self, rows: Rows, drawn: npt.NDArray[np.int64], mask: torch.Tensor | None, *, clip_norm: float
    ) -> npt.NDArray[np.float64]:
        """Sum of the drawn units' clipped gradients, (length,), float64; overwritten by the next call.

        `drawn`: numbers of units, (drawn,), below `rows.units(unit).count`. Where `mask`, (length,), is false, values
        mean nothing.
        """
        self._total[:] = 0.0
        most = max(1, _MOST_HELD_VALUES // self._sums.held_per_row)
        for part in rows.units(self._job.privacy.unit).parts(drawn, most):
            if len(part.rows) > most:
                slices = (_tensors(rows, part.rows[start : start + most]) for start in range(0, len(part.rows), most))
                self._sums.add_long(self._total, slices, len(part.rows), clip_norm=clip_norm, kept=mask)
            else:
                tensors = _tensors(rows, part.rows)
                self._sums.add(self._total, *tensors, clip_norm=clip_norm, kept=mask, sizes=part.sizes)
        return self._total


def _tensors(rows: Rows, places: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(rows.features[places]), torch.from_numpy(rows.target[places])


def _mask_of(kept: npt.NDArray[np.int64], length: int) -> torch.Tensor:
    """True on the kept coordinates, (length,)."""
    mask = np.zeros(length, dtype=np.bool_)
    mask[kept] = True
    return torch.from_numpy(mask)
