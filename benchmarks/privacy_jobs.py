"""The privacy benchmark's jobs: digits split among sites, one recipe for every privacy mode, one public learning rate.

Logistic regression of 64 pixels in 10 digits, first weights 0; 60 rounds of one step on all records; clip norm 1; plain
federated averaging. A pixel is scaled from its public range 0 to 16 to [-1, 1], as owners' plans do. Nothing of it was
chosen on digits: `learning_rate`, the one number that matters, is a rule of public numbers which `privacy_rule` fixed
on synthetic data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.federation_digits import DIGITS, PIXELS, VOCABULARY, load_rows
from benchmarks.training import unlike_shards
from lepton_client.train.rows import Rows
from lepton_core.job import Job, JobFile
from lepton_core.privacy.accountant import noise_multiplier_for
from lepton_core.privacy.plan import required_noise
from lepton_core.settings import parse_settings

SITES, HELD_OUT, ROUNDS, DELTA, CLIP_NORM = 10, 450, 60, 1e-4, 1.0
#: What all sites declare; the 1,347 training rows are 134 or 135 a site.
ROWS_A_SITE = 135
_BRIGHTEST = 16


@dataclass(frozen=True)
class Case:
    """One run: a promise, how it is kept, and on which split."""

    mode: Literal["record-distributed", "record-local"]
    epsilon: float
    seed: int
    #: m, the fewest sites whose sum is revealed, and c, of which so many may collude.
    contributors: int = SITES
    colluders: int = 0
    #: Sites with unlike digits.
    unlike: bool = False
    #: Which of several runs that differ in their noise alone.
    draw: int = 0


def learning_rate(noise: float, records: float, rounds: int, features: int) -> float:
    """The rate at which the noise of all rounds moves one logit by a standard deviation of 1, if nothing pulls it back.

    `noise` is the standard deviation of the noise in a round's sum over `records`, in clip norms, all of them public.
    The row whose logit is meant is half as long as the longest of so many features in [-1, 1] and a constant of 1.
    """
    half_row = math.sqrt(features + 1) / 2.0
    return records / (noise * CLIP_NORM * math.sqrt(rounds) * half_row)


def document(case: Case, ontology: str = "0" * 64) -> dict[str, Any]:
    """The job file of a case, as a researcher writes it."""
    distributed = case.mode == "record-distributed"
    recipe: dict[str, Any] = {"rounds": ROUNDS}
    if distributed:
        recipe |= {"batching": "all", "expected_rows": ROWS_A_SITE}
    else:
        recipe |= {"batching": "poisson", "sampling_rate": 1.0, "local_steps": 1}
    privacy = {
        "mode": case.mode,
        "epsilon": case.epsilon,
        "delta": DELTA,
        "clip_norm": CLIP_NORM,
        "colluders": case.colluders if distributed else 0,
    }
    drafted: dict[str, Any] = {
        "name": "digits",
        "task": {
            "ontology": ontology,
            "vocabulary": VOCABULARY,
            "features": [{"concept": name} for name in PIXELS],
            "target": {"concept": "digit", "classes": list(DIGITS)},
        },
        "model": {"kind": "logistic"},
        "training": recipe,
        "privacy": privacy,
        "aggregation": {"min_cohort": case.contributors, "max_cohort": SITES},
    }
    noise = noise_multiplier(case)
    shares = case.contributors - case.colluders if distributed else 1
    rate = learning_rate(noise * math.sqrt(SITES / shares), ROWS_A_SITE * SITES, ROUNDS, len(PIXELS))
    drafted["training"]["learning_rate"] = rate
    if not distributed:
        drafted["aggregation"]["update_norm"] = _update_norm(rate, noise)
    return drafted


@lru_cache(maxsize=64)
def _required_noise(mode: str, epsilon: float) -> float:
    recipe: dict[str, Any] = {"rounds": ROUNDS, "expected_rows": ROWS_A_SITE, "batching": "all"}
    if mode == "record-local":
        recipe = {"rounds": ROUNDS, "batching": "poisson", "sampling_rate": 1.0, "local_steps": 1}
    file = JobFile.model_validate(
        {
            "name": "noise",
            "task": {"ontology": "0" * 64, "vocabulary": VOCABULARY, "features": [{"concept": "pixel-0"}]}
            | {"target": {"concept": "digit", "classes": list(DIGITS)}},
            "training": recipe,
            "privacy": {"mode": mode, "epsilon": epsilon, "delta": DELTA},
        }
    )
    return required_noise(file.privacy, file.training)


def noise_multiplier(case: Case) -> float:
    """Noise over the sensitivity that the accountant asks for: in the whole sum, or at each site."""
    return _required_noise(case.mode, case.epsilon)


def tighter_noise_multiplier(epsilon: float) -> float:
    """What the continuous Gaussian's privacy loss distribution would allow a trusted curator; less than a sum needs."""
    return noise_multiplier_for(epsilon, DELTA, 1.0, ROUNDS)


