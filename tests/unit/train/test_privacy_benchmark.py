"""Is the privacy benchmark's learning rate the rule it says, and are its jobs and splits what they are said to be?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.federation_digits import load_rows
from benchmarks.privacy_jobs import (
    HELD_OUT,
    SITES,
    Case,
    central,
    declared,
    learning_rate,
    noise_multiplier,
    one_site,
    resolved,
    scaled,
    split,
)
from lepton_pool.promise import promised_epsilon

DISTRIBUTED = Case("record-distributed", 1.0, seed=0)


def test_the_noise_of_all_rounds_moves_a_logit_of_half_the_longest_row_by_one() -> None:
    noise, records, rounds, features = 27.2, 1350, 60, 64
    rate = learning_rate(noise, records, rounds, features)
    generator = np.random.default_rng(1)
    walks = generator.standard_normal((4000, rounds)).sum(axis=1) * rate * noise / records  # of one weight
    half_row = math.sqrt(features + 1) / 2
    assert np.std(walks) * half_row == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("case", [DISTRIBUTED, replace(DISTRIBUTED, contributors=9, colluders=2)])
def test_a_job_keeps_its_promise_and_its_rate_follows_from_the_noise_in_the_sum(case: Case) -> None:
    job = resolved(case)
    assert 0.97 < promised_epsilon(job) <= 1.0
    shares = case.contributors - case.colluders
    whole = learning_rate(noise_multiplier(case), 1350, 60, 64)
    assert job.training.learning_rate == pytest.approx(whole * math.sqrt(shares / SITES))


def test_baselines_differ_in_whose_records_and_noise_they_have_alone() -> None:
    alone, local = one_site(DISTRIBUTED), resolved(replace(DISTRIBUTED, mode="record-local"))
    assert alone.privacy == local.privacy
    # The mean over ten sites has the noise of ten, over ten times the records.
    assert local.training.learning_rate == pytest.approx(alone.training.learning_rate * math.sqrt(SITES))
    assert central(DISTRIBUTED, noise_multiplier(DISTRIBUTED)).training == resolved(DISTRIBUTED).training


@pytest.mark.parametrize("unlike", [False, True])
def test_every_row_is_held_out_or_at_one_site(unlike: bool) -> None:
    rows = split(3, unlike=unlike)
    assert (len(rows.held_out), len(rows.sites)) == (HELD_OUT, SITES)
    every = np.concatenate([rows.held_out, *rows.sites])
    assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, load_rows().tolist()))
    assert all(abs(told - max(5, len(site))) < 5 for told, site in zip(declared(rows.sites), rows.sites, strict=True))
    given = scaled(rows.held_out)
    assert (given.features.min(), given.features.max()) == (-1.0, 1.0)
