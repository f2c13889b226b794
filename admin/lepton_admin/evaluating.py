"""How good a model is on an owner's own records, told to the owner alone: no coordinator is needed, nothing leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lepton_admin.files import read_bytes, read_text
from lepton_core.errors import InputError
from lepton_core.ids import Digest


class Side(StrEnum):
    """Which of an owner's records are looked at."""

    #: Those of the subjects that the job's split keeps out of training.
    HELD_OUT = "held-out"
    #: Those that the job trains on.
    TRAIN = "train"
    #: Both.
    ALL = "all"


@dataclass(frozen=True)
class Evaluation:
    """A model's quality on an owner's records; for the owner's eyes, as it is of records and bears no noise."""

    side: Side
    #: Records evaluated on.
    rows: int
    #: Share of them whose class is told right.
    accuracy: float
    #: Area under the ROC curve; None with more than two classes, or rows of one class only.
    auc: float | None
    #: Records of the other side.
    rows_of_other_side: int
    #: Records that the job's filters leave out.
    rows_filtered: int
    #: Records of this side that cannot be read with certainty, by reason.
    refused_by: Mapping[str, int]


def evaluate_rows(model: Path, mapping_file: Path, side: Side, ontology: Callable[[str], bytes]) -> Evaluation:
    """The model on one side of the mapping's source, read and refused by the same plan that trains.

    `ontology(digest)` gives the canonical N-Quads of the job's ontology version.

    Raises:
        InputError: a file that is missing or not as it should be, or a side of a job that has none.
        MappingError: a mapping that is not approved for its source as it is now.
        MatchRefusal: the mapping or the rows cannot serve the model's job.
        DataError: the source cannot be read.
    """
    from lepton_admin.models import load_sidecar
    from lepton_kg.approval import require_current
    from lepton_kg.compiler import compile_plan
    from lepton_kg.mapping import parse_mapping
    from lepton_kg.ontology import load_canonical
    from lepton_kg.source import read_batches, source_schema
    from lepton_pool.evaluate import evaluate
    from lepton_pool.models import architecture_of, model_layout
    from lepton_pool.weights import decode_weights

    # 1. Which records: the job's split decides, by the subjects' ids.
    job = load_sidecar(model).job
    if side is not Side.ALL and job.task.split is None:
        raise InputError(
            "the model's job holds nobody out",
            where="task.split",
            expected="a job with a split, or all records",
            got="no split",
            hint="--side all evaluates on every record; the job may have trained on them",
        )
    task = job.task.unsplit if side is Side.ALL else job.task
    # 2. The owner's approved mapping, compiled as for training.
    digest = Digest(task.ontology)
    mapping = parse_mapping(read_text(mapping_file, "mapping"), source=str(mapping_file))
    base = mapping_file.resolve().parent
    plan = compile_plan(task, mapping, load_canonical(ontology(digest), digest))
    require_current(mapping, digest, source_schema(mapping.source, base))
    prepared = plan.execute(read_batches(mapping.source, plan.columns, base), held_out=side is Side.HELD_OUT)
    # 3. The model on them.
    architecture = architecture_of(job)
    vector = decode_weights(model_layout(architecture), read_bytes(model, "model file"))
    metrics = evaluate(architecture, vector, prepared.features, prepared.target)
    return Evaluation(
        side=side,
        rows=metrics.rows,
        accuracy=metrics.accuracy,
        auc=metrics.auc,
        rows_of_other_side=prepared.report.rows_held_out,
        rows_filtered=prepared.report.rows_filtered,
        refused_by=prepared.report.refused_by,
    )
