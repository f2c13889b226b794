"""Top-k and sign: few of the values, or one bit of each, and what is left out is added to the next update.

Both are biased; error feedback makes up for it over the rounds: the sender keeps what the decoder does not see and adds
it to its next update. It needs every sender in every round, so it is for federations without sampling of members, and
without privacy, since what is kept depends on records that were in earlier updates.

Not ring-summable: every sender has values or a scale of its own at places of its own.

Source: Stich et al. 2018 (sparsified SGD with memory), algorithm 1; Karimireddy et al. 2019 (EF-signSGD), algorithm 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lepton_core.errors import CodecError
from lepton_core.layout import Vector, require_finite


def kept_count(length: int, fraction: float) -> int:
    """Values that top-k sends, at least 1."""
    return min(length, max(1, round(length * fraction)))


def top_body_bytes(length: int, fraction: float) -> int:
    """Bytes of a top-k body: places as numbers or as one bit a value, whichever is shorter, and float32 values."""
    kept = kept_count(length, fraction)
    return min(kept * _place_type(length).itemsize, -(-length // 8)) + 4 * kept


def top_encode(update: Vector, fraction: float, longest: float = math.inf) -> bytes:
    """The values of largest magnitude, of equal ones the first, scaled down to the norm `longest`; places first."""
    kept = kept_count(len(update), fraction)
    sizes = np.abs(update)
    cut = np.partition(sizes, len(update) - kept)[len(update) - kept]
    larger = np.flatnonzero(sizes > cut)
    equal = np.flatnonzero(sizes == cut)[: kept - len(larger)]
    places = np.sort(np.concatenate([larger, equal]))
    values = update[places].astype(np.float64)
    norm = math.sqrt(float(values @ values))
    if norm > longest:
        values *= longest / norm
    return b"".join((_pack_places(places, len(update)), values.astype("<f4").tobytes()))


def top_decode(body: memoryview, length: int, fraction: float) -> Vector:
    """The update, zero where nothing was sent.

    Raises:
        CodecError: places that are not so many, ascending and below `length`, or values that are not finite.
    """
    kept = kept_count(length, fraction)
    values = np.frombuffer(body[len(body) - 4 * kept :], dtype="<f4")
    require_finite(values, "update")
    places = _unpack_places(body[: len(body) - 4 * kept], length, kept)
    if len(places) != kept or not 0 <= places[0] <= places[-1] < length or not (np.diff(places) > 0).all():
        raise CodecError(
            "places that no sender keeps", where="payload", expected=f"{kept} ascending ones below {length}"
        )
    update = np.zeros(length, dtype=np.float32)
    update[places] = values
    return update


def sign_body_bytes(length: int) -> int:
    """Bytes of a sign body: the scale and one bit a value."""
    return 4 + -(-length // 8)


def sign_encode(update: Vector, longest: float = math.inf) -> bytes:
    """The mean magnitude (float32), then one bit a value, lowest first: 1 for a negative one.

    The magnitude is at most that of a vector of norm `longest`.
    """
    scale = np.float32(min(float(np.mean(np.abs(update), dtype=np.float64)), longest / math.sqrt(len(update))))
    return b"".join((scale.astype("<f4").tobytes(), np.packbits(update < 0, bitorder="little").tobytes()))


def sign_decode(body: memoryview, length: int) -> Vector:
    """The update: the scale with each value's sign.

    Raises:
        CodecError: a scale that is no magnitude.
    """
    scale = float(np.frombuffer(body[:4], dtype="<f4")[0])
    if not (math.isfinite(scale) and scale >= 0.0):
        raise CodecError("a scale that is no magnitude", where="payload")
    negative = np.unpackbits(np.frombuffer(body[4:], dtype=np.uint8), count=length, bitorder="little")
    return np.where(negative, -scale, scale).astype(np.float32)


def _place_type(length: int) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
    return np.dtype("<u4") if length <= 2**32 else np.dtype("<u8")


def _as_bits(length: int, kept: int) -> bool:
    return -(-length // 8) < kept * _place_type(length).itemsize


def _pack_places(places: npt.NDArray[np.int64], length: int) -> bytes:
    if not _as_bits(length, len(places)):
        return places.astype(_place_type(length)).tobytes()
    marks = np.zeros(length, dtype=np.bool_)
    marks[places] = True
    return np.packbits(marks, bitorder="little").tobytes()


def _unpack_places(body: memoryview, length: int, kept: int) -> npt.NDArray[np.int64]:
    if not _as_bits(length, kept):
        return np.frombuffer(body, dtype=_place_type(length)).astype(np.int64)
    return np.flatnonzero(np.unpackbits(np.frombuffer(body, dtype=np.uint8), count=length, bitorder="little"))
