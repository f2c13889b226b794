"""How good a model is on labelled rows: accuracy and the area under the ROC curve, from its logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_core.errors import InputError
from lepton_core.layout import Vector, require_finite
from lepton_pool.models import Architecture, build_model, load_vector

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Metrics:
    """A model's quality on one set of rows."""

    #: Share of rows whose class is told right, in [0, 1]: by the logit's side of 0, or by the largest logit.
    accuracy: float
    #: Probability that a positive row gets a larger logit than a negative one, ties half; None with more than two
    #: classes, or rows of one class only.
    auc: float | None
    rows: int


def predict(architecture: Architecture, vector: Vector, features: Floats) -> Floats:
    """The model's logits, shape (rows,) or (rows, outputs), float32; features: shape (rows, d), float32.

    Raises:
        InputError: features or vector of another shape, or not finite.
        JobError, NotFoundError, RefusedError: the model cannot be built.
    """
    import torch

    if features.ndim != 2 or features.dtype != np.float32 or features.shape[1] != architecture.features:
        raise InputError(
            "features must be a float32 matrix of the model's width",
            expected=f"(rows, {architecture.features})",
            got=f"{features.dtype} of shape {features.shape}",
        )
    require_finite(features.reshape(-1), "features")
    module = build_model(architecture)
    load_vector(module, vector)
    module.eval()
    with torch.no_grad():
        logits: Floats = module(torch.from_numpy(np.ascontiguousarray(features))).numpy()
    expected = (len(features),) if architecture.outputs == 1 else (len(features), architecture.outputs)
    if logits.shape != expected:
        raise InputError(
            "the model gives other logits than the job asks for", expected=f"{expected}", got=f"{logits.shape}"
        )
    return logits


def evaluate(architecture: Architecture, vector: Vector, features: Floats, target: Floats) -> Metrics:
    """The model's metrics on labelled rows; features: shape (rows, d), target: shape (rows,), each row's class.

    Raises:
        InputError: no rows, or arrays that do not fit each other or the model.
        JobError, NotFoundError, RefusedError: the model cannot be built.
    """
    _require_target(target, len(features), max(2, architecture.outputs))
    return metrics_of(predict(architecture, vector, features), target)


def metrics_of(logits: Floats, target: Floats) -> Metrics:
    """The metrics of logits, shape (rows,) with target 0 or 1, or shape (rows, classes); target: shape (rows,).

    A row with a logit that is not a number counts as wrong.

    Raises:
        InputError: no rows, other shapes, or other labels.
    """
    if logits.ndim == 2:
        _require_target(target, len(logits), logits.shape[1])
        right = (np.argmax(logits, axis=1) == target) & ~np.isnan(logits).any(axis=1)
        return Metrics(accuracy=float(np.mean(right)), auc=None, rows=len(target))
    _require_target(target, len(logits), 2)
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


def _require_target(target: Floats, rows: int, classes: int) -> None:
    if rows == 0 or target.shape != (rows,) or not bool(np.isin(target, np.arange(classes)).all()):
        raise InputError(
            "a target that does not fit the rows",
            expected=f"{max(rows, 1)} values, each a class from 0 to {classes - 1}",
            got=f"shape {target.shape}",
        )
