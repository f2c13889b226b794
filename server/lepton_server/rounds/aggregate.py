"""From a round's stored sum to the next model version: unmask, unpack, decode, server optimizer; and the link to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from lepton_core.chain import Link, encode_link
from lepton_core.errors import LeptonError
from lepton_core.ids import Digest, ModelVersion
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState, apply_update
from lepton_core.plain.server import PlainResult
from lepton_core.secagg.transcript import RoundResult
from lepton_core.secagg.unmask import Parallel, unmask
from lepton_pool.downlink import Descent, descend, is_published_exact, prefers_deltas
from lepton_pool.measured import Measured
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.plain import mean_plain
from lepton_pool.steps import next_model
from lepton_pool.weights import decode_weights, encode_weights
from lepton_server.jobs.events import AggregateDone, AggregateFailed, RunAggregate
from lepton_server.store.port import Artifacts

#: Where the optimizer's state keeps the exact model, if members hold a coarser one.
_EXACT = "exact"


def run(effect: RunAggregate, artifacts: Artifacts, parallel: Parallel = map) -> AggregateDone | AggregateFailed:
    """Do the round's vector work; the same effect gives the same artifacts. CPU only: call it off the event loop.

    parallel: does the work on the slices of the sum, as `unmask` asks it, and waits for disks; threads give the same
        bits.
    """
    try:
        if isinstance(effect.result, PlainResult):
            return _mean(effect, effect.result, artifacts, parallel)
        return _aggregate(effect, effect.result, artifacts, parallel)
    except LeptonError as error:
        return AggregateFailed(effect.job_id, effect.round, error)


def _aggregate(effect: RunAggregate, result: RoundResult, artifacts: Artifacts, parallel: Parallel) -> AggregateDone:
    job, terms = effect.job, effect.setup.terms
    # 1. Every mask that did not cancel is taken off the sum of the survivors' masked words.
    total = np.frombuffer(artifacts.get(effect.total), dtype="<u8").astype(np.uint64, copy=False)
    link = Link(effect.setup, result.transcript, np.concatenate(unmask(total, result.plan, terms, run=parallel)))
    # 2. Integers, the mean update by the round's public seed, and the server optimizer's step.
    before, state = _model(effect, artifacts)
    after = next_model(
        job, before, state, link.words, members=result.survivors, codec_seed=link.codec_seed, self_test=True
    )
    ended = _Ended(
        before,
        after.model,
        after.state,
        encode_link(link),
        result.plan.pair_masks,
        measured=after.measured,
        residual=after.residual,
    )
    return _kept(effect, ended, artifacts, parallel)


def _mean(effect: RunAggregate, result: PlainResult, artifacts: Artifacts, parallel: Parallel) -> AggregateDone:
    """In the plain: the members' mean update by weight, and the server optimizer's step on the exact model."""
    held, known = _model(effect, artifacts)
    before, state = known.get(_EXACT, held), {name: vector for name, vector in known.items() if name != _EXACT}
    payloads = (artifacts.get(Digest(result.payload_digests[member].hex())) for member in result.survivors)
    after, state_after = apply_update(effect.job.training.server, before, mean_plain(effect.job, payloads), state)
    if is_published_exact(effect.job, ModelVersion(effect.version + 1)):
        return _kept(effect, _Ended(before, after, state_after, link=b"", pair_masks=0), artifacts, parallel)
    down = descend(held, effect.model, after)
    kept = {**state_after, _EXACT: after}
    return _kept(effect, _Ended(before, after, kept, down.delta, pair_masks=0, down=down), artifacts, parallel)


@dataclass(frozen=True, eq=False)
class _Ended:
    """What a round has come to."""

    before: Vector
    after: Vector
    state: OptimizerState
    #: Empty where members download the model: in the plain nobody but the coordinator could check a link.
    link: bytes
    pair_masks: int
    measured: Measured | None = None
    #: Of the decoding's self-test; -1 where nothing is decoded.
    residual: float = -1.0
    #: What is published in place of `after`, if that goes down in steps.
    down: Descent | None = None


def _model(effect: RunAggregate, artifacts: Artifacts) -> tuple[Vector, OptimizerState]:
    before = decode_weights(model_layout(architecture_of(effect.job)), artifacts.get(effect.model))
    return before, load(artifacts.get(effect.optimizer)) if effect.optimizer is not None else {}


def _kept(effect: RunAggregate, ended: _Ended, artifacts: Artifacts, parallel: Parallel) -> AggregateDone:
    layout = model_layout(architecture_of(effect.job))
    model = encode_weights(layout, ended.after if ended.down is None else ended.down.held)
    measured = ended.measured
    snapshot = ended.down.snapshot if ended.down is not None else b""
    parts = {"model": model, "state": save(dict(ended.state)), "link": ended.link, "snapshot": snapshot}
    parts = {name: part for name, part in parts.items() if part}
    # Each waits for the disk twice; together they wait as long as one.
    kept = dict(zip(parts, parallel(artifacts.put, parts.values()), strict=True))
    return AggregateDone(
        job=effect.job_id,
        round=effect.round,
        digest=kept["model"],
        optimizer=kept["state"],
        link=kept.get("link", Digest("")),
        changed=not np.array_equal(ended.before, ended.after),
        pair_masks_reconstructed=ended.pair_masks,
        bytes_down=_bytes_down(model, ended, layout.length),
        clipped_members=measured.clipped_members if measured is not None else -1,
        saturated_share=measured.saturated_share if measured is not None else -1.0,
        squared_error=measured.squared_error if measured is not None else -1.0,
        decode_residual=ended.residual,
        snapshot=kept.get("snapshot"),
    )


def _bytes_down(model: bytes, ended: _Ended, length: int) -> int:
    """What a member downloads that was in the round before."""
    if ended.down is None:
        return len(ended.link or model)
    return len(ended.link if ended.link and prefers_deltas(1, length) else ended.down.snapshot)
