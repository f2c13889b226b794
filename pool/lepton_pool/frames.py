"""Messages between a process and its worker: a length, a JSON header, and raw tensors. No pickle.

4 bytes   length of the header, big-endian
header    JSON: {"values": {...}, "arrays": [[name, dtype, shape], ...]}
blobs     the arrays' bytes in that order, row-major, little-endian
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lepton_core.errors import FaultError, InputError

if TYPE_CHECKING:
    import asyncio

Array = npt.NDArray[Any]

#: Longest header; jobs travel as bytes in an array, so headers are small.
MOST_HEADER_BYTES = 1 << 20
#: Most bytes of arrays in one frame.
MOST_ARRAY_BYTES = 1 << 34
_LENGTH_BYTES = 4
#: Every type an array may have; the name stands in the header.
_DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<") for name in ("uint8", "int32", "int64", "uint64", "float32", "float64")
}


@dataclass(frozen=True)
class Frame:
    """Plain values and named arrays."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def array(self, name: str, dtype: type[np.generic]) -> Array:
        """The named array.

        Raises:
            InputError: it is missing or of another type.
        """
        found = self.arrays.get(name)
        if found is None or found.dtype != np.dtype(dtype):
            raise InputError(
                "a frame without an array it needs",
                where=name,
                expected=np.dtype(dtype).name,
                got="nothing" if found is None else found.dtype.name,
            )
        return found


def bytes_array(data: bytes) -> Array:
    """Bytes as a uint8 array, to travel in a frame."""
    return np.frombuffer(data, dtype=np.uint8)


def encode(frame: Frame) -> list[bytes]:
    """The frame's bytes, in parts to be written one behind another.

    Raises:
        InputError: a value JSON cannot hold, an array of a type that does not travel, or a frame too large.
    """
    described: list[tuple[str, str, tuple[int, ...]]] = []
    blobs: list[bytes] = []
    for name, array in frame.arrays.items():
        if array.dtype.name not in _DTYPES:
            raise InputError("an array of a type that does not travel", where=name, got=array.dtype.name)
        described.append((name, array.dtype.name, array.shape))
        blobs.append(np.ascontiguousarray(array, dtype=_DTYPES[array.dtype.name]).tobytes())
    try:
        header = json.dumps({"values": dict(frame.values), "arrays": described}, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError("values that JSON cannot hold", got=str(error)[:120]) from None
    if len(header) > MOST_HEADER_BYTES or sum(map(len, blobs)) > MOST_ARRAY_BYTES:
        raise InputError("a frame too large to send", got=f"{len(header)} + {sum(map(len, blobs))} bytes")
    return [len(header).to_bytes(_LENGTH_BYTES, "big"), header, *blobs]


def write_frame(stream: BinaryIO, frame: Frame) -> None:
    """Writes and flushes the frame."""
    stream.writelines(encode(frame))
    stream.flush()


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame, or None if the stream ended between frames.

    Raises:
        FaultError: the stream ended within a frame, or what came is not a frame.
    """
    start = stream.read(_LENGTH_BYTES)
    if not start:
        return None
    values, places = _parse_header(_exactly(stream, _require_length(start)))
    arrays = {name: _as_array(_exactly(stream, size), dtype, shape) for name, dtype, shape, size in places}
    return Frame(values, arrays)


async def receive_frame(reader: asyncio.StreamReader) -> Frame | None:
    """As `read_frame`, from an asyncio stream."""
    start = await reader.read(_LENGTH_BYTES)
    if not start:
        return None
    try:
        if len(start) < _LENGTH_BYTES:
            start += await reader.readexactly(_LENGTH_BYTES - len(start))
        values, places = _parse_header(await reader.readexactly(_require_length(start)))
        arrays = {name: _as_array(await reader.readexactly(size), dtype, shape) for name, dtype, shape, size in places}
    except EOFError:  # asyncio.IncompleteReadError is one
        raise _broken("the stream ended within a frame") from None
    return Frame(values, arrays)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise _broken("the stream ended within a frame")
    return data


def _require_length(start: bytes) -> int:
    length = int.from_bytes(start, "big")
    if len(start) != _LENGTH_BYTES or length > MOST_HEADER_BYTES:
        raise _broken("a header of impossible length")
    return length


def _parse_header(header: bytes) -> tuple[dict[str, Any], list[tuple[str, np.dtype[Any], tuple[int, ...], int]]]:
    """The values, and name, type, shape and bytes of each array that follows."""
    places: list[tuple[str, np.dtype[Any], tuple[int, ...], int]] = []
    try:
        document = json.loads(header)
        values = dict(document["values"])
        for name, kind, shape in document["arrays"]:
            dtype = _DTYPES[kind]
            sizes = tuple(int(size) for size in shape)
            if not isinstance(name, str) or any(size < 0 for size in sizes):
                raise _broken("an array without a name or with a negative size")
            places.append((name, dtype, sizes, math.prod(sizes) * dtype.itemsize))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _broken("a header that cannot be read") from None
    if sum(size for *_, size in places) > MOST_ARRAY_BYTES:
        raise _broken("arrays of impossible size")
    return values, places


def _as_array(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    # A copy is writable, as torch wants it, and of native byte order.
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)


def _broken(message: str) -> FaultError:
    return FaultError(message, where="frames", hint="the worker wrote something else to its standard output, or died")
