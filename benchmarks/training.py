"""What compression costs in accuracy: federated averaging on digits among unlike members, with paired seeds.

scikit-learn's digits, 450 rows held out, the rest split among 20 members by a Dirichlet distribution (0.3) over the
classes; 10 members a round, drawn anew; one local epoch of SGD (rate 0.1, batch 32) of an MLP of 256 hidden units. Each
row is one encoding: the production learner, lanes and server optimizer, without network and masks, which change none.
`bytes_per_parameter` is a member's whole payload, padding and reports included, over the parameters of this very model.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_client.train.learner import build_learner, train_round
from lepton_client.train.rows import Rows
from lepton_compression.update import kept_indices
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.optimizer import OptimizerState, apply_update
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.terms import LaneGroup
from lepton_pool.models import architecture_of, build_model, initial_vector, load_vector
from lepton_pool.steps import encode_update, next_model
from lepton_pool.terms import derive_ring_plan, lane_groups

MEMBERS, COHORT, HELD_OUT, CONCENTRATION = 20, 10, 450, 0.3
#: Far above what members' updates reach: clipping is another benchmark's matter.
_UPDATE_NORM = 2.0

#: Name of a row, and what its job says of encoding; None: the mean in float64, which nothing compresses.
CODECS: dict[str, Mapping[str, Any] | None] = {
    "none": None,
    "default": {"profile": "default"},
    "1 byte": {"bytes_per_parameter": 1.0},
    "0.2 bytes": {"bytes_per_parameter": 0.2, "profile": "default"},
    "0.2 bytes, any profile": {"bytes_per_parameter": 0.2},
    "0.2 bytes, rows": {"profile": "default", "kept_fraction": 0.08, "mask": "rows"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, and how often."""
    parser.add_argument("--rounds", type=int, default=120, help="rounds a run")
    parser.add_argument("--seeds", type=int, default=5, help="paired runs: split, cohorts and order are a seed's")
    parser.add_argument("--codecs", nargs="+", choices=sorted(CODECS), default=list(CODECS), help="which rows")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="of the members' SGD")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a codec; losses are means over seeds of the accuracy without compression less that with it."""
    wanted = ["none", *(name for name in args.codecs if name != "none")]
    cases = [(name, seed, args.rounds, args.learning_rate) for name in wanted for seed in range(args.seeds)]
    with ProcessPoolExecutor(max_workers=min(len(cases), os.cpu_count() or 1)) as pool:
        runs = dict(zip(cases, pool.map(_run_case, cases), strict=True))
    rows: list[dict[str, object]] = []
    losses: dict[str, float] = {}
    for name in wanted:
        found = [runs[case] for case in cases if case[0] == name]
        plain = [runs["none", *case[1:]].accuracy for case in cases if case[0] == name]
        lost = [without - one.accuracy for without, one in zip(plain, found, strict=True)]
        losses[name] = float(np.mean(lost))
        rows.append(
            {
                "codec": name,
                "bytes_per_parameter": found[0].bytes_per_parameter,
                "accuracy": float(np.mean([one.accuracy for one in found])),
                "accuracy_loss": losses[name],
                "accuracy_loss_sd": float(np.std(lost)),
                "encoding": found[0].encoding,
                "clipped": float(np.mean([one.clipped for one in found])),
            }
        )
    return {
        "rows": rows,
        "accuracy_loss_at_0_2_bytes": losses.get("0.2 bytes"),
        "accuracy_loss_at_1_byte": losses.get("1 byte"),
    }


@dataclass(frozen=True)
class Run:
    """One run's outcome."""

    accuracy: float
    bytes_per_parameter: float
    encoding: str
    #: Share of updates that were longer than the norm.
    clipped: float


def _run_case(case: tuple[str, int, int, float]) -> Run:
    import torch

    name, seed, rounds, learning_rate = case
    torch.set_num_threads(1)
    job = job_of(CODECS[name] or {}, rounds, learning_rate)
    shards, held_out = split(seed)
    state: OptimizerState = {}
    model, learner = initial_vector(architecture_of(job)), build_learner(job)
    cohorts, clipped = np.random.default_rng([seed, 1]), 0
    for number in range(rounds):
        members = sorted(int(member) for member in cohorts.choice(MEMBERS, COHORT, replace=False))
        updates = [
            train_round(
                learner,
                model,
                None,
                shards[member],
                expected_batch=1.0,
                shuffle=1000 * number + 100_000 * seed + member,
            )
            for member in members
        ]
        rows = [len(shards[member].target) for member in members]
        clipped += sum(float(np.linalg.norm(update)) > _UPDATE_NORM for update in updates)
        if CODECS[name] is None:
            mean = np.average(updates, axis=0, weights=rows).astype(np.float32)
            model, state = apply_update(job.training.server, model, mean, state)
        else:
            learnt = {member: (update, own) for member, update, own in zip(members, updates, rows, strict=True)}
            model, state = encoded_round(job, model, state, learnt, number)
    groups: tuple[LaneGroup, ...] = lane_groups(job)
    plan = derive_ring_plan(job)
    payload = 4.0 if CODECS[name] is None else sum(8 * group.words for group in groups) / len(model)
    kept = len(kept_indices(plan, bytes(32))) / len(model)
    return Run(
        accuracy_of(job, model, held_out),
        payload,
        "float32" if CODECS[name] is None else f"{plan.profile}, {kept:.1%} kept",
        clipped / (rounds * COHORT),
    )


