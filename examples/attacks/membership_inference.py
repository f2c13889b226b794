"""Membership inference: was this record among those that a released model was learnt from?

    python examples/attacks/membership_inference.py [--models 10] [--out FOLDER]

Ten sites train together, of all digits each with a fair coin; the attacker has the last model and every digit. Two
attacks. `loss` (Yeom et al. 2018): a record of small loss is called a member. `shadow`, a small LiRA (Carlini et al.
2022): the attacker has trained other federations of the same kind, knows how sure of the record those were that had it
and those that had not, and asks which the model resembles; here each model's shadows are all the others.

An epsilon bounds every such attack: of the members at most e^epsilon FPR + delta are found, and at most
1 - (1 - FPR - delta) / e^epsilon. Only the weights that are released are attacked; masks, which cancel exactly, are
left out of the training.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lepton_client.train.rows import Rows
from lepton_client.train.together import train_together
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_pool.models import architecture_of, build_model, load_vector
from report import Findings, main, parser_of, progress
from wire import DELTA, SITES, Doubles, load_rows, make_job, pick

Members = npt.NDArray[np.bool_]

#: Rows that may be members; the others tell how good the model is.
_CANDIDATES = 1200
_EPSILONS = (8.0, 2.0)
#: Above what a member's noise alone makes of an update.
_UPDATE_NORM = 10.0
#: Below it a shadow attack's Gaussians are too narrow to believe.
_LEAST_DEVIATION = 0.1
_FPR = 0.01


@dataclass(frozen=True)
class Case:
    """A job, and the epsilon it promises; infinite if none."""

    epsilon: float
    job: Job


def confidences(job: Job, model: Vector, rows: Rows) -> tuple[Doubles, float]:
    """How sure the model is of each row's class, log(p / (1 - p)), shape (rows,); and how often it is right."""
    module = build_model(architecture_of(job))
    load_vector(module, model)
    with torch.no_grad():
        logits = module.double()(torch.from_numpy(rows.features).double())  # (rows, 10)
    right = torch.from_numpy(rows.target).long()[:, None]
    own = logits.gather(1, right)[:, 0]
    others = logits.scatter(1, right, -torch.inf)
    sure: Doubles = (own - others.logsumexp(dim=1)).numpy()
    return sure, float((others.max(dim=1).values < own).double().mean())


def shadow_scores(sure: Doubles, members: Members) -> Doubles:
    """Log-likelihood ratio of member to none for each model and record by all other models; both (models, records)."""
    scores = np.empty_like(sure)
    for model in range(len(sure)):
        others = np.arange(len(sure)) != model
        likelihoods = []
        for side in (members[others], ~members[others]):
            counts = side.sum(axis=0)
            middle = (sure[others] * side).sum(axis=0) / np.maximum(counts, 1)  # (records,)
            # One deviation for all records, as so few models tell little of each record's own.
            spread = math.sqrt(float((((sure[others] - middle) ** 2) * side).sum() / (counts - 1).clip(1).sum()))
            deviation = max(spread, _LEAST_DEVIATION)
            away = (sure[model] - middle) / deviation
            likelihoods.append(np.where(counts > 0, -0.5 * away**2 - math.log(deviation), 0.0))
        scores[model] = likelihoods[0] - likelihoods[1]
    return scores


def rates(scores: Doubles, members: Members) -> tuple[float, float]:
    """True positives at `_FPR` false ones, and the area under the curve; ties count half."""
    positives, negatives = np.sort(scores[members]), np.sort(scores[~members])
    threshold = negatives[math.ceil((1.0 - _FPR) * len(negatives)) - 1]
    found = 1.0 - np.searchsorted(positives, threshold, side="right") / len(positives)
    below = np.searchsorted(negatives, positives, side="left") + np.searchsorted(negatives, positives, side="right")
    return float(found), float(below.mean() / (2.0 * len(negatives)))


