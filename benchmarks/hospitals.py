"""Accuracy of the hospitals example over several splits: the federation, each hospital alone, and all data pooled.

Every split draws other held-out patients and other hospitals. Data plans, private training, ring encoding, summing and
decoding are the real ones, in one process; only masks, which cancel exactly, are left out. All models have the job's
epsilon. `round_ms` is the processor time of one member's training and encoding, its share of decoding included.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_client.train.alone import train_alone
from lepton_client.train.rows import Rows
from lepton_client.train.together import train_together
from lepton_core.errors import FaultError
from lepton_core.job import Job, JobFile
from lepton_core.layout import Vector
from lepton_core.privacy.plan import required_noise
from lepton_core.settings import parse_settings
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import parse_mapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.source import read_columns
from lepton_pool.evaluate import Metrics, evaluate
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.promise import promised_epsilon
from lepton_pool.terms import derive_ring_plan

_EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "hospitals"


@dataclass(frozen=True)
class Split:
    """One draw of hospitals and held-out patients."""

    hospitals: tuple[Rows, ...]
    #: What each hospital declares in public: its rows, rounded up to tens.
    declared_rows: tuple[int, ...]
    holdout: Rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Splits and the job."""
    parser.add_argument("--splits", type=int, default=5, help="draws of hospitals and held-out patients")
    parser.add_argument("--job", type=Path, default=_EXAMPLE / "job.toml", help="job.toml to run")
    parser.add_argument("--federated-only", action="store_true", help="leave out the baselines")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a split, and the means."""
    file = parse_settings(JobFile, tomllib.loads(args.job.read_text("utf-8")), source=str(args.job))
    job = resolve(file)
    rows: list[dict[str, float]] = []
    round_ms: list[float] = []
    for seed in range(args.splits):
        with tempfile.TemporaryDirectory() as folder:
            split = draw_split(job, Path(folder), seed)
        start = time.process_time()
        model = train_together(job, split.hospitals, split.declared_rows)
        round_ms.append(1e3 * (time.process_time() - start) / job.training.rounds / len(split.hospitals))
        federated = _measure(job, model, split)
        row = {"split": seed, "accuracy_federated": federated.accuracy, "auc_federated": federated.auc or float("nan")}
        if not args.federated_only:
            alone = [_measure(job, train_alone(job, own), split).accuracy for own in split.hospitals]
            pooled = _measure(job, train_alone(job, pool(split)), split)
            row |= {"accuracy_alone_mean": statistics.mean(alone), "accuracy_pooled": pooled.accuracy}
        rows.append(row)
    columns = [column for column in rows[0] if column != "split"]
    return {
        "rows": rows,
        "mean": {column: statistics.mean(row[column] for row in rows) for column in columns},
        "least_accuracy_federated": min(row["accuracy_federated"] for row in rows),
        "epsilon": promised_epsilon(job),
        "delta": job.privacy.delta,
        "parameters": model_layout(architecture_of(job)).length,
        "bytes_per_parameter": derive_ring_plan(job).bytes_per_parameter,
        "round_ms": statistics.mean(round_ms),
    }


def resolve(file: JobFile) -> Job:
    """The job that submitting the file would make, without its evaluation set."""
    noise = required_noise(file.privacy, file.training)
    document = file.document()
    document["privacy"]["noise_multiplier"] = noise
    return parse_settings(Job, document, source="job")


def draw_split(job: Job, folder: Path, seed: int) -> Split:
    """The example's files of this seed, read as the owners' plans read them."""
    summary = _load_script().write_hospitals(folder, seed=seed)
    hospitals = tuple(_prepare(job, summary.ontology, files.mapping) for files in summary.hospitals)
    return Split(
        hospitals=hospitals,
        declared_rows=tuple(-(-files.rows // 10) * 10 for files in summary.hospitals),
        holdout=_prepare(job, summary.ontology, summary.holdout.mapping),
    )


def draw_files(folder: Path, seed: int) -> tuple[Path, ...]:
    """The mappings of this seed's hospitals, with their data beside them."""
    return tuple(files.mapping for files in _load_script().write_hospitals(folder, seed=seed).hospitals)


def pool(split: Split) -> Rows:
    """All hospitals' rows in one place."""
    return Rows(
        np.concatenate([rows.features for rows in split.hospitals]),
        np.concatenate([rows.target for rows in split.hospitals]),
    )


@functools.cache
def _load_script() -> Any:
    """The example's script, by its file: some distributions install a package called `examples`."""
    spec = importlib.util.spec_from_file_location("hospitals_make_data", _EXAMPLE / "make_data.py")
    if spec is None or spec.loader is None:
        raise FaultError("the example's script cannot be loaded", where=str(_EXAMPLE))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def _prepare(job: Job, ontology: Path, mapping_file: Path) -> Rows:
    mapping = parse_mapping(mapping_file.read_text("utf-8"), source=str(mapping_file))
    known = parse_ontology(ontology.read_bytes(), format="turtle", source=str(ontology))
    plan = compile_plan(job.task, mapping, known)
    data = plan.execute(read_columns(mapping.source, plan.columns, mapping_file.parent))
    return Rows(data.features, data.target)


def _measure(job: Job, model: Vector, split: Split) -> Metrics:
    return evaluate(architecture_of(job), model, split.holdout.features, split.holdout.target)
