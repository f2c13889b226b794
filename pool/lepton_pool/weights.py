"""A model version's bytes: safetensors with the layout's named tensors; equal vectors give equal bytes."""

from __future__ import annotations

import json

from safetensors import SafetensorError
from safetensors.numpy import load, save

from lepton_core.errors import CodecError
from lepton_core.layout import Layout, Vector, require_finite


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
