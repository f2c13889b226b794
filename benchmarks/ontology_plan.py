"""What an owner's plan takes: 30 concepts over a million rows of Parquet, in a process of its own.

`plan_s` is compiling and running the plan, reading included; `plan_rss_mb` the most memory that the process had, with
the libraries. Each is the best of the repeats, as other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import Column, Mapping, Source
from lepton_kg.ontology import Ontology, parse_ontology
from lepton_kg.source import read_batches

_EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "hospitals"
_UNITS = {"mm": "um", "mm2": "cm2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Rows and repeats."""
    parser.add_argument("--plan-rows", type=int, default=1_000_000, help="rows of the source")
    parser.add_argument("--plan-kind", choices=("parquet", "csv"), default="parquet", help="how the source is written")
    parser.add_argument("--plan-columns", type=int, default=30, help="concepts of the job, at most 30")
    parser.add_argument("--plan-repeats", type=int, default=3, help="runs, of which the best counts")


def run(args: argparse.Namespace) -> dict[str, object]:
    """The two figures."""
    return measure(rows=args.plan_rows, kind=args.plan_kind, columns=args.plan_columns, repeats=args.plan_repeats)


def measure(*, rows: int = 1_000_000, kind: str = "parquet", columns: int = 30, repeats: int = 3) -> dict[str, object]:
    """`plan_s` and `plan_rss_mb`, and the rows they are of."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), rows, kind, columns)
        runs = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.ontology_plan", folder, kind, str(columns)],
                    check=True,
                    capture_output=True,
                    text=True,
                    cwd=_EXAMPLE.parents[1],
                ).stdout
            )
            for _ in range(repeats)
        ]
    return {
        "plan_s": min(run["seconds"] for run in runs),
        "plan_cpu_s": min(run["cpu_seconds"] for run in runs),
        "plan_rss_mb": min(run["rss_mb"] for run in runs),
        "plan_rows": rows,
    }


def _task() -> tuple[JobFile, Ontology]:
    import tomllib

    ontology = parse_ontology((_EXAMPLE / "ontology.ttl").read_bytes(), format="turtle", source="ontology.ttl")
    file = parse_settings(JobFile, tomllib.loads((_EXAMPLE / "job.toml").read_text("utf-8")), source="job.toml")
    return file, ontology


def _mapping(kind: str, columns: int) -> Mapping:
    file, ontology = _task()
    lines: list[dict[str, object]] = []
    for feature in file.task.features[:columns]:
        concept = ontology.concept(file.task.iri(feature.concept))
        lines.append({"column": feature.concept, "concept": concept.iri, "missing": ("-9",)})
        lines[-1]["unit"] = _UNITS.get(str(concept.unit), str(concept.unit))
    lines.append({"column": "y", "concept": file.task.iri("diagnosis")})
    lines[-1]["codes"] = {"M": file.task.iri("malignant"), "B": file.task.iri("benign")}
    done = {"status": "approved", "approver": "benchmark", "date": "2026-01-01"}
    return Mapping(
        ontology=ontology.digest,
        source=Source.model_validate({"kind": kind, "path": f"rows.{kind}"}),
        columns=tuple(Column.model_validate(line | done) for line in lines),
    )


def _write(folder: Path, rows: int, kind: str, columns: int) -> None:
    """Rows of which one in a thousand has a missing value, a part at a time."""
    file, ontology = _task()
    draw = np.random.default_rng(0)
    path = folder / f"rows.{kind}"
    parts = []
    for start in range(0, rows, 1_000_000):
        height = min(1_000_000, rows - start)
        frame: dict[str, object] = {}
        for feature in file.task.features[:columns]:
            concept = ontology.concept(file.task.iri(feature.concept))
            low, high = concept.plausible_minimum or 0.0, concept.plausible_maximum or 1.0
            factor = {"mm": 1000.0, "mm2": 0.01}.get(str(concept.unit), 1.0)
            values = draw.uniform(low, high, height) * factor
            values[draw.random(height) < (0.0 if feature.required else 0.001)] = -9.0
            frame[feature.concept] = values.round(4)
        frame["y"] = np.where(draw.random(height) < 0.4, "M", "B")
        made = pl.DataFrame(frame)
        if kind == "csv":
            with path.open("ab") as out:
                made.write_csv(out, include_header=start == 0)
        else:
            parts.append(made)
    if parts:
        pl.concat(parts).write_parquet(path)


def _main(folder: Path, kind: str, columns: int) -> None:
    file, ontology = _task()
    task = file.task.model_copy(update={"features": file.task.features[:columns]})
    mapping = _mapping(kind, columns)
    start, used = time.perf_counter(), time.process_time()
    plan = compile_plan(task, mapping, ontology)
    data = plan.execute(read_batches(mapping.source, plan.columns, folder))
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "rss_mb": rss_mb, "rows": len(data.target)}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
