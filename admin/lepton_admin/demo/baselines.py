"""Beside the federation, in a process of its own: each owner alone and the pooled data, at the same epsilon.

No real site would release these models: they spend every owner's budget a second time. They exist here, where the data
are public, so that the federation can be compared with them.

python -m lepton_admin.demo.baselines JOB.json EVALUATION.safetensors ONTOLOGY.nq OUT.json OWNER=MAPPING ...
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

#: Nice value: the federation goes first.
NICENESS = 10


@dataclass(frozen=True)
class Baseline:
    """One model trained without partners, on the public hold-out."""

    name: str
    rows_mapped: int
    rows_refused: int
    accuracy: float
    auc: float


#: Name of the model trained on everybody's rows together.
POOLED = "pooled"


def compute(job_file: Path, evaluation_file: Path, ontology_file: Path, mappings: dict[str, Path]) -> list[Baseline]:
    """Every owner alone, then all pooled, last."""
    import numpy as np
    from safetensors.numpy import load

    from lepton_client.train.alone import train_alone
    from lepton_client.train.rows import Rows
    from lepton_core.ids import Digest
    from lepton_core.job import parse_job
    from lepton_kg.mapping import parse_mapping
    from lepton_kg.ontology import load_canonical
    from lepton_kg.plan import compile_plan
    from lepton_kg.source import read_columns
    from lepton_pool.evaluate import evaluate
    from lepton_pool.models import architecture_of

    job = parse_job(job_file.read_bytes())
    held_out = load(evaluation_file.read_bytes())
    ontology = load_canonical(ontology_file.read_bytes(), Digest(job.task.ontology))
    found: list[Baseline] = []
    parts: list[Rows] = []

    def measure(name: str, rows: Rows, refused: int) -> None:
        metrics = evaluate(architecture_of(job), train_alone(job, rows), held_out["features"], held_out["target"])
        auc = metrics.auc if metrics.auc is not None else -1.0
        found.append(Baseline(name, len(rows.target), refused, metrics.accuracy, auc))

    for name, mapping_file in mappings.items():
        mapping = parse_mapping(mapping_file.read_text("utf-8"), source=str(mapping_file))
        plan = compile_plan(job.task, mapping, ontology)
        prepared = plan.execute(read_columns(mapping.source, plan.columns, mapping_file.parent))
        parts.append(Rows(prepared.features, prepared.target))
        measure(name, parts[-1], prepared.report.rows_refused)
    pooled = Rows(np.concatenate([part.features for part in parts]), np.concatenate([part.target for part in parts]))
    measure(POOLED, pooled, sum(baseline.rows_refused for baseline in found))
    return found


def load_baselines(file: Path) -> dict[str, Baseline]:
    """What `main` wrote, by name."""
    return {entry["name"]: Baseline(**entry) for entry in json.loads(file.read_text("utf-8"))}


def main() -> None:
    """Compute, and write the result in one step."""
    os.nice(NICENESS)
    job_file, evaluation_file, ontology_file, out, *owners = sys.argv[1:]
    mappings = {name: Path(path) for name, _, path in (owner.partition("=") for owner in owners)}
    found = compute(Path(job_file), Path(evaluation_file), Path(ontology_file), mappings)
    partial = Path(out).with_suffix(".partial")
    partial.write_text(json.dumps([asdict(baseline) for baseline in found]), encoding="utf-8")
    partial.replace(out)


if __name__ == "__main__":
    main()
