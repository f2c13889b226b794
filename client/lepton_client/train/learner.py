"""A member's training of one round: the job's model and rule of batches in, the update out."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lepton_client.train.rows import Rows
from lepton_core.errors import FaultError, InputError
from lepton_core.job import Job
from lepton_core.layout import Vector, require_finite

Doubles = npt.NDArray[np.float64]
#: Coordinates of the flat model, shape (kept,).
Indices = npt.NDArray[np.int64]


class Learner(Protocol):
    """A job's model, ready for rounds."""

    @property
    def length(self) -> int:
        """Values of the flat model."""
        ...

    def train(
        self, model: Vector, kept: Indices | None, rows: Rows, *, expected_batch: float, shuffle: int | None
    ) -> Vector | Doubles:
        """The weights after a round, shape (length,); coordinates that are not kept are those of `model`.

        `kept` is sorted or not, each coordinate once; None keeps all.

        Raises:
            InputError: rows that do not fit the job.
        """
        ...


class SummingLearner(Protocol):
    """A job's model, ready for rounds of one clipped sum each."""

    @property
    def length(self) -> int:
        """Values of the flat model."""
        ...

    def clipped_sum(self, model: Vector, kept: Indices | None, rows: Rows, *, sampling_rate: float) -> Doubles:
        """The sum of the rows' clipped gradients, shape (length,), float64; 0 on coordinates not kept.

        Raises:
            InputError: rows that do not fit the job.
        """
        ...


def build_learner(job: Job) -> Learner:
    """What trains this job: private steps, or plain torch where what it learns is not private by itself.

    Raises:
        JobError, NotFoundError: the model cannot be built.
        RefusedError: running statistics, or in a private job a layer without a rule for per-sample gradients.
    """
    if job.privacy.mode in ("none", "client-distributed"):
        from lepton_client.train.plain import PlainModule

        return PlainModule(job)
    from lepton_client.train.dpsgd import PrivateModule

    return PrivateModule(job)


def train_round(
    learner: Learner,
    model: Vector,
    kept: Indices | None,
    rows: Rows,
    *,
    expected_batch: float,
    shuffle: int | None = None,
) -> Vector:
    """The update w_local - w_global after a round, shape (length,), float32; 0 where not kept.

    `kept` holds the indices of the coordinates trained in this round, each once; None trains all. `expected_batch` is
    public, above 0; `shuffle` is the public seed of the order of epochs, None for a secret order.

    Raises:
        InputError: a model vector, rows or indices that do not fit.
        FaultError: the weights ran to infinity.
    """
    _require_model(model, kept, learner.length)
    if not (math.isfinite(expected_batch) and expected_batch > 0):
        raise InputError("not a batch size", where="expected_batch", expected="above 0", got=repr(expected_batch))
    end = learner.train(model, kept, rows, expected_batch=expected_batch, shuffle=shuffle)
    with np.errstate(over="ignore", invalid="ignore"):  # told below, once
        update: Vector = (end - model).astype(np.float32)
    _require_learnt(update)
    return update


def build_summing_learner(job: Job) -> SummingLearner:
    """What sums this job's clipped gradients, in mode `record-distributed`.

    Raises:
        JobError, NotFoundError, RefusedError: as `build_learner`.
    """
    from lepton_client.train.dpsgd import PrivateModule

    return PrivateModule(job)


def sum_round(
    learner: SummingLearner, model: Vector, kept: Indices | None, rows: Rows, *, sampling_rate: float
) -> Doubles:
    """The sum of clipped gradients that a member noises and sends, shape (length,), float64.

    Raises:
        InputError: a model vector, rows or indices that do not fit.
        FaultError: a gradient that is not finite.
    """
    _require_model(model, kept, learner.length)
    total = learner.clipped_sum(model, kept, rows, sampling_rate=sampling_rate)
    _require_learnt(total)
    return total


def _require_model(model: Vector, kept: Indices | None, length: int) -> None:
    require_finite(model, "model")
    if model.shape != (length,) or model.dtype != np.float32:
        raise InputError("weights that do not fit the model", expected=f"({length},)", got=f"{model.shape}")
    if kept is not None:
        _require_indices(kept, length)


def _require_learnt(update: Vector | Doubles) -> None:
    if not bool(np.isfinite(update).all()):
        raise FaultError(
            "local training diverged",
            where="update",
            expected="finite values",
            hint="lower training.learning_rate",
            reason="DIVERGED",
        )


def _require_indices(kept: Indices, length: int) -> None:
    fits = kept.ndim == 1 and kept.dtype == np.int64
    if not fits or (len(kept) and not 0 <= kept.min() <= kept.max() < length) or not _is_distinct(kept, length):
        raise InputError(
            "kept indices that do not fit the model",
            where="kept",
            expected=f"distinct int64 below {length}",
            got=f"{kept.dtype} of shape {kept.shape}",
        )


def _is_distinct(kept: Indices, length: int) -> bool:
    seen = np.zeros(length, dtype=np.bool_)
    seen[kept] = True
    return int(np.count_nonzero(seen)) == len(kept)
