"""The models a member trains on: each computed from the one before and the sum that its round published.

`Chain` is one job's newest model and how it moves on; `Models` fetches what a chain lacks: after a restart, or after
rounds that this member was not in, the links of the versions between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lepton_client.computing import compute
from lepton_client.downlink import Descents, Fetches
from lepton_client.effects import Follow, Train
from lepton_core.chain import (
    MOST_CHECKED_VALUES,
    Link,
    broken_chain,
    largest_link,
    parse_link,
    require_follows,
    require_witnessed,
)
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, digest_of
from lepton_core.job import Job
from lepton_core.layout import Layout, Vector
from lepton_core.optimizer import OptimizerState
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.steps import next_model
from lepton_pool.weights import encode_weights


@dataclass(frozen=True)
class Chain:
    """A model version that this member has computed itself, beginning with the job's first weights."""

    job: Job
    version: ModelVersion
    #: (model_length,), float32.
    vector: Vector
    state: OptimizerState
    #: SHA-256 of the model's file.
    digest: Digest

    @classmethod
    def begin(cls, job: Job, first: Vector) -> Chain:
        """The chain at the job's first weights, shape (model_length,), float32."""
        return cls(job, ModelVersion(0), first, {}, _digest(job, first))

    def follow(self, link: Link) -> Chain:
        """The next model.

        Raises:
            PeerViolation: MODEL_CHAIN: the link begins at another model.
            CodecError: a sum that no round can have.
        """
        require_follows(link, self.version, bytes.fromhex(self.digest))
        members = link.transcript.survivors
        after = next_model(self.job, self.vector, self.state, link.words, members=members, codec_seed=link.codec_seed)
        return Chain(self.job, link.version, after.model, after.state, _digest(self.job, after.model))


#: Makes a job's first weights from its public seed.
FirstWeights = Callable[[Job], Awaitable[Vector]]


class Models:
    """Every job's chain. Runs on the event loop; its arithmetic in threads."""

    def __init__(self, transfers: Fetches, first: FirstWeights) -> None:
        self._transfers = transfers
        self._descents = Descents(transfers)
        self._first = first
        self._chains: dict[JobId, Chain] = {}
        #: Links that came with the word that a round is over, by digest, and what this member saw of those rounds.
        self._told: dict[JobId, dict[Digest, bytes]] = {}
        self._seen: dict[JobId, dict[bytes, tuple[MemberId, ...]]] = {}
        self._turn = asyncio.Lock()

    def told(self, effect: Follow) -> None:
        """A round is over that this member saw to its end; the link is computed with when the next model is needed."""
        self._seen.setdefault(effect.job_id, {})[effect.sid] = effect.survivors
        self._told.setdefault(effect.job_id, {})[effect.published.digest] = effect.published.content

    def forget(self, job: JobId) -> None:
        """The job is over."""
        for kept in (self._chains, self._told, self._seen):
            kept.pop(job, None)
        self._descents.forget(job)

    async def model(self, effect: Train, *, deadline_s: float) -> Vector:
        """The model to train on, shape (model_length,), float32.

        Very large models and those of rounds in the plain, which no member can compute anew, come down: see `downlink`.

        Raises:
            PeerViolation: MODEL_CHAIN: it does not follow from the one before, or a link is none.
            IdentityError: a link that too few admitted members signed.
            LeptonError: what it is made of cannot be had.
        """
        layout = model_layout(architecture_of(effect.job))
        if layout.length > MOST_CHECKED_VALUES or not effect.job.aggregation.secure:
            return await self._descents.model(layout, effect, deadline_s)
        async with self._turn:
            chain = self._chains.get(effect.job_id)
            if chain is None:
                first = await self._first_weights(effect.job, layout, deadline_s)
                chain = self._chains[effect.job_id] = await compute(layout.length, Chain.begin, effect.job, first)
            told = tuple(self._told.pop(effect.job_id, {}).items())
            if chain.version < effect.model_version:
                chain = await self._catch_up(chain, effect, told, deadline_s)
            self._seen.pop(effect.job_id, None)
        if (chain.version, chain.digest) != (effect.model_version, effect.model_digest):
            raise broken_chain(
                f"version {chain.version}, {chain.digest[:16]}",
                f"version {effect.model_version}, {effect.model_digest[:16]}",
            )
        return chain.vector

    async def _first_weights(self, job: Job, layout: Layout, deadline_s: float) -> Vector:
        if job.model.initial is None:
            return await self._first(job)
        return await self._descents.whole(layout, Digest(job.model.initial), deadline_s)

    async def _catch_up(
        self, chain: Chain, effect: Train, told: tuple[tuple[Digest, bytes], ...], deadline_s: float
    ) -> Chain:
        missing = effect.model_version - chain.version
        if len(told) < missing:  # rounds that this member was not in
            known = dict(told)
            listed = await self._transfers.lineage(effect.job_id, chain.version)
            told = tuple((digest, known.get(digest, b"")) for digest in listed.links[:missing])
        for digest, came in told[-missing:]:
            content = came
            if not content:
                largest = largest_link(effect.setup.terms)
                content = await self._transfers.download(digest, largest=largest, deadline_s=deadline_s)
            chain = await compute(len(chain.vector), self._follow, chain, effect, digest, content)
            self._chains[effect.job_id] = chain
        return chain

    def _follow(self, chain: Chain, effect: Train, digest: Digest, content: bytes) -> Chain:
        if digest_of(content) != digest:
            raise broken_chain(f"a link of SHA-256 {digest[:16]}", "other bytes")
        link = parse_link(content, effect.job_id, effect.setup.terms)
        seen = self._seen.get(effect.job_id, {}).get(link.transcript.sid)
        if seen != link.transcript.survivors:  # a threshold of signatures over these survivors was not seen yet
            require_witnessed(link, effect.peers, effect.setup.terms.min_cohort)
        return chain.follow(link)


def _digest(job: Job, vector: Vector) -> Digest:
    return digest_of(encode_weights(model_layout(architecture_of(job)), vector))
