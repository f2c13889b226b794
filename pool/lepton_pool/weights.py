"""A model version's bytes: safetensors with the layout's named tensors; equal vectors give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from lepton_core.errors import CodecError
from lepton_core.layout import Layout, Vector, require_finite

#: A model file is its parameters and a header; a header larger than this is no model's.
_MOST_HEADER_BYTES = 2**20


def largest_weights(layout: Layout) -> int:
    """Bytes that a model file of this layout has at most."""
    return 4 * layout.length + _MOST_HEADER_BYTES


def encode_weights(layout: Layout, vector: Vector) -> bytes:
    """The vector's named tensors as one safetensors file.

    Raises:
        CodecError: another length, or values that are not finite.
    """
    return save(layout.unflatten(require_finite(vector, "the model")))


def decode_weights(layout: Layout, data: bytes) -> Vector:
    """The vector, shape (layout.length,), float32.

    Raises:
        CodecError: not safetensors, other tensors than the layout's, or values that are not finite.
    """
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise CodecError("not a model file", expected="safetensors", got=str(error)[:120]) from None
    wrong = sorted(name for name, tensor in tensors.items() if tensor.dtype != "float32")
    if wrong:
        raise CodecError("tensors of another type", expected="float32", got=", ".join(wrong[:5]))
    return require_finite(layout.flatten(tensors), "the model")


def require_weights(layout: Layout, path: Path) -> None:
    """Return if the file holds the layout's tensors; one of them at a time is in memory.

    Raises:
        CodecError: as `decode_weights`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            expected = {place.name: place.shape for place in layout.places}
            if names != set(expected):
                odd = ", ".join(sorted(names ^ set(expected))[:5])
                raise CodecError("tensors of another model", where=str(path), expected="the layout's names", got=odd)
            for name, shape in expected.items():
                tensor = file.get_tensor(name)
                if tensor.dtype != "float32" or tensor.shape != tuple(shape):
                    raise CodecError(
                        "a tensor of another form",
                        where=f"{path}, {name}",
                        expected=f"float32 {tuple(shape)}",
                        got=f"{tensor.dtype} {tensor.shape}",
                    )
                require_finite(tensor.reshape(-1), "the model")
    except (SafetensorError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise CodecError("not a model file", where=str(path), expected="safetensors", got=str(error)[:120]) from None
