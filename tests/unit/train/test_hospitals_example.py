"""What the hospitals example promises: it learns in a hundred quick rounds, at an epsilon of one."""

from __future__ import annotations

import tomllib
from pathlib import Path

from benchmarks.hospitals import draw_split, resolve
from lepton_client.train.together import train_together
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_pool.evaluate import evaluate
from lepton_pool.models import architecture_of
from lepton_pool.promise import promised_epsilon
from lepton_pool.terms import derive_ring_plan
from tests.simulation.federation import SeededRandomness

EXAMPLE = Path(__file__).parents[3] / "examples" / "hospitals"


def test_the_examples_job_learns_at_epsilon_one_with_little_more_than_a_byte_a_parameter(tmp_path):
    file = parse_settings(JobFile, tomllib.loads((EXAMPLE / "job.toml").read_text("utf-8")), source="job.toml")
    job = resolve(file)
    assert job.training.rounds >= 100
    assert promised_epsilon(job) <= 1.0
    assert derive_ring_plan(job).bytes_per_parameter <= 1.1
    split = draw_split(job, tmp_path, 0)
    model = train_together(job, split.hospitals, split.declared_rows, randomness=SeededRandomness("hospitals"))
    found = evaluate(architecture_of(job), model, split.holdout.features, split.holdout.target)
    # 63 in 100 of the patients held out have the commoner diagnosis.
    assert found.accuracy > 0.88
    assert found.auc > 0.95
