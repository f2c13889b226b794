"""A model version's bytes: safetensors with the layout's named tensors; equal vectors give equal bytes."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from lepton_core.errors import CodecError
from lepton_core.layout import Layout, Vector, require_finite

#: A model file is its parameters and a header; a header larger than this is no model's.
_MOST_HEADER_BYTES = 2**20


def largest_weights(layout: Layout) -> int:
    """Bytes that a model file of this layout has at most."""
    return 4 * layout.length + _MOST_HEADER_BYTES


def encode_weights(layout: Layout, vector: Vector) -> bytes:
    """The vector's named tensors as one safetensors file, by name; its digest hangs on no library's version.

    Raises:
        CodecError: another length, or values that are not finite.
    """
    values = np.ascontiguousarray(require_finite(vector, "the model"), dtype="<f4")
    if values.shape != (layout.length,):
        raise CodecError("a vector of another length", expected=f"({layout.length},)", got=str(values.shape))
    header, parts = _form(layout)
    return b"".join((header, *(values[part].data for part in parts)))


@lru_cache(maxsize=16)
def _form(layout: Layout) -> tuple[bytes, tuple[slice, ...]]:
    """The file's header, and the parts of the vector in the order in which they follow it."""
    starts = dict(zip(layout.places, accumulate((place.size for place in layout.places), initial=0), strict=False))
    document, parts, end = {}, [], 0
    for place in sorted(layout.places, key=lambda place: place.name):
        begin, end = end, end + 4 * place.size
        document[place.name] = {"dtype": "F32", "shape": place.shape, "data_offsets": (begin, end)}
        parts.append(slice(starts[place], starts[place] + place.size))
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, tuple(parts)


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