def encoded_round(
    job: Job, model: Vector, state: OptimizerState, learnt: Mapping[int, tuple[Vector, int]], number: int
) -> tuple[Vector, OptimizerState]:
    """The next model from the sum of the members' lanes."""
    seed = hashlib.sha256(b"lepton/benchmark/training %d" % number).digest()
    ids = [MemberId(bytes([member]) * 16) for member in learnt]
    words = np.zeros(sum(group.words for group in lane_groups(job)), dtype=np.uint64)
    for member, (update, rows) in zip(ids, learnt.values(), strict=True):
        words += encode_update(job, update, rows, member=member, codec_seed=seed, randomness=SystemRandomness())
    after = next_model(job, model, state, words, members=ids, codec_seed=seed)
    return after.model, after.state


def job_of(encoding: Mapping[str, Any], rounds: int, learning_rate: float) -> Job:
    """The job of a row, its target resolved as at submission."""
    from lepton_admin.submission import resolve_target

    document: dict[str, Any] = {
        "name": "digits",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": "https://example.org/digits#",
            "features": [{"concept": f"pixel-{place}"} for place in range(64)],
            "target": {"concept": "digit", "classes": [f"digit-{digit}" for digit in range(10)]},
        },
        "model": {"kind": "mlp", "hidden": [256]},
        "training": {
            "rounds": rounds,
            "batching": "epochs",
            "batch_size": 32,
            "shuffle_seed": 0,
            "learning_rate": learning_rate,
        },
        "privacy": {"mode": "none"},
        "aggregation": {
            "min_cohort": COHORT,
            "max_cohort": COHORT,
            "update_norm": _UPDATE_NORM,
            "weighting": "rows",
            "most_rows": 200,
        },
    }
    target = {key: encoding[key] for key in ("bytes_per_parameter", "error") if key in encoding}
    document["aggregation"] |= {key: value for key, value in encoding.items() if key not in target}
    job = Job.model_validate(document)
    if not target:
        return job
    document["aggregation"] |= resolve_target(job, profile=encoding.get("profile"), **target)
    return Job.model_validate(document)


def split(seed: int) -> tuple[list[Rows], Rows]:
    """The members' rows and those held out, by this seed."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng([seed, 0])
    order = generator.permutation(len(labels))
    features, target = (pixels[order] / 16).astype(np.float32), labels[order].astype(np.float32)
    shards = unlike_shards(target[HELD_OUT:], MEMBERS, generator)
    held_out = _rows(features, target, list(range(HELD_OUT)))
    return [_rows(features[HELD_OUT:], target[HELD_OUT:], shard) for shard in shards], held_out


def unlike_shards(target: npt.NDArray[np.float32], members: int, generator: np.random.Generator) -> list[list[int]]:
    """The members' places among rows of these classes, shape (rows,): a Dirichlet distribution each class."""
    shards: list[list[int]] = [[] for _ in range(members)]
    for digit in range(10):
        places = np.flatnonzero(target == digit)
        cuts = np.cumsum(generator.dirichlet([CONCENTRATION] * members))[:-1]
        for member, part in enumerate(np.split(places, np.rint(cuts * len(places)).astype(np.int64))):
            shards[member].extend(part.tolist())
    for member, shard in enumerate(shards):  # nobody is left without a row
        if not shard:
            shard.append(member)
    return shards


def accuracy_of(job: Job, model: Vector, rows: Rows) -> float:
    """Share of rows whose largest logit is that of their class."""
    import torch

    module = build_model(architecture_of(job))
    load_vector(module, model)
    with torch.no_grad():
        found = module(torch.from_numpy(rows.features)).argmax(dim=1).numpy()
    return float(np.mean(found == rows.target))


def _rows(features: npt.NDArray[np.float32], target: npt.NDArray[np.float32], places: list[int]) -> Rows:
    return Rows(features[places], target[places])
