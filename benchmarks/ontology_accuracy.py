"""What shared meaning is worth: the demo's hospitals through their mappings, and the same files joined by position.

By position, the n-th number of every hospital is taken for the n-th feature, in whatever unit it is, scaled by that
feature's public range and cut to [-1, 1]; what is no number is 0. The target is the raw column as well: its codes in
the order of their text are the classes, as an encoder of labels gives them. A third figure takes the right labels, so
that only the features are at stake. Same job, same privacy, same held-out patients.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.hospitals import Split, draw_files, draw_split, resolve
from lepton_client.train.rows import Rows
from lepton_client.train.together import train_together
from lepton_core.job import Job, JobFile
from lepton_core.settings import parse_settings
from lepton_kg.cells import numeric
from lepton_kg.mapping import parse_mapping
from lepton_kg.ontology import Ontology, parse_ontology
from lepton_kg.source import read_columns, source_schema
from lepton_kg.task import NumericFeature, resolve_task
from lepton_pool.evaluate import evaluate
from lepton_pool.models import architecture_of

_EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "hospitals"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Splits."""
    parser.add_argument("--accuracy-splits", type=int, default=5, help="draws of hospitals and held-out patients")


def run(args: argparse.Namespace) -> dict[str, object]:
    """The two figures."""
    return measure(splits=args.accuracy_splits)


def measure(*, splits: int = 5) -> dict[str, object]:
    """`accuracy_mapped`, `accuracy_by_position` and, with the right labels, `accuracy_by_position_labelled`: means."""
    document = tomllib.loads((_EXAMPLE / "job.toml").read_text("utf-8"))
    job = resolve(parse_settings(JobFile, document, source="job.toml"))
    ontology = parse_ontology((_EXAMPLE / "ontology.ttl").read_bytes(), format="turtle", source="ontology.ttl")
    mapped, joined, labelled = [], [], []
    for seed in range(splits):
        with tempfile.TemporaryDirectory() as folder:
            split = draw_split(job, Path(folder), seed)
            files = draw_files(Path(folder), seed)
            raw = tuple(_by_position(job, ontology, path, labels_given=False) for path in files)
            right = tuple(_by_position(job, ontology, path, labels_given=True) for path in files)
        mapped.append(_accuracy(job, split))
        joined.append(_accuracy(job, Split(raw, split.declared_rows, split.holdout)))
        labelled.append(_accuracy(job, Split(right, split.declared_rows, split.holdout)))
    return {
        "accuracy_mapped": statistics.mean(mapped),
        "accuracy_by_position": statistics.mean(joined),
        "accuracy_by_position_labelled": statistics.mean(labelled),
        "accuracy_splits": splits,
    }


def _accuracy(job: Job, split: Split) -> float:
    model = train_together(job, split.hospitals, split.declared_rows)
    return evaluate(architecture_of(job), model, split.holdout.features, split.holdout.target).accuracy


def _by_position(job: Job, ontology: Ontology, mapping_file: Path, *, labels_given: bool) -> Rows:
    """A hospital's rows as if its n-th number were the n-th feature."""
    mapping = parse_mapping(mapping_file.read_text("utf-8"), source=str(mapping_file))
    base = mapping_file.parent
    target = next(column for column in mapping.columns if column.codes)
    frame = read_columns(mapping.source, list(source_schema(mapping.source, base)), base)
    names = [name for name in frame.columns if name != target.column]
    numbers = frame.select(
        numeric(name, frame.schema[name], decimal=mapping.source.decimal, missing=()).fill_null(0.0).alias(name)
        for name in names
    ).to_numpy()
    features = np.zeros((frame.height, job.task.width), dtype=np.float32)
    for place, feature in enumerate(resolve_task(job.task, ontology).features[: numbers.shape[1]]):
        if isinstance(feature, NumericFeature):
            middle, half = (feature.minimum + feature.maximum) / 2, (feature.maximum - feature.minimum) / 2
            features[:, place] = np.clip((numbers[:, place] - middle) / half, -1.0, 1.0)
    # Of two codes the later one in the order of text is class 1, and so is malignant of the hold-out's.
    ill = [raw for raw, value in target.codes.items() if value == "malignant"] if labels_given else [max(target.codes)]
    labels = frame[target.column].cast(pl.String).is_in(ill).to_numpy()
    return Rows(features, labels.astype(np.float32))
