"""The next model as a difference to the one that members hold: 8 bits a value, rotated, with one public scale.

The server rounds the rotated difference to whole steps of 1/127 of its largest value; what rounding leaves out stays
with the server, which adds it to the next difference. Members add the decoded difference and round to half precision.
Both do the same exact arithmetic, integers and one last multiplication, so that all hold the same model, bit for bit,
which its hash shows.

The bytes: the magic `LPD1`, 4 zero bytes, number of values (8), step (float64), the base's SHA-256 (32), the seed (32),
then one signed byte for each rotated value.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from lepton_compression.update.plan import LONGEST_VECTOR, SEED_BYTES, SMALLEST_BLOCK
from lepton_compression.update.rotation import Rotation
from lepton_compression.update.streams import require_seed
from lepton_core.errors import CodecError
from lepton_core.layout import Vector, require_finite

_HEADER = struct.Struct("<4s4xQd32s32s")
_MAGIC = b"LPD1"
_MOST = 127


def delta_bytes(length: int) -> int:
    """Bytes of a difference of so many values."""
    return _HEADER.size + -(-length // SMALLEST_BLOCK) * SMALLEST_BLOCK


def encode_delta(base: Vector, target: Vector, *, base_digest: bytes, seed: bytes) -> bytes:
    """What leads from `base` to near `target`, both of shape (length,), float32.

    `base_digest` is the SHA-256 by which members know the base; `seed` is 32 public bytes, new for each difference.

    Raises:
        CodecError: vectors that do not fit, or are not finite.
    """
    _require_pair(base, target)
    require_seed(seed, "delta seed")
    padded = -(-len(base) // SMALLEST_BLOCK) * SMALLEST_BLOCK
    change = np.zeros(padded, dtype=np.float64)
    change[: len(base)] = target.astype(np.float64) - base
    rotated = Rotation(seed, padded).forward(change)
    step = float(np.abs(rotated).max()) / _MOST
    steps = np.rint(rotated / step).astype(np.int8) if step > 0.0 else np.zeros(padded, dtype=np.int8)
    header = _HEADER.pack(_MAGIC, len(base), step, _require_digest(base_digest), seed)
    return header + steps.tobytes()


def apply_delta(base: Vector, base_digest: bytes, delta: bytes) -> Vector:
    """The model that the difference leads to, shape (length,), float32, every value exact in half precision.

    Raises:
        CodecError: another version, length or base; a step that is none; or a model that half precision cannot hold.
    """
    if len(delta) != delta_bytes(len(base)):
        raise CodecError(
            "a difference of another length",
            where="delta",
            expected=f"{delta_bytes(len(base))} bytes for {len(base)} values",
            got=f"{len(delta)} bytes",
        )
    magic, length, step, found_base, seed = _HEADER.unpack_from(delta)
    if magic != _MAGIC or length != len(base):
        raise CodecError("not such a difference", where="delta", expected=f"{_MAGIC!r} of {len(base)} values")
    if found_base != _require_digest(base_digest):
        raise CodecError(
            "a difference to another model", where="delta", expected=base_digest.hex(), got=found_base.hex()
        )
    if not (math.isfinite(step) and step >= 0.0):
        raise CodecError("a step that is none", where="delta", got=repr(step))
    steps = np.frombuffer(delta, dtype=np.int8, offset=_HEADER.size).astype(np.float64)
    change = Rotation(seed, len(steps)).inverse(steps)[: len(base)] * step
    with np.errstate(over="ignore"):
        halves = (base.astype(np.float64) + change).astype(np.float16)
    return require_finite(halves.astype(np.float32), "the model in half precision")


def _require_pair(base: Vector, target: Vector) -> None:
    if base.shape != target.shape or base.ndim != 1 or not 1 <= len(base) <= LONGEST_VECTOR:
        raise CodecError("models that do not fit together", expected=f"{base.shape}", got=f"{target.shape}")
    require_finite(base, "the base")
    require_finite(target, "the target")


def _require_digest(digest: bytes) -> bytes:
    if len(digest) != SEED_BYTES:
        raise CodecError("not a SHA-256", where="base_digest", expected="32 bytes", got=f"{len(digest)} bytes")
    return digest
