"""One-run audit: how private the production code is at the least, told from its output on thousands of canaries.

    python examples/attacks/one_run_audit.py [--epsilons 2 4 8] [--runs 5]

Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", in the white-box setting: a fair coin
says of each of m canaries whether it is among the records; the auditor sees what comes out, and guesses the coins of
those that it is surest of. If the mechanism were (epsilon, delta)-private, so many right guesses would be unlikely.

A canary is the worst record that clipping allows, on a coordinate of its own (a Dirac canary): one large feature of a
logistic model. `record-local` is audited by the training code of a site, all steps of a round with full noise;
`record-distributed` by whole masked rounds, whose sum has ten shares of integer noise. Faults are planted beside them.
An epsilon above the accountant's is a fault that was found; one below is no proof that there is none.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lepton_client.train.rows import Rows
from lepton_core.job import Job
from lepton_core.privacy.rules import PrivacyMode
from lepton_pool.promise import promised_epsilon
from report import Findings, main, parser_of, progress
from wire import SITES, Doubles, learn, make_job, secure_round

Coins = npt.NDArray[np.bool_]

#: A canary's feature: its gradient is some 500 times as long as what it is clipped to.
_LARGE = 1000.0
#: So small that the model, and with it the canaries' gradients, stay where they were.
_RATE = 1e-6
#: Clipping that clips nothing, and noise that is none, as far as canaries go.
_NO_CLIPPING, _NO_NOISE = 1e5, 1e-3
#: Shares of the canaries whose coins are guessed, half of them as there; the confidence is divided among the shares.
#: Not all are guessed, as a little more than half may be there.
_GUESSED = (0.01, 0.03, 0.1, 0.3, 0.9)


@dataclass(frozen=True)
class Case:
    """A mechanism, as it is or with a fault, and what it claims."""

    mode: str
    fault: str
    #: By the accountant, of the mechanism without the fault.
    claimed: float
    #: The canaries' scores, (m,), of a run with these coins.
    run: Callable[[Coins], Doubles]


def probability_of(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Most probability of so many right guesses or more under (epsilon, delta)-privacy.

    Section 5 of the paper, its bound for approximate privacy: f(v) + 2 m delta max_i (f(v - i) - f(v)) / i over i from
    1 to v, where f(v) is the probability that of r coins that fall right with e^epsilon / (1 + e^epsilon) v or more do.
    """
    counts = torch.arange(guesses + 1, dtype=torch.float64)
    choose = torch.lgamma(torch.tensor(guesses + 1.0, dtype=torch.float64))
    choose = choose - torch.lgamma(counts + 1.0) - torch.lgamma(guesses - counts + 1.0)
    heads, tails = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    chances = torch.exp(choose + counts * heads + (guesses - counts) * tails).numpy()  # (guesses + 1,)
    below = np.cumsum(chances[:right][::-1]) / np.arange(1, right + 1)
    return min(1.0, float(chances[right:].sum() + 2.0 * canaries * delta * below.max(initial=0.0)))


def least_epsilon(right: int, guesses: int, canaries: int, delta: float, significance: float) -> float:
    """The largest epsilon that so many right guesses refute; 0 if they refute none."""
    low, high = 0.0, 1.0
    while probability_of(right, guesses, canaries, high, delta) <= significance:
        low, high = high, 2.0 * high
        if high > 100.0:
            return low
    while high - low > 1e-3:
        middle = (low + high) / 2.0
        if probability_of(right, guesses, canaries, middle, delta) <= significance:
            low = middle
        else:
            high = middle
    return low


def audit(scores: Doubles, coins: Coins, delta: float, significance: float = 0.05) -> float:
    """A lower bound on epsilon that holds with confidence 1 - significance, over all numbers of guesses together."""
    order, bounds = np.argsort(scores, kind="stable"), []
    for share in _GUESSED:
        side = max(1, int(len(scores) * share / 2.0))
        right = int(coins[order[-side:]].sum() + (~coins[order[:side]]).sum())
        bounds.append(least_epsilon(right, 2 * side, len(scores), delta, significance / len(_GUESSED)))
    return max(bounds)


