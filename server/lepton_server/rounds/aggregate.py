"""From a round's stored sum to the next model version: unmask, unpack, decode, server optimizer; and the link to it."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load, save

from lepton_core.chain import Link, encode_link
from lepton_core.errors import LeptonError
from lepton_core.secagg.unmask import Run, unmask
from lepton_pool.models import model_layout
from lepton_pool.steps import next_model
from lepton_pool.weights import decode_weights, encode_weights
from lepton_server.jobs.events import AggregateDone, AggregateFailed, RunAggregate
from lepton_server.store.port import Artifacts


def run(effect: RunAggregate, artifacts: Artifacts, parallel: Run = map) -> AggregateDone | AggregateFailed:
    """Do the round's vector work; the same effect gives the same artifacts. CPU only: call it off the event loop.

    parallel: does the work on the slices of the sum, as `unmask` asks it; threads give the same bits.
    """
    try:
        return _aggregate(effect, artifacts, parallel)
    except LeptonError as error:
        return AggregateFailed(effect.job_id, effect.round, error)


def _aggregate(effect: RunAggregate, artifacts: Artifacts, parallel: Run) -> AggregateDone:
    job, result, terms = effect.job, effect.result, effect.setup.terms
    # 1. Every mask that did not cancel is taken off the sum of the survivors' masked words.
    total = np.frombuffer(artifacts.get(effect.total), dtype="<u8").astype(np.uint64, copy=False)
    link = Link(effect.setup, result.transcript, np.concatenate(unmask(total, result.plan, terms, run=parallel)))
    # 2. Integers, the mean update by the round's public seed, and the server optimizer's step.
    layout = model_layout(job.model, len(job.task.features))
    before = decode_weights(layout, artifacts.get(effect.model))
    state = load(artifacts.get(effect.optimizer)) if effect.optimizer is not None else {}
    members = len(result.survivors)
    after, state_after = next_model(job, before, state, link.words, members=members, codec_seed=link.codec_seed)
    return AggregateDone(
        job=effect.job_id,
        round=effect.round,
        digest=artifacts.put(encode_weights(layout, after)),
        optimizer=artifacts.put(save(dict(state_after))),
        link=artifacts.put(encode_link(link)),
        changed=not np.array_equal(before, after),
        pair_masks_reconstructed=result.plan.pair_masks,
    )