def resolved(case: Case) -> Job:
    """The job of a case with its noise; the same object for all runs that differ in split and draw alone."""
    return _resolved(replace(case, seed=0, draw=0, unlike=False))


@lru_cache(maxsize=64)
def _resolved(case: Case) -> Job:
    drafted = document(case)
    drafted["privacy"]["noise_multiplier"] = noise_multiplier(case)
    return parse_settings(Job, drafted, source="benchmark")


def _changed(job: Job, noise: float, rate: float) -> Job:
    """The job with another noise multiplier and learning rate."""
    privacy = job.privacy.model_copy(update={"noise_multiplier": noise})
    training = job.training.model_copy(update={"learning_rate": rate})
    return job.model_copy(update={"privacy": privacy, "training": training})


def central(case: Case, noise: float) -> Job:
    """What a trusted curator does with all records and this noise multiplier: as many steps, by the same rule."""
    rate = learning_rate(noise, ROWS_A_SITE * SITES, ROUNDS, len(PIXELS))
    whole = replace(case, mode="record-distributed", contributors=SITES, colluders=0)
    return _changed(resolved(whole), noise, rate)


def one_site(case: Case) -> Job:
    """What a site does without partners: full noise, its own records, the same rule."""
    alone = replace(case, mode="record-local", contributors=SITES, colluders=0)
    noise = noise_multiplier(alone)
    return _changed(resolved(alone), noise, learning_rate(noise, ROWS_A_SITE, ROUNDS, len(PIXELS)))


def _update_norm(rate: float, noise: float) -> float:
    """A public bound on a site's update that noise reaches next to never: all records one way, and the noise."""
    values = (len(PIXELS) + 1) * len(DIGITS)
    longest = rate * CLIP_NORM * (1.0 + 1.2 * noise * math.sqrt(values) / ROWS_A_SITE)
    return float(f"{longest:.3g}")


@dataclass(frozen=True)
class Split:
    """A seed's rows, as integers, shape (rows, 65): pixels and digit."""

    held_out: npt.NDArray[np.int64]
    sites: tuple[npt.NDArray[np.int64], ...]


def split(seed: int, *, unlike: bool) -> Split:
    """Hold out 450 rows, and give the others to ten sites: in turn, or by a Dirichlet distribution (0.3) each digit."""
    rows, generator = load_rows(), np.random.default_rng([seed, 0])
    rows = rows[generator.permutation(len(rows))]
    held_out, rest = rows[:HELD_OUT], rows[HELD_OUT:]
    if not unlike:
        return Split(held_out, tuple(rest[site::SITES] for site in range(SITES)))
    shards = unlike_shards(rest[:, -1].astype(np.float32), SITES, generator)
    return Split(held_out, tuple(rest[shard] for shard in shards))


def scaled(rows: npt.NDArray[np.int64]) -> Rows:
    """Rows as a plan gives them to a model: a pixel's public range becomes [-1, 1]."""
    half = _BRIGHTEST / 2
    return Rows(((rows[:, :-1] - half) / half).astype(np.float32), rows[:, -1].astype(np.float32))


def declared(sites: Sequence[npt.NDArray[np.int64]]) -> list[int]:
    """What each site declares its rows to be: to the next five, which is public."""
    return [max(5, 5 * round(len(rows) / 5)) for rows in sites]
