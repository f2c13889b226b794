"""An owner's rows as training takes them, whose they are, and the loss that a model has on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_client.train.units import Indices, Units
from lepton_core.errors import InputError, RefusedError
from lepton_core.layout import require_finite
from lepton_core.privacy.units import UNIT_SUBJECT, Unit

Floats = npt.NDArray[np.float32]

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Rows:
    """An owner's rows: features of shape (rows, d) and target of shape (rows,), each row's class; both float32.

    Raises:
        InputError: other shapes or types, values that are not finite, or labels that are no whole numbers from 0.
    """

    features: Floats
    target: Floats
    #: Whose each row is, (rows,), int64; rows of one number are one subject's. None if nobody said.
    subjects: Indices | None = None

    def __post_init__(self) -> None:
        features, target = self.features, self.target
        if features.ndim != 2 or target.shape != (len(features),) or {features.dtype, target.dtype} != {_FLOAT32}:
            raise InputError(
                "rows that do not fit together",
                expected="features (rows, d) and target (rows,), float32",
                got=f"{features.dtype} of shape {features.shape}, {target.dtype} of shape {target.shape}",
            )
        if self.subjects is not None and (self.subjects.shape != target.shape or self.subjects.dtype != np.int64):
            raise InputError(
                "subjects that do not fit the rows",
                expected="one for each row, int64",
                got=f"{self.subjects.dtype} of shape {self.subjects.shape}",
            )
        require_finite(features.reshape(-1), "features")
        if not bool((np.isfinite(target) & (target >= 0) & (target == np.floor(target))).all()):
            raise InputError("a target that is no class", where="target", expected="whole numbers from 0")

    def __repr__(self) -> str:
        return "Rows(<private>)"

    def units(self, unit: Unit) -> Units:
        """How the rows fall into what is drawn and clipped: subjects where they are protected, else each by itself.

        Raises:
            RefusedError: MISSING_SUBJECT, if nobody said whose the rows are and that matters.
        """
        if unit != UNIT_SUBJECT:
            return self._records
        if self.subjects is None:
            raise RefusedError(
                "rows that nobody is named for",
                where="subjects",
                expected="a subject for each row, as privacy.unit is subject",
                got="none",
                hint="name the column of subjects in the mapping, under subject",
                reason="MISSING_SUBJECT",
            )
        return self._by_subject

    @cached_property
    def _records(self) -> Units:
        return Units(len(self.target))

    @cached_property
    def _by_subject(self) -> Units:
        return Units(len(self.target), self.subjects)

    def require_fit(self, features: int, classes: int) -> None:
        """Refuse rows of another width, or of classes that the job does not have; neither is told.

        Raises:
            InputError: they do not fit the job.
        """
        if self.features.shape[1] != features or bool((self.target >= classes).any()):
            raise InputError(
                "rows that do not fit the job", expected=f"{features} features, and classes from 0 to {classes - 1}"
            )


def loss_of(logits: torch.Tensor, target: torch.Tensor, reduction: Literal["mean", "sum", "none"]) -> torch.Tensor:
    """The logistic loss of logits (rows,), or the cross entropy of logits (rows, classes); target: (rows,), float32."""
    if logits.ndim == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction=reduction)
    return nn.functional.cross_entropy(logits, target.long(), reduction=reduction)
