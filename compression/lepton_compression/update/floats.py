"""Models as bytes on their way down: half or single precision, bytes of equal weight side by side, then zstd.

Signs and exponents of neighbouring weights are alike and their low bytes are noise: put apart (a byte shuffle), the
alike ones compress. Half precision is for values that it holds exactly; nothing is rounded here.

20 bytes: the magic `LPF1`, bytes a value (1 byte, 2 or 4), 7 zero bytes, number of values (8 bytes, little-endian);
then one zstd frame, whose content size must be what the header says, before anything is decompressed.

Masked words do not compress (ratio 1.000), so nothing masked comes here.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import zstandard

from lepton_compression.update.plan import LONGEST_VECTOR
from lepton_core.errors import CodecError
from lepton_core.layout import Vector, require_finite

_HEADER = struct.Struct("<4sB7xQ")
_MAGIC = b"LPF1"
_LEVEL = 3
_TYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<f2"), 4: np.dtype("<f4")}


def pack_floats(vector: Vector) -> bytes:
    """The vector, shape (length,), float32, exactly: in half precision if that holds every value, else as it is.

    Raises:
        CodecError: another shape or type, or a value that is not finite.
    """
    if vector.ndim != 1 or not len(vector) or vector.dtype != np.float32:
        raise CodecError("not a vector", expected="float32 of shape (length,)", got=f"{vector.dtype} {vector.shape}")
    require_finite(vector, "the model")
    width = 2 if is_half(vector) else 4
    planes = vector.astype(_TYPES[width]).view(np.uint8).reshape(len(vector), width).T
    frame = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(planes.tobytes())
    return _HEADER.pack(_MAGIC, width, len(vector)) + frame


def unpack_floats(data: bytes, length: int) -> Vector:
    """The vector of so many values, shape (length,), float32.

    Raises:
        CodecError: another version, length or width, a frame of another size, or values that are not finite.
    """
    if not 1 <= length <= LONGEST_VECTOR:
        raise CodecError("a length that no model has", expected=f"1 to {LONGEST_VECTOR}", got=str(length))
    if len(data) < _HEADER.size:
        raise CodecError("not a packed model", expected=f"at least {_HEADER.size} bytes", got=f"{len(data)} bytes")
    magic, width, told = _HEADER.unpack_from(data)
    if (magic, told) != (_MAGIC, length) or width not in _TYPES:
        raise CodecError(
            "another packed model",
            expected=f"{_MAGIC!r}, {length} values of 2 or 4 bytes",
            got=f"{magic!r}, {told} values of {width} bytes",
        )
    size, frame = width * length, data[_HEADER.size :]
    try:
        if zstandard.frame_content_size(frame) != size:
            raise CodecError("a packed model of another size", expected=f"{size} bytes")
        content = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError("a packed model that cannot be unpacked", got=str(error)[:120]) from None
    planes = np.frombuffer(content, dtype=np.uint8).reshape(width, length)
    vector: Vector = np.ascontiguousarray(planes.T).view(_TYPES[width]).reshape(length).astype(np.float32)
    return require_finite(vector, "the model")


def is_half(vector: Vector) -> bool:
    """True if half precision holds every value exactly."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(vector.astype(np.float16).astype(np.float32), vector))
