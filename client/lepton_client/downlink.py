"""Models that nobody can compute anew: fetched whole, or stepped to from the model that this member holds.

The digest in the round's announcement decides what is right. A difference that does not lead there, or that cannot be
had, costs nothing but its bytes: the snapshot is fetched in its place, and if that is not the model either, the
coordinator is to blame.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from lepton_client.computing import compute
from lepton_client.effects import Train
from lepton_core.errors import CodecError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, JobId, ModelVersion, digest_of
from lepton_core.layout import Layout, Vector
from lepton_core.session import Lineage
from lepton_pool.downlink import follow_delta, is_stepwise, largest_snapshot, prefers_deltas, read_snapshot
from lepton_pool.weights import decode_weights, encode_weights, largest_weights

#: A difference is a byte a value, its padding and a header.
_DELTA_HEADER_BYTES = 2**10


class Fetches(Protocol):
    """What models are fetched by: `Transfers`."""

    async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
        """The bytes of this digest."""
        ...

    async def lineage(self, job: JobId, after: ModelVersion) -> Lineage:
        """What made a job's model versions after this one."""
        ...


@dataclass(frozen=True, eq=False)
class _Held:
    """A model version in memory."""

    version: ModelVersion
    #: SHA-256 of the model's file.
    digest: Digest
    #: Shape (model_length,), float32.
    vector: Vector


class Descents:
    """The model that this member holds of each job whose models come down. Runs on the event loop."""

    def __init__(self, transfers: Fetches) -> None:
        self._transfers = transfers
        self._held: dict[JobId, _Held] = {}

    def forget(self, job: JobId) -> None:
        """The job is over."""
        self._held.pop(job, None)

    async def model(self, layout: Layout, effect: Train, deadline_s: float) -> Vector:
        """The announced model, shape (layout.length,), float32.

        Raises:
            PeerViolation: bytes that are not the announced model.
            CodecError, LeptonError: what is no model, or cannot be had.
        """
        if not is_stepwise(effect.job):
            return await self.whole(layout, effect.model_digest, deadline_s)
        held = self._held.get(effect.job_id)
        if held is None or held.digest != effect.model_digest:
            vector = await self._fetched(layout, held, effect, deadline_s)
            held = self._held[effect.job_id] = _Held(effect.model_version, effect.model_digest, vector)
        return held.vector

    async def whole(self, layout: Layout, digest: Digest, deadline_s: float) -> Vector:
        """The model of this file, shape (layout.length,), float32."""
        largest = largest_weights(layout)
        content = await self._transfers.download(digest, largest=largest, deadline_s=deadline_s)
        return await asyncio.to_thread(decode_weights, layout, content)

    async def _fetched(self, layout: Layout, held: _Held | None, effect: Train, deadline_s: float) -> Vector:
        if effect.model_version == 0:  # the job's first weights have no snapshot
            return await self.whole(layout, effect.model_digest, deadline_s)
        lineage = await self._transfers.lineage(effect.job_id, held.version if held else effect.model_version)
        if held is not None:
            found = await self._stepped(layout, held, lineage, effect, deadline_s)
            if found is not None:
                return found
        if lineage.snapshot is None:
            return await self.whole(layout, effect.model_digest, deadline_s)
        largest = largest_snapshot(layout.length)
        content = await self._transfers.download(lineage.snapshot, largest=largest, deadline_s=deadline_s)
        vector = await compute(layout.length, read_snapshot, content, layout.length)
        digest = await compute(layout.length, _digest, layout, vector)
        if digest != effect.model_digest:
            raise PeerViolation(
                "the snapshot is not the announced model",
                where="coordinator",
                expected=f"version {effect.model_version}, {effect.model_digest[:16]}",
                got=digest[:16],
                hint="the coordinator's store is damaged, or it has a newer model by now",
                reason="MODEL_SNAPSHOT",
            )
        return vector

    async def _stepped(
        self, layout: Layout, held: _Held, lineage: Lineage, effect: Train, deadline_s: float
    ) -> Vector | None:
        """The announced model by differences, or None if they are dearer than a snapshot or do not lead there."""
        missing, length = effect.model_version - held.version, layout.length
        if not prefers_deltas(missing, length) or len(lineage.links) < missing:
            return None
        vector, digest = held.vector, held.digest
        try:
            for link in lineage.links[:missing]:
                largest = 2 * length + _DELTA_HEADER_BYTES
                delta = await self._transfers.download(link, largest=largest, deadline_s=deadline_s)
                vector = await compute(length, follow_delta, vector, digest, delta)
                digest = await compute(length, _digest, layout, vector)
        except (CodecError, NotFoundError, PeerViolation):
            return None
        return vector if digest == effect.model_digest else None


def _digest(layout: Layout, vector: Vector) -> Digest:
    return digest_of(encode_weights(layout, vector))
