"""How models go down in a job that asks for `downlink = "delta"`: what the coordinator publishes of each version.

Members hold a public copy of the model, in half precision from version 1 on. The coordinator alone keeps the exact
model, on which the server optimizer steps; what half precision and 8-bit differences leave out is thereby in the next
difference. Nobody trains on the last version, so that one is published exact.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass

from lepton_compression.update.delta import apply_delta, delta_bytes, encode_delta
from lepton_compression.update.floats import pack_floats, unpack_floats
from lepton_core.errors import CodecError
from lepton_core.ids import Digest, ModelVersion
from lepton_core.job import Job
from lepton_core.layout import Vector

_LABEL = b"lepton/downlink/v1/seed"
#: A snapshot in half precision, before zstd takes its tenth or so away.
_SNAPSHOT_BYTES_PER_VALUE = 2
#: A packed model of values that do not compress is its header and this much more.
_PACKED_HEADER_BYTES = 2**16


@dataclass(frozen=True, eq=False)
class Descent:
    """A model version as members get it."""

    #: The model they hold then, shape (length,), float32; it is the version.
    held: Vector
    #: What leads to it from the version before; empty where half precision cannot hold the model.
    delta: bytes
    #: The same model on its own.
    snapshot: bytes


def is_stepwise(job: Job) -> bool:
    """True if members hold half-precision models and get differences."""
    return not job.aggregation.secure and job.aggregation.downlink == "delta"


def is_published_exact(job: Job, version: ModelVersion) -> bool:
    """True for a version that nobody trains on, and in jobs whose models go down whole."""
    return version >= job.training.rounds or not is_stepwise(job)


def descend(base: Vector, base_digest: Digest, exact: Vector) -> Descent:
    """The version after the one that members hold, `base`, near `exact`; both of shape (length,), float32.

    Raises:
        CodecError: vectors that do not fit, or are not finite.
    """
    known = bytes.fromhex(base_digest)
    # Members check the outcome, so the seed need only be public, and the same when the work is done again.
    seed = hashlib.sha256(_LABEL + known).digest()
    delta = encode_delta(base, exact, base_digest=known, seed=seed)
    with contextlib.suppress(CodecError):  # beyond 65,504, which half precision cannot hold
        held = apply_delta(base, known, delta)
        return Descent(held, delta, pack_floats(held))
    return Descent(exact, b"", pack_floats(exact))


def follow_delta(base: Vector, base_digest: Digest, delta: bytes) -> Vector:
    """The model that a difference leads to, shape (length,), float32.

    Raises:
        CodecError: not a difference to this model.
    """
    return apply_delta(base, bytes.fromhex(base_digest), delta)


def read_snapshot(content: bytes, length: int) -> Vector:
    """The model of so many values that was packed, shape (length,), float32.

    Raises:
        CodecError: not such a snapshot.
    """
    return unpack_floats(content, length)


def prefers_deltas(missing: int, length: int) -> bool:
    """True if so many differences are fewer bytes than a snapshot; a model of a few dozen values has none that are."""
    return 0 < missing * delta_bytes(length) < _SNAPSHOT_BYTES_PER_VALUE * length


def largest_snapshot(length: int) -> int:
    """Most bytes of a snapshot of so many values."""
    return 4 * length + length // 128 + _PACKED_HEADER_BYTES
