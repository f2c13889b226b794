"""How the learning rate of the privacy benchmark was fixed: its rule, times a factor, on synthetic data alone.

Four sets of 1,797 rows with 64 features and 10 classes by scikit-learn's `make_classification` (32 or 48 informative
features, one cluster a class, two seeds each), 450 rows held out, features clipped at 2.5 standard deviations and
scaled to [-1, 1]. A row is a noise multiplier of the sum (those of epsilon 1, 2 and 8 for distributed noise, and the
ten times larger variance for full noise at each of ten sites) and a factor; the accuracy is central DP-SGD's by the
production learner. A factor of 1 is within a point of the best at each of them: that is the rule; no digit was seen.
"""

from __future__ import annotations

import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from benchmarks.privacy_jobs import HELD_OUT, ROUNDS, ROWS_A_SITE, SITES, Case, central, learning_rate, noise_multiplier
from benchmarks.training import accuracy_of
from lepton_client.train.alone import train_alone
from lepton_client.train.rows import Rows

_SETS = tuple((informative, seed) for informative in (32, 48) for seed in (0, 1))
_ROWS = 1_797


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How finely, and how often."""
    parser.add_argument("--factors", type=float, nargs="+", default=[0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0])
    parser.add_argument("--draws", type=int, default=3, help="runs a set that differ in their noise")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a noise and factor, and how far the rule is from the best factor at worst."""
    noises = [
        noise_multiplier(Case("record-distributed", epsilon, seed=0)) * math.sqrt(sites)
        for sites in (1, SITES)
        for epsilon in (1.0, 2.0, 8.0)
    ]
    cases = [(noise, factor, args.draws) for noise in noises for factor in {*args.factors, 1.0}]
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(zip(cases, pool.map(_accuracy, cases), strict=True))
    rows: list[dict[str, object]] = [
        {"noise_multiplier": noise, "factor": factor, "accuracy": found[noise, factor, args.draws]}
        for noise in noises
        for factor in sorted({*args.factors, 1.0})
    ]
    losses = [
        max(found[case] for case in cases if case[0] == noise) - found[noise, 1.0, args.draws] for noise in noises
    ]
    return {"rows": rows, "rule_loss_max": max(losses)}


def _accuracy(case: tuple[float, float, int]) -> float:
    import torch

    torch.set_num_threads(1)
    noise, factor, draws = case
    records = ROWS_A_SITE * SITES
    job = central(Case("record-distributed", 1.0, seed=0), noise)
    rate = factor * learning_rate(noise, records, ROUNDS, len(job.task.features))
    job = job.model_copy(update={"training": job.training.model_copy(update={"learning_rate": rate})})
    accuracies = [
        accuracy_of(job, train_alone(job, training), held_out)
        for training, held_out in (_synthetic(*which) for which in _SETS)
        for _ in range(draws)
    ]
    return float(np.mean(accuracies))


def _synthetic(informative: int, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on, and those held out."""
    from sklearn.datasets import make_classification

    features, target = make_classification(
        _ROWS,
        64,
        n_informative=informative,
        n_redundant=16,
        n_classes=10,
        n_clusters_per_class=1,
        class_sep=2.0,
        flip_y=0.0,
        random_state=seed,
    )
    scaled = np.clip((features - features.mean(axis=0)) / (2.5 * features.std(axis=0)), -1.0, 1.0).astype(np.float32)
    order = np.random.default_rng(seed).permutation(_ROWS)
    scaled, target = scaled[order], target[order].astype(np.float32)
    return Rows(scaled[HELD_OUT:], target[HELD_OUT:]), Rows(scaled[:HELD_OUT], target[:HELD_OUT])