def intervals(scores: Doubles, members: Members, chance: np.random.Generator, times: int) -> list[list[float]]:
    """95 % intervals of both rates, from records drawn anew with replacement."""
    drawn = (chance.integers(scores.shape[1], size=scores.shape[1]) for _ in range(times))
    values = [rates(scores[:, which], members[:, which]) for which in drawn]
    return [[float(low), float(high)] for low, high in np.quantile(values, [0.025, 0.975], axis=0).T]


def most_found(epsilon: float, delta: float) -> float:
    """The most true positives that (epsilon, delta)-privacy allows at `_FPR` false ones."""
    grown = math.exp(min(epsilon, 700.0))
    return min(1.0, grown * _FPR + delta, 1.0 - (1.0 - _FPR - delta) / grown)


def attack(args: argparse.Namespace) -> Findings:
    """Every job, trained as often as is asked for, each model attacked with the help of the others."""
    count, rounds, times = (3, 3, 5) if args.quick else (args.models, args.rounds, 200)
    rows, chance = load_rows(), np.random.default_rng(args.seed)
    order = chance.permutation(len(rows.target))
    candidates, held_out = pick(rows, order[:_CANDIDATES]), pick(rows, order[_CANDIDATES:])
    cases = _cases(rounds)
    trained: list[list[tuple[Doubles, float, Members]]] = [[] for _ in cases]
    for number, case in progress([(n, case) for n, case in enumerate(cases) for _ in range(count)], "training"):
        members = chance.random(_CANDIDATES) < 0.5
        there = np.flatnonzero(members)
        sites = [pick(candidates, there[site::SITES]) for site in range(SITES)]
        model = train_together(case.job, sites, [_CANDIDATES // 2 // SITES] * SITES)
        sure, _ = confidences(case.job, model, candidates)
        trained[number].append((sure, confidences(case.job, model, held_out)[1], members))
    found = []
    for case, models in zip(cases, trained, strict=True):
        sure, members = np.stack([one[0] for one in models]), np.stack([one[2] for one in models])
        for name, scores in (("loss", sure), ("shadow", shadow_scores(sure, members))):
            tpr, auc = rates(scores, members)
            tpr_interval, auc_interval = intervals(scores, members, chance, times)
            found.append(
                {
                    "job": case.job.privacy.mode,
                    "epsilon": case.epsilon if math.isfinite(case.epsilon) else "none",
                    "accuracy": float(np.mean([one[1] for one in models])),
                    "attack": name,
                    "tpr": tpr,
                    "tpr_95": tpr_interval,
                    "tpr_allowed": most_found(case.epsilon, DELTA),
                    "auc": auc,
                    "auc_95": auc_interval,
                }
            )
    return {"rows": found, "fpr": _FPR, "delta": DELTA, "models": count, "rounds": rounds}


def _cases(rounds: int) -> list[Case]:
    expected = _CANDIDATES // 2 // SITES
    plain = {"batching": "epochs", "local_epochs": 3, "batch_size": 30, "learning_rate": 0.4, "rounds": rounds}
    step = {"sampling_rate": 1.0, "local_steps": 1, "learning_rate": 1.0, "rounds": rounds}
    one_sum = {"batching": "all", "expected_rows": expected, "learning_rate": 1.0, "rounds": rounds}
    return [
        Case(math.inf, make_job("none", plain, update_norm=_UPDATE_NORM)),
        *(Case(e, make_job("record-local", step, epsilon=e, update_norm=_UPDATE_NORM)) for e in _EPSILONS),
        *(Case(e, make_job("record-distributed", one_sum, epsilon=e)) for e in _EPSILONS),
    ]


def parser() -> argparse.ArgumentParser:
    """The options of this attack."""
    options = parser_of(__doc__)
    options.add_argument("--models", type=int, default=10, help="federations of each kind; each is attacked once")
    options.add_argument("--rounds", type=int, default=60, help="of each federation")
    return options


if __name__ == "__main__":
    sys.exit(main(parser(), attack))
