"""Named tensors as one flat vector, and back: the order and shapes everybody in a job agrees on by hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lepton_core.canonical import canonical_json
from lepton_core.errors import CodecError

#: One flat float32 vector, shape (length,).
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TensorPlace:
    """A named tensor's shape; places stand in the vector one behind another, row-major."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The places of a model's trainable tensors in its flat vector, in order."""

    places: tuple[TensorPlace, ...]

    @cached_property
    def length(self) -> int:
        """Number of values in the flat vector."""
        return sum(place.size for place in self.places)

    def digest(self) -> bytes:
        """SHA-256 of the names and shapes in order; 32 bytes; bound into a round's terms."""
        document = [[place.name, list(place.shape)] for place in self.places]
        return hashlib.sha256(b"lepton/layout/v1" + canonical_json(document)).digest()

    def flatten(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> Vector:
        """The tensors as one vector, shape (length,), float32.

        Raises:
            CodecError: a tensor is missing, unknown or of another shape.
        """
        names = [place.name for place in self.places]
        if sorted(names) != sorted(tensors):
            raise CodecError("tensors do not fit the layout", expected=", ".join(names), got=", ".join(tensors))
        flat = np.empty(self.length, dtype=np.float32)
        start = 0
        for place in self.places:
            tensor = tensors[place.name]
            if tensor.shape != place.shape:
                raise CodecError(
                    "a tensor of another shape", where=place.name, expected=str(place.shape), got=str(tensor.shape)
                )
            flat[start : start + place.size] = tensor.reshape(-1)
            start += place.size
        return flat

    def unflatten(self, vector: Vector) -> dict[str, npt.NDArray[np.float32]]:
        """The vector's named tensors, as copies.

        Raises:
            CodecError: the vector has another length.
        """
        if vector.shape != (self.length,):
            raise CodecError("a vector of another length", expected=f"({self.length},)", got=str(vector.shape))
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        start = 0
        for place in self.places:
            tensors[place.name] = vector[start : start + place.size].reshape(place.shape).astype(np.float32)
            start += place.size
        return tensors


def require_finite(vector: Vector, what: str) -> Vector:
    """The vector if every value is finite.

    Raises:
        CodecError: NaN or an infinity; says how many, not where or what.
    """
    bad = int(vector.size - np.count_nonzero(np.isfinite(vector)))
    if bad:
        raise CodecError(f"{what} holds values that are not finite", expected="finite values", got=f"{bad} NaN or Inf")
    return vector
