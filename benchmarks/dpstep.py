"""What a private step costs beside a plain one: time and memory of both, as members take them, on one core.

A row is one model and batch. A private step draws its Poisson sample, clips, sums, draws its noise and descends
(`PrivateModule`); a plain one takes the next rows of an epoch (`PlainModule`). Ratios are medians of processor times,
over pairs of runs that follow each other, so that a busy machine slows both; `masked_ratio` is that of a round that
keeps a tenth of the coordinates; `opacus_ratio` is that of Opacus' hooks with the same noise.

Memory is what a step holds at its peak, the model included, the owner's rows not: bytes that torch's allocator and
numpy have out, counted allocation by allocation. Scratch space inside a convolution is in neither.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lepton_client.train.dpsgd import PrivateModule
from lepton_client.train.learner import Learner
from lepton_client.train.noise import SecretStream
from lepton_client.train.plain import PlainModule
from lepton_client.train.rows import Rows, loss_of
from lepton_core.job import Job
from lepton_pool.memory import keep_freed_memory
from lepton_pool.models import architecture_of, build_model, initial_vector

#: Name of a model, what its job says of it, and its features.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "mlp": ({"kind": "mlp", "hidden": [256, 256]}, 100),
    "cnn": ({"kind": "cnn", "image": [1, 28, 28], "channels": [16, 32], "hidden": [64]}, 784),
}
CLASSES = 10
_CLIP_NORM, _NOISE_MULTIPLIER, _LEARNING_RATE = 1.0, 1.0, 0.01
#: A row is in a batch with this probability.
_RATE = 1 / 16
_KEPT_SHARE = 0.1
#: Steps whose memory is measured, of which the median counts.
_STEPS_OF_MEMORY = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which cases, and how often."""
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS), help="which models")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256], help="rows a batch")
    parser.add_argument("--seconds", type=float, default=0.15, help="how long a run takes, about")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of runs, of which the median counts")
    parser.add_argument("--without-opacus", action="store_true", help="leave Opacus' hooks out")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a model and batch, and the largest ratio of each model and of memory."""
    keep_freed_memory()  # as the training process does
    torch.set_num_threads(1)
    rows = [_measure(name, batch, args) for name in args.models for batch in args.batches]
    worst = {
        f"{name}_ratio_max": max(row["ratio"] for row in rows if row["model"] == name) if name in args.models else None
        for name in MODELS
    }
    return {"rows": rows, **worst, "memory_ratio_max": max(row["memory_ratio"] for row in rows)}


def _measure(name: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    def job(steps: int, *, private: bool = True) -> Job:
        return _job(name, batch, steps, private=private)

    rows = _rows(name, int(batch / _RATE))
    model = initial_vector(architecture_of(job(1)))
    kept = np.flatnonzero(np.random.default_rng(1).random(len(model)) < _KEPT_SHARE)

    def take(learner: Learner, given: Rows, kept: np.ndarray[Any, Any] | None = None) -> float:
        start = time.process_time()
        learner.train(model, kept, given, expected_batch=float(batch), shuffle=0)
        return time.process_time() - start

    one = _part(rows, batch)
    take(PlainModule(job(1, private=False)), one)
    steps = max(2, int(args.seconds / take(PlainModule(job(1, private=False)), one)))
    epoch = _part(rows, batch * steps) if batch * steps <= len(rows.target) else _rows(name, batch * steps)
    plain, private = PlainModule(job(steps, private=False)), PrivateModule(job(steps))
    runs: dict[str, Callable[[], float]] = {
        "plain": lambda: take(plain, epoch),
        "private": lambda: take(private, rows),
        "masked": lambda: take(private, rows, kept),
    }
    if not args.without_opacus:
        hooks = _Hooks(job(1))
        runs["opacus"] = lambda: steps * hooks.step(one)
    for call in runs.values():
        call()
    times = {key: [call() for _ in range(args.repeats)] for key, call in runs.items() if key == "opacus"}
    measured = [key for key in runs if key != "opacus"]
    times |= {key: [] for key in measured}
    for _ in range(args.repeats):
        for key in measured:
            times[key].append(runs[key]())
    ratios = {
        key: statistics.median(one / other for one, other in zip(found, times["plain"], strict=True))
        for key, found in times.items()
    }
    memory = {
        "plain": _peak_bytes(lambda: PlainModule(job(1, private=False)), lambda each: take(each, one)),
        "private": _peak_bytes(lambda: PrivateModule(job(1)), lambda each: take(each, rows)),
    }
    return {
        "model": name,
        "batch": batch,
        "ratio": ratios["private"],
        "masked_ratio": ratios["masked"],
        "opacus_ratio": ratios.get("opacus"),
        "memory_ratio": memory["private"] / memory["plain"],
        "plain_ms": 1e3 * statistics.median(times["plain"]) / steps,
        "private_ms": 1e3 * statistics.median(times["private"]) / steps,
        "plain_mib": memory["plain"] / 2**20,
        "private_mib": memory["private"] / 2**20,
        "methods": ", ".join(f"{layer}: {way.value}" for layer, way in private.methods.items()),
    }


def _peak_bytes(build: Callable[[], Learner], step: Callable[[Learner], object]) -> float:
    """`_held_bytes`, the median of several: samples differ in size, and memory goes with it."""
    _held_bytes(build, step)  # what is loaded and cached once stays out
    return statistics.median(_held_bytes(build, step) for _ in range(_STEPS_OF_MEMORY))


def _held_bytes(build: Callable[[], Learner], step: Callable[[Learner], object]) -> int:
    """The most bytes that torch and numpy had out at once during a learner's second step, its own included."""
    gc.collect()
    tracemalloc.start()
    try:
        with (
            warnings.catch_warnings(),
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
        ):
            warnings.simplefilter("ignore")
            learner = build()
            step(learner)
            tracemalloc.reset_peak()
            with torch.profiler.record_function("measured step"):
                step(learner)
            numpy_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    events: Any = profile.profiler.kineto_results.events()
    start = next(event.start_ns() for event in events if event.name() == "measured step")
    held = most = 0
    for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
        if event.start_ns() >= start:
            most = max(most, held)
        held += event.nbytes()
    return max(most, held) + numpy_bytes