def attack(args: argparse.Namespace) -> Findings:
    """Every case, as often as is asked for."""
    canaries, runs = (1000, 1) if args.quick else (args.canaries, args.runs)
    chance = np.random.default_rng(args.seed)
    cases = [case for epsilon in args.epsilons for case in _cases(epsilon, args.delta, args.steps, canaries)]
    found: list[dict[str, object]] = []
    bounds: dict[int, list[float]] = {}
    for number, case in progress([(n, case) for n, case in enumerate(cases) for _ in range(runs)], "auditing"):
        coins = chance.random(canaries) < 0.5
        bounds.setdefault(number, []).append(audit(case.run(coins), coins, args.delta))
    for number, case in enumerate(cases):
        found.append(
            {
                "mode": case.mode,
                "fault": case.fault,
                "claimed": case.claimed,
                "audited_median": float(np.median(bounds[number])),
                "audited_most": max(bounds[number]),
                "refuted": f"{sum(bound > case.claimed for bound in bounds[number])} of {runs}",
            }
        )
    known = chance.random(canaries) < 0.5
    return {
        "rows": found,
        "canaries": canaries,
        "delta": args.delta,
        "confidence": 0.95,
        "audited_if_every_coin_were_known": audit(known.astype(np.float64), known, args.delta),
    }


def _cases(epsilon: float, delta: float, steps: int, canaries: int) -> list[Case]:
    local = _canary_job("record-local", canaries, epsilon=epsilon, delta=delta, steps=steps)
    shared = _canary_job("record-distributed", canaries, epsilon=epsilon, delta=delta)
    local_noise, shared_noise = (job.privacy.noise_multiplier or 0.0 for job in (local, shared))

    def faulty(multiplier: float, clip_norm: float = 1.0) -> Job:
        return _canary_job(
            "record-local", canaries, steps=steps, noise_multiplier=multiplier, clip_norm=clip_norm, delta=delta
        )

    less = _canary_job("record-distributed", canaries, noise_multiplier=shared_noise / math.sqrt(10.0), delta=delta)
    kinds = [
        ("none", local, local),
        ("noise too small by sqrt(2)", local, faulty(local_noise / math.sqrt(2.0))),
        ("noise too small by sqrt(10)", local, faulty(local_noise / math.sqrt(10.0))),
        ("no clipping", local, faulty(local_noise / _NO_CLIPPING, _NO_CLIPPING)),
        ("no noise", local, faulty(_NO_NOISE)),
        ("none", shared, shared),
        ("noise too small by sqrt(10)", shared, less),
    ]
    return [
        Case(claimed.privacy.mode, fault, promised_epsilon(claimed), functools.partial(_scores, run))
        for fault, claimed, run in kinds
    ]


def _scores(job: Job, coins: Coins) -> Doubles:
    """How far each canary's coordinate went, (m,): of a site's update, or of the sum of ten sites that share them."""
    rows = _rows(coins)
    if job.privacy.mode == "record-local":
        return learn(job, rows)[:-1].astype(np.float64)
    sites = [Rows(rows.features[site::SITES], rows.target[site::SITES]) for site in range(SITES)]
    return secure_round(job, [learn(job, site) for site in sites]).total[:-1]


def _canary_job(mode: PrivacyMode, canaries: int, *, steps: int = 1, **told: Any) -> Job:
    training: dict[str, Any] = {"rounds": 1, "learning_rate": _RATE}
    if mode == "record-local":
        training |= {"sampling_rate": 1.0, "local_steps": steps}
        told["secure"] = False
    else:
        training |= {"batching": "all", "expected_rows": canaries // SITES}
    return make_job(mode, training, model={"kind": "logistic"}, features=canaries, classes=2, **told)


def _rows(coins: Coins) -> Rows:
    """The canaries that are there, each with a feature of its own."""
    there = np.flatnonzero(coins)
    features = np.zeros((len(there), len(coins)), dtype=np.float32)
    features[np.arange(len(there)), there] = _LARGE
    return Rows(features, np.ones(len(there), dtype=np.float32))


def parser() -> argparse.ArgumentParser:
    """The options of this attack."""
    options = parser_of(__doc__)
    options.add_argument("--epsilons", type=float, nargs="+", default=[2.0, 4.0, 8.0], help="that are claimed")
    options.add_argument("--canaries", type=int, default=4000, help="records whose presence is guessed")
    options.add_argument("--runs", type=int, default=5, help="audits of each case")
    options.add_argument("--steps", type=int, default=10, help="of record-local, in its one round")
    options.add_argument("--delta", type=float, default=1e-5)
    return options


if __name__ == "__main__":
    sys.exit(main(parser(), attack))
