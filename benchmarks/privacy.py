"""What privacy costs in accuracy: digits at ten sites, noise in shares beside full noise at each site and a curator's.

scikit-learn's digits, 450 rows held out; delta 1e-4; a row is a mode and epsilon, over seeds that split anew and draws
that differ in their noise. The first seed's first draws run over real processes, mTLS and durable ledgers, those of the
second through the machines of secure aggregation in one process; all others, and the table of unlike sites, add up in
the clear, which gives the same sums: those of the machines are compared with them, word by word.

`central_accuracy` is a trusted curator's with the same accounting and noise, `central_pld_accuracy` with the smaller
noise that the privacy loss distribution of a continuous Gaussian would allow, `one_site_accuracy` that of a site
without partners, all by the same recipe and the same rule for the learning rate: `privacy_jobs`, and `privacy_rule`,
which fixed the rule on synthetic data.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from benchmarks.privacy_jobs import (
    SITES,
    Case,
    central,
    declared,
    noise_multiplier,
    one_site,
    resolved,
    scaled,
    split,
    tighter_noise_multiplier,
)
from benchmarks.privacy_site import run_jobs
from benchmarks.training import accuracy_of
from lepton_client.train.alone import train_alone
from lepton_client.train.rows import Rows
from lepton_client.train.together import add_in_clear, train_together
from lepton_core.errors import FaultError
from lepton_core.identity import IdentityKey
from lepton_core.job import Job
from lepton_core.ports import SystemRandomness
from lepton_core.ring import Words
from lepton_core.secagg.simulate import run_round
from lepton_pool.terms import derive_terms

#: Mode, m and c of a table's rows.
_WAYS: tuple[tuple[Literal["record-distributed", "record-local"], int, int], ...] = (
    ("record-distributed", SITES, 0),
    ("record-distributed", SITES - 1, 2),
    ("record-local", SITES, 0),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and by what."""
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 2.0, 8.0], help="budgets of a job")
    parser.add_argument("--seeds", type=int, default=5, help="splits")
    parser.add_argument("--draws", type=int, default=3, help="runs a split that differ in their noise")
    parser.add_argument("--unlike-draws", type=int, default=1, help="the same, where sites have unlike digits")
    parser.add_argument("--without-processes", action="store_true", help="no run over real processes")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a mode and epsilon, for sites that are alike; `rows_unlike` for sites that are not."""
    alike = _Table(args.epsilons, args.seeds, args.draws, unlike=False)
    unlike = _Table(args.epsilons, args.seeds, args.unlike_draws, unlike=True)
    seen: list[tuple[Case, float]] = []
    real = [] if args.without_processes else [case for case in alike.cases if case.seed == 0 and case.draw == 0]
    if real:
        seen += zip(real, run_jobs(real, split(0, unlike=False)), strict=True)
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        for table in (alike, unlike):
            cases = [case for case in table.cases if case not in real]
            seen += zip(cases, pool.map(_accuracy, cases), strict=True)
            table.baselines = _baselines(table, pool.map)
    rows, rows_unlike = alike.rows(seen), unlike.rows(seen)
    return {"rows": rows, "rows_unlike": rows_unlike, **_figures(rows, args.epsilons), "real_processes": len(real)}


def _figures(rows: Sequence[dict[str, object]], epsilons: Sequence[float]) -> dict[str, object]:
    of = {(row["mode"], row["contributors"], row["epsilon"]): row for row in rows}

    def value(mode: str, contributors: int, epsilon: float, key: str = "accuracy_mean") -> float:
        return float(str(of[mode, contributors, epsilon][key]))

    figures: dict[str, object] = {}
    for epsilon in epsilons:
        figures[f"distributed_eps_{epsilon:g}"] = value("record-distributed", SITES, epsilon)
        figures[f"distributed_colluding_eps_{epsilon:g}"] = value("record-distributed", SITES - 1, epsilon)
        figures[f"gain_over_local_eps_{epsilon:g}"] = value("record-distributed", SITES, epsilon) - value(
            "record-local", SITES, epsilon
        )
    for name, key in (("gap_to_central_max", "central_accuracy"), ("gap_to_central_pld_max", "central_pld_accuracy")):
        figures[name] = max(
            value("record-distributed", SITES, epsilon, key) - value("record-distributed", SITES, epsilon)
            for epsilon in epsilons
        )
    return figures


@dataclass
class _Table:
    """The runs of sites that are alike, or not."""

    epsilons: Sequence[float]
    seeds: int
    draws: int
    unlike: bool
    #: By epsilon: accuracies of a curator, of one with tighter accounting, and of one site.
    baselines: dict[float, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def cases(self) -> list[Case]:
        """Every run."""
        return [case for way in _WAYS for epsilon in self.epsilons for case in self.of(way, epsilon)]

    def of(self, way: tuple[Literal["record-distributed", "record-local"], int, int], epsilon: float) -> list[Case]:
        """The runs of a row."""
        mode, contributors, colluders = way
        first = Case(mode, epsilon, 0, contributors=contributors, colluders=colluders, unlike=self.unlike)
        return [replace(first, seed=seed, draw=draw) for seed in range(self.seeds) for draw in range(self.draws)]

    def rows(self, seen: Iterable[tuple[Case, float]]) -> list[dict[str, object]]:
        """What is shown."""
        found = dict(seen)
        rows: list[dict[str, object]] = []
        for way in _WAYS:
            for epsilon in self.epsilons:
                accuracies = [found[case] for case in self.of(way, epsilon)]
                curator, tighter, alone = self.baselines[epsilon]
                rows.append(
                    {
                        "mode": way[0],
                        "contributors": way[1],
                        "colluders": way[2],
                        "epsilon": epsilon,
                        "accuracy_mean": float(np.mean(accuracies)),
                        "accuracy_sd": float(np.std(accuracies)),
                        "central_accuracy": curator,
                        "central_pld_accuracy": tighter,
                        "one_site_accuracy": alone,
                        "noise_multiplier": noise_multiplier(self.of(way, epsilon)[0]),
                        "runs": len(accuracies),
                    }
                )
        return rows


def _baselines(
    table: _Table, each: Callable[[Callable[[Case], float], list[Case]], Iterable[float]]
) -> dict[float, tuple[float, float, float]]:
    """By epsilon, means over the table's seeds and draws of what others reach; one site's over seeds and sites."""

    def mean(accuracy: Callable[[Case], float], cases: list[Case]) -> float:
        return float(np.mean(list(each(accuracy, cases))))

    found = {}
    for epsilon in table.epsilons:
        cases = table.of(_WAYS[0], epsilon)
        same = mean(partial(_central_accuracy, noise=noise_multiplier(cases[0])), cases)
        tighter = mean(partial(_central_accuracy, noise=tighter_noise_multiplier(epsilon)), cases)
        alone = mean(_one_site_accuracy, [case for case in cases if case.draw == 0])
        found[epsilon] = same, tighter, alone
    return found


def _accuracy(case: Case) -> float:
    _one_thread()
    job, rows = resolved(case), split(case.seed, unlike=case.unlike)
    masked = case.seed == 1 and case.draw == 0 and not case.unlike
    add_up = _Machines(job).add_up if masked else add_in_clear
    model = train_together(job, [scaled(site) for site in rows.sites], declared(rows.sites), add_up=add_up)
    return accuracy_of(job, model, scaled(rows.held_out))


def _central_accuracy(case: Case, noise: float) -> float:
    _one_thread()
    rows, job = split(case.seed, unlike=case.unlike), central(case, noise)
    return accuracy_of(job, train_alone(job, scaled(np.concatenate(rows.sites))), scaled(rows.held_out))


def _one_site_accuracy(case: Case) -> float:
    """The mean over the sites."""
    _one_thread()
    rows, job = split(case.seed, unlike=case.unlike), one_site(case)
    held_out: Rows = scaled(rows.held_out)
    return float(np.mean([accuracy_of(job, train_alone(job, scaled(site)), held_out) for site in rows.sites]))


class _Machines:
    """Adds up through the machines of secure aggregation: keys, shares, masks, signatures and unmasking of a round."""

    def __init__(self, job: Job) -> None:
        self._randomness = SystemRandomness()
        self._sites = sorted((IdentityKey.generate(self._randomness) for _ in range(SITES)), key=lambda key: key.member)
        self._terms = derive_terms(job, bytes(32))

    def add_up(self, words: Sequence[Words]) -> Words:
        """The unmasked sum; compared with that in the clear.

        Raises:
            FaultError: the round was aborted, or gave another sum.
        """
        inputs = {key.member: own for key, own in zip(self._sites, words, strict=True)}
        ended = run_round(self._sites, inputs, self._terms, self._randomness)
        if ended.error is not None or len(ended.survivors) != len(words):
            raise FaultError("a round of secure aggregation without all of its sites", got=str(ended.error))
        total: Words = np.concatenate(ended.groups)
        if not np.array_equal(total, add_in_clear(words)):
            raise FaultError("secure aggregation gave another sum than that of its inputs")
        return total


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
