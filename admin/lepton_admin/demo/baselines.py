"""Beside the federation, in a process of its own: the models of the mode `record-local`, at the same epsilon.

Each owner alone, all data in one place, and the same federation, had each of its members to add all of the noise.
No real site would release these models: they spend every owner's budget again. They exist here, where the data are
public, so that the federation can be compared with them.

python -m lepton_admin.demo.baselines JOB.toml EVALUATION.safetensors ONTOLOGY.nq OUT.json OWNER=ROWS=MAPPING ...
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: Nice value: the federation goes first.
NICENESS = 10


@dataclass(frozen=True)
class Owner:
    """One owner's part in the comparison."""

    name: str
    #: What its policy declares in public.
    declared_rows: int
    mapping: Path


@dataclass(frozen=True)
class Baseline:
    """One model of the comparison, on the public hold-out."""

    name: str
    mode: str
    rows_mapped: int
    rows_refused: int
    accuracy: float
    auc: float
    #: Upper bound for one record, added or removed, at the job's delta.
    epsilon: float


#: Names of the model trained on everybody's rows in one place, and of the one that the owners train together.
POOLED, TOGETHER = "pooled", "together"


def compute(job_file: Path, evaluation_file: Path, ontology_file: Path, owners: Sequence[Owner]) -> list[Baseline]:
    """Every owner alone, then all pooled, then all together, by the recipe of a job file."""
    import numpy as np
    from safetensors.numpy import load

    from lepton_admin.submission import resolve_offline
    from lepton_client.train.alone import train_alone
    from lepton_client.train.rows import Rows
    from lepton_client.train.together import train_together
    from lepton_core.ids import Digest
    from lepton_core.layout import Vector
    from lepton_kg.compiler import compile_plan
    from lepton_kg.mapping import parse_mapping
    from lepton_kg.ontology import load_canonical
    from lepton_kg.source import read_columns
    from lepton_pool.evaluate import evaluate
    from lepton_pool.models import architecture_of
    from lepton_pool.promise import promised_epsilon

    job = resolve_offline(job_file)
    epsilon = promised_epsilon(job)
    held_out = load(evaluation_file.read_bytes())
    ontology = load_canonical(ontology_file.read_bytes(), Digest(job.task.ontology))
    found: list[Baseline] = []
    parts: list[Rows] = []

    def measure(name: str, model: Vector, rows: int, refused: int) -> None:
        metrics = evaluate(architecture_of(job), model, held_out["features"], held_out["target"])
        auc = metrics.auc if metrics.auc is not None else -1.0
        found.append(Baseline(name, job.privacy.mode, rows, refused, metrics.accuracy, auc, epsilon))

    for owner in owners:
        mapping = parse_mapping(owner.mapping.read_text("utf-8"), source=str(owner.mapping))
        plan = compile_plan(job.task, mapping, ontology)
        prepared = plan.execute(read_columns(mapping.source, plan.columns, owner.mapping.parent))
        parts.append(Rows(prepared.features, prepared.target))
        measure(owner.name, train_alone(job, parts[-1]), len(prepared.target), prepared.report.rows_refused)
    pooled = Rows(np.concatenate([part.features for part in parts]), np.concatenate([part.target for part in parts]))
    refused = sum(baseline.rows_refused for baseline in found)
    measure(POOLED, train_alone(job, pooled), len(pooled.target), refused)
    together = train_together(job, parts, [owner.declared_rows for owner in owners])
    measure(TOGETHER, together, len(pooled.target), refused)
    return found


def load_baselines(file: Path) -> dict[str, Baseline]:
    """What `main` wrote, by name."""
    return {entry["name"]: Baseline(**entry) for entry in json.loads(file.read_text("utf-8"))}


def main() -> None:
    """Compute, and write the result in one step."""
    os.nice(NICENESS)
    job_file, evaluation_file, ontology_file, out, *told = sys.argv[1:]
    parts = [owner.split("=", maxsplit=2) for owner in told]
    owners = [Owner(name, int(rows), Path(mapping)) for name, rows, mapping in parts]
    found = compute(Path(job_file), Path(evaluation_file), Path(ontology_file), owners)
    partial = Path(out).with_suffix(".partial")
    partial.write_text(json.dumps([asdict(baseline) for baseline in found]), encoding="utf-8")
    partial.replace(out)


if __name__ == "__main__":
    main()
