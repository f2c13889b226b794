"""Codecs of updates that nothing masks: each a pure function of the vector, public terms, and what was left out before.

| codec | bytes a value | biased | error feedback |
|---|---|---|---|
| `Float32` | 4 | no | |
| `Float16` | 2 | no (rounds to even) | |
| `Eden(bits)` | bits / 8 | no | |
| `TopK(fraction)` | up to 8 times the fraction | yes | may have |
| `Sign()` | 1 / 8 | yes | may have |

None is ring-summable: a secure round refuses them. `lepton_compression.update.pipeline` is the one that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, assert_never

import numpy as np

from lepton_compression.update import eden, feedback
from lepton_compression.update.framing import HEADER_BYTES, Frame
from lepton_compression.update.plan import LONGEST_VECTOR
from lepton_compression.update.streams import require_seed
from lepton_core.errors import CodecError
from lepton_core.layout import Vector, require_finite


@dataclass(frozen=True)
class Float32:
    """Values as they are."""

    ring_summable: ClassVar[bool] = False
    feeds_back: ClassVar[bool] = False


@dataclass(frozen=True)
class Float16:
    """Values in half precision; a value beyond its range of 65504 is refused."""

    ring_summable: ClassVar[bool] = False
    feeds_back: ClassVar[bool] = False


@dataclass(frozen=True)
class Eden:
    """`lepton_compression.update.eden`, at 0.05 to 8 bits a value."""

    bits: float = 4.0
    ring_summable: ClassVar[bool] = False
    feeds_back: ClassVar[bool] = False


@dataclass(frozen=True)
class TopK:
    """The largest values, this fraction of all."""

    fraction: float = 0.01
    ring_summable: ClassVar[bool] = False
    feeds_back: ClassVar[bool] = True


@dataclass(frozen=True)
class Sign:
    """One bit a value, and the mean magnitude."""

    ring_summable: ClassVar[bool] = False
    feeds_back: ClassVar[bool] = True


PlainCodec = Float32 | Float16 | Eden | TopK | Sign


@dataclass(frozen=True, eq=False)
class EncodedUpdate:
    """One sender's update as it is sent, and what the decoder will not see of it."""

    payload: bytes
    #: E = sum (x - x_hat)^2, x with what was left out before.
    squared_error: float
    #: x - x_hat, shape (length,), float32: to be given to the next encoding once this one has counted.
    residual: Vector


def payload_bytes(codec: PlainCodec, length: int) -> int:
    """Bytes of an encoded update of so many values; the same for all.

    Raises:
        CodecError: a parameter or length out of range.
    """
    return HEADER_BYTES + _body_bytes(codec, length)


def encode_plain_update(
    codec: PlainCodec, update: Vector, seed: bytes, *, residual: Vector | None = None, longest: float = math.inf
) -> EncodedUpdate:
    """The update, shape (length,), float32, encoded; it and `residual` are left as they were.

    `seed` is 32 bytes, public, and the sender's own, so that senders' errors are independent. `residual` is what
    this sender's last encoding left out, for codecs that feed back; those send at most the L2 norm `longest`, and what
    is beyond it is left out as well.

    Raises:
        CodecError: NaN or Inf, another shape or type, a value that the codec cannot hold, a seed that is not 32 bytes,
            or a residual or a longest norm for a codec that has no use for one.
    """
    require_seed(seed, "codec seed")
    _require_vector(update, "update")
    if not longest > 0.0 or (longest < math.inf and not codec.feeds_back):
        raise CodecError(
            "a longest norm that this codec cannot keep",
            where="longest",
            expected="above 0, and only with a codec that feeds back",
            got=f"{longest:g} with {type(codec).__name__}",
        )
    if residual is not None:
        if not codec.feeds_back:
            raise CodecError("this codec has no error feedback", where="residual", got=type(codec).__name__)
        _require_vector(residual, "residual")
        if residual.shape != update.shape:
            raise CodecError(
                "a residual of another length", where="residual", expected=f"{update.shape}", got=f"{residual.shape}"
            )
        update = require_finite(update + residual, "update")
    length = len(update)
    payload = Frame(_number(codec), _parameter(codec), length).around(_encode_body(codec, update, seed, longest), seed)
    left = update - decode_plain_update(codec, payload, length, seed)
    exact = left.astype(np.float64)
    return EncodedUpdate(payload, float(exact @ exact), left)


def decode_plain_update(codec: PlainCodec, payload: bytes, length: int, seed: bytes) -> Vector:
    """The update, shape (length,), float32.

    Raises:
        CodecError: a payload of another codec, version, length, number of values or seed; or one that no sender makes.
    """
    frame = Frame(_number(codec), _parameter(codec), length)
    body = frame.require_body(payload, seed, _body_bytes(codec, length))
    match codec:
        case Float32():
            update: Vector = np.frombuffer(body, dtype="<f4").astype(np.float32)
        case Float16():
            update = np.frombuffer(body, dtype="<f2").astype(np.float32)
        case Eden(bits):
            update = eden.eden_decode(body, length, bits, seed)
        case TopK(fraction):
            update = feedback.top_decode(body, length, fraction)
        case Sign():
            update = feedback.sign_decode(body, length)
        case _:
            assert_never(codec)
    return require_finite(update, "update")


def _encode_body(codec: PlainCodec, update: Vector, seed: bytes, longest: float) -> bytes:
    match codec:
        case Float32():
            return update.astype("<f4").tobytes()
        case Float16():
            with np.errstate(over="ignore"):
                halves = update.astype("<f2")
            require_finite(halves.astype(np.float32), "an update in half precision")
            return halves.tobytes()
        case Eden(bits):
            return eden.eden_encode(update, bits, seed)
        case TopK(fraction):
            return feedback.top_encode(update, fraction, longest)
        case Sign():
            return feedback.sign_encode(update, longest)
        case _:
            assert_never(codec)


def _body_bytes(codec: PlainCodec, length: int) -> int:
    if not 1 <= length <= LONGEST_VECTOR:
        raise CodecError(
            "a length that no update has", where="length", expected=f"1 to {LONGEST_VECTOR}", got=str(length)
        )
    match codec:
        case Float32():
            return 4 * length
        case Float16():
            return 2 * length
        case Eden(bits):
            return eden.shape_of(length, bits).body_bytes
        case TopK(fraction):
            if not 0.0 < fraction <= 1.0:
                raise CodecError("not a fraction", where="fraction", expected="above 0, at most 1", got=f"{fraction:g}")
            return feedback.top_body_bytes(length, fraction)
        case Sign():
            return feedback.sign_body_bytes(length)
        case _:
            assert_never(codec)


def _number(codec: PlainCodec) -> int:
    """The codec's number on the wire."""
    return {Float32: 1, Float16: 2, Eden: 3, TopK: 4, Sign: 5}[type(codec)]


def _parameter(codec: PlainCodec) -> float:
    match codec:
        case Eden(bits):
            return float(bits)
        case TopK(fraction):
            return float(fraction)
        case _:
            return 0.0


def _require_vector(vector: Vector, what: str) -> None:
    if vector.ndim != 1 or not len(vector) or vector.dtype != np.float32:
        raise CodecError(
            f"not an {what}",
            where=what,
            expected="float32 of shape (length,)",
            got=f"{vector.dtype} of shape {vector.shape}",
        )
    require_finite(vector, what)
