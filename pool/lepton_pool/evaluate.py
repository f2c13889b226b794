"""How good a model is on labelled rows: accuracy and the area under the ROC curve, from its logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_core.errors import InputError
from lepton_core.job import ModelSpec
from lepton_core.layout import Vector, require_finite

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Metrics:
    """A model's quality on one set of rows."""

    #: Share of rows whose logit has the right side of 0, in [0, 1].
    accuracy: float
    #: Probability that a positive row gets a larger logit than a negative one, ties half; None with one class only.
    auc: float | None
    rows: int


def predict(spec: ModelSpec, vector: Vector, features: Floats) -> Floats:
    """The model's logits, shape (rows,), float32; features: shape (rows, d), float32.

    Raises:
        InputError: features or vector of another shape, or not finite.
        JobError, NotFoundError, RefusedError: the model cannot be built.
    """
    import torch

    from lepton_pool.models import build_model, load_vector

    if features.ndim != 2 or features.dtype != np.float32:
        raise InputError(
            "features must be a float32 matrix", expected="(rows, d)", got=f"{features.dtype} of shape {features.shape}"
        )
    require_finite(features.reshape(-1), "features")
    module = build_model(spec, features.shape[1])
    load_vector(module, vector)
    module.eval()
    with torch.no_grad():
        logits: Floats = module(torch.from_numpy(np.ascontiguousarray(features))).numpy()
    if logits.shape != (len(features),):
        raise InputError(
            "the model does not give one logit a row", expected=f"({len(features)},)", got=str(logits.shape)
        )
    return logits


def evaluate(spec: ModelSpec, vector: Vector, features: Floats, target: Floats) -> Metrics:
    """The model's metrics on labelled rows; features: shape (rows, d), target: shape (rows,), 0 or 1.

    Raises:
        InputError: no rows, or arrays that do not fit each other or the model.
        JobError, NotFoundError, RefusedError: the model cannot be built.
    """
    _require_target(target, len(features))
    return metrics_of(predict(spec, vector, features), target)


def metrics_of(logits: Floats, target: Floats) -> Metrics:
    """The metrics of logits; both of shape (rows,), target 0 or 1.

    Raises:
        InputError: no rows, other shapes, or other labels.
    """
    _require_target(target, len(logits))
    accuracy = float(np.mean((logits > 0) == (target > 0.5)))
    return Metrics(accuracy=accuracy, auc=area_under_roc(logits, target), rows=len(target))


def area_under_roc(logits: Floats, target: Floats) -> float | None:
    """The Mann-Whitney statistic over both classes' sizes; None if a class is empty or a logit is not a number.

    Source: Hanley and McNeil 1982; ties get the mean of their ranks.
    """
    positive = target > 0.5
    positives = int(np.count_nonzero(positive))
    negatives = len(target) - positives
    if positives == 0 or negatives == 0 or bool(np.isnan(logits).any()):
        return None
    _, group, sizes = np.unique(logits, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(sizes) - (sizes - 1) / 2.0  # ranks from 1
    rank_sum = math.fsum(mean_ranks[group][positive])
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)


def _require_target(target: Floats, rows: int) -> None:
    if rows == 0 or target.shape != (rows,) or not bool(np.isin(target, (0.0, 1.0)).all()):
        raise InputError(
            "a target that does not fit the rows",
            expected=f"{max(rows, 1)} values, each 0 or 1",
            got=f"shape {target.shape}",
        )
