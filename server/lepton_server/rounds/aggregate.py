"""From a round's stored inputs to the next model version: sum, unmask, unpack, decode, server optimizer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from safetensors.numpy import load, save

from lepton_core.errors import LeptonError
from lepton_core.ring import Words
from lepton_core.secagg.terms import derive_codec_seed
from lepton_core.secagg.unmask import sum_words, unmask
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.steps import next_model
from lepton_pool.weights import decode_weights, encode_weights
from lepton_server.jobs.events import AggregateDone, AggregateFailed, RunAggregate
from lepton_server.store.port import Artifacts


def run(effect: RunAggregate, artifacts: Artifacts) -> AggregateDone | AggregateFailed:
    """Do the round's vector work; the same effect gives the same artifacts. CPU only: call it off the event loop."""
    try:
        return _aggregate(effect, artifacts)
    except LeptonError as error:
        return AggregateFailed(effect.job_id, effect.round, error)


def _aggregate(effect: RunAggregate, artifacts: Artifacts) -> AggregateDone:
    job, result = effect.job, effect.result
    # 1. The sum of the survivors' masked words, one at a time, and every mask that did not cancel taken off.
    total = sum_words(_words(effect, artifacts), effect.terms)
    words = np.concatenate(unmask(total, result.plan, effect.terms))
    # 2. Integers, the mean update by the round's public seed, and the server optimizer's step.
    layout = model_layout(architecture_of(job))
    before = decode_weights(layout, artifacts.get(effect.model))
    state = load(artifacts.get(effect.optimizer)) if effect.optimizer is not None else {}
    seed = derive_codec_seed(result.transcript.sid)
    after, state_after = next_model(job, before, state, words, members=len(result.survivors), codec_seed=seed)
    return AggregateDone(
        job=effect.job_id,
        round=effect.round,
        digest=artifacts.put(encode_weights(layout, after)),
        optimizer=artifacts.put(save(dict(state_after))),
        changed=not np.array_equal(before, after),
        pair_masks_reconstructed=result.plan.pair_masks,
    )


def _words(effect: RunAggregate, artifacts: Artifacts) -> Iterator[Words]:
    for digest in effect.payloads:
        yield np.frombuffer(artifacts.get(digest), dtype="<u8").astype(np.uint64, copy=False)
