"""What a member of a job in mode `record-distributed` must never show: its clipped sums, and numbers of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_client.train.learner import build_summing_learner, sum_round
from lepton_client.train.rows import Rows
from lepton_compression.update import kept_indices
from lepton_core.chain import Link
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.privacy.units import UNIT_SUBJECT
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import parse_mapping
from lepton_kg.ontology import Ontology
from lepton_kg.source import read_columns
from lepton_pool.terms import derive_noise_plan
from tests.e2e.leak_search import Secrets, windows_of

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summed:
    """One owner's part in such a job, worked out once more from its records."""

    #: One a round, shape (model_length,).
    sums: tuple[Doubles, ...]
    #: Rows that were summed, that were refused, and of each class.
    counts: tuple[int, ...]

    def secrets(self, job: Job) -> Secrets:
        """What to look for: the sums as they are and as steps, and the counts as numbers of eight bytes."""
        recipe = job.training
        step = -recipe.learning_rate / (recipe.expected_rows or 1)
        forms = [form for total in self.sums for form in (total, step * total)]
        numbers = {
            np.array(count, number_format).tobytes()
            for count in self.counts
            for number_format in ("<f8", ">f8", "<i8", ">i8")
        }
        windows = frozenset(window for form in forms for window in windows_of(form[form != 0.0]))
        return Secrets({"number of rows": tuple(numbers)}, windows, frozenset())


def sum_again(job: Job, ontology: Ontology, mapping_file: Path, rounds: Sequence[tuple[Vector, Link]]) -> Summed:
    """The owner's clipped sums on these models, on the coordinates that these links' rounds kept."""
    mapping = parse_mapping(mapping_file.read_text("utf-8"), source=str(mapping_file))
    of_subjects = job.privacy.unit == UNIT_SUBJECT
    plan = compile_plan(job.task, mapping, ontology, subjects=of_subjects)
    prepared = plan.execute(read_columns(mapping.source, plan.columns, mapping_file.parent))
    rows = Rows(prepared.features, prepared.target, prepared.subjects if of_subjects else None)
    learner, ring = build_summing_learner(job), derive_noise_plan(job).ring
    sums = tuple(
        sum_round(learner, model, kept_indices(ring, link.codec_seed), rows, sampling_rate=job.training.record_rate)
        for model, link in rounds
    )
    positive = int(rows.target.sum())
    refused = prepared.report.rows_refused
    return Summed(sums, (len(rows.target), refused, positive, len(rows.target) - positive))