class _Hooks:
    """A private step by Opacus' hooks, which hold every row's gradient of every layer."""

    def __init__(self, job: Job) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opacus import GradSampleModule
        self._module: nn.Module = GradSampleModule(build_model(architecture_of(job)), loss_reduction="sum")
        self._parameters = list(self._module.parameters())
        self._stream = SecretStream()

    def step(self, rows: Rows) -> float:
        """Seconds of one step on these rows."""
        start = time.process_time()
        for parameter in self._parameters:
            parameter.grad = parameter.grad_sample = None
        features, target = torch.from_numpy(rows.features), torch.from_numpy(rows.target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss_of(self._module(features), target, "sum").backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        with torch.no_grad():
            norms = torch.stack([each.grad_sample.flatten(1).norm(dim=1) for each in self._parameters])
            factors = (_CLIP_NORM / norms.norm(dim=0)).clamp(max=1.0)
            for parameter in self._parameters:
                total = torch.einsum("i,i...->...", factors, parameter.grad_sample)
                noise = self._stream.gaussian(parameter.numel(), _CLIP_NORM * _NOISE_MULTIPLIER)
                total += torch.from_numpy(noise).view(parameter.shape)
                parameter.sub_(total, alpha=_LEARNING_RATE / len(rows.target))
        return time.process_time() - start


def _job(name: str, batch: int, steps: int, *, private: bool) -> Job:
    model, features = MODELS[name]
    training: dict[str, Any] = {"rounds": 1, "learning_rate": _LEARNING_RATE}
    if private:
        training |= {"local_steps": steps, "sampling_rate": _RATE}
        privacy = {"mode": "record-local", "clip_norm": _CLIP_NORM, "noise_multiplier": _NOISE_MULTIPLIER}
    else:
        training |= {"batching": "epochs", "batch_size": batch, "shuffle_seed": 0}
        privacy = {"mode": "none"}
    return Job.model_validate(
        {
            "name": "step",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/",
                "features": [{"concept": f"feature-{place}"} for place in range(features)],
                "target": {"concept": "class", "classes": [f"class-{place}" for place in range(CLASSES)]},
            },
            "model": model,
            "training": training,
            "privacy": privacy,
        }
    )


def _rows(name: str, count: int) -> Rows:
    generator = np.random.default_rng(0)
    features = generator.uniform(-1, 1, (count, MODELS[name][1])).astype(np.float32)
    return Rows(features, generator.integers(0, CLASSES, count).astype(np.float32))


def _part(rows: Rows, count: int) -> Rows:
    return Rows(rows.features[:count], rows.target[:count])
