"""Whole jobs over real daemons, mTLS and a durable coordinator, without DP: plain and secure, each a fixed job.

Digits of scikit-learn, one local epoch of SGD (rate 0.1, batch 32), FedAvg weighted by rows, from torch's own
first weights; so other systems can run the same. `seconds_cold` counts from nothing running, before the coordinator's
keys are made, to the job's result; `seconds_per_round` is the steady state, without the first rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.federation_digits import DIGITS, PIXELS, VOCABULARY, Digits, write_digits
from benchmarks.federation_site import Site, federation
from lepton_admin.submission import resolve_job, submit_job
from lepton_core.errors import FaultError
from lepton_core.ids import JobId
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_core.views import JobState, JobView


@dataclass(frozen=True)
class Fixed:
    """A job that anybody can run."""

    members: int
    rounds: int
    hidden: tuple[int, ...]
    #: What a plain loop of the same recipe in one process reaches.
    accuracy: float


JOBS = {
    "J1": Fixed(members=4, rounds=20, hidden=(64,), accuracy=0.9222),
    "J2": Fixed(members=4, rounds=5, hidden=(963, 963), accuracy=0.8306),
    "J4": Fixed(members=8, rounds=20, hidden=(64,), accuracy=0.8750),
}
#: Public bound on a member's update; those of these jobs have norms of 0.2 to 0.73.
_UPDATE_NORM = 1.0
_DEADLINE_S = 600.0
_POLL_S = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", nargs="+", choices=sorted(JOBS), default=sorted(JOBS), help="which jobs")
    parser.add_argument("--secure-only", action="store_true", help="leave out the plain runs")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a job and way of adding up; every row starts from nothing."""
    ways = (True,) if args.secure_only else (False, True)
    rows = [_measure(name, secure=secure) for name in args.jobs for secure in ways]
    of = {(row["job"], row["secure"]): row for row in rows}
    figures: dict[str, object] = {"rows": rows}
    for name, figure in (
        ("J1", "seconds_per_round"),
        ("J2", "seconds_per_round"),
        ("J1", "seconds_cold"),
        ("J1", "accuracy"),
    ):
        if (name, True) in of:
            figures[f"{name.lower()}_secure_{figure}"] = of[name, True][figure]
    return figures


def _measure(name: str, *, secure: bool) -> dict[str, Any]:
    job = JOBS[name]
    with tempfile.TemporaryDirectory() as folder:
        digits = write_digits(Path(folder) / "data", job.members, job.hidden)
        started = time.time()
        with federation(Path(folder), digits, job.members) as site:
            view = run_job(site, job, digits, secure=secure)
            pss_mb, processes = site.memory()
    ended = [round_.ended for round_ in view.rounds if round_.state == "completed"]
    warm_up = len(ended) // 5
    return {
        "job": name,
        "secure": secure,
        "seconds_cold": view.ended - started,
        "seconds_per_round": (ended[-1] - ended[warm_up - 1]) / (len(ended) - warm_up),
        "accuracy": view.models[-1].accuracy,
        "bytes_up": sum(one.payload_bytes * len(one.survivors) + one.message_bytes for one in view.rounds),
        "pss_mb": pss_mb,
        "processes": processes,
        "accuracy_expected": job.accuracy,
        "rounds": len(ended),
    }


def run_job(
    site: Site, job: Fixed, digits: Digits, *, secure: bool, aggregation: Mapping[str, Any] | None = None
) -> JobView:
    """The finished job, with its rounds and models; `aggregation` replaces how updates are encoded.

    Raises:
        FaultError: it failed, or takes too long.
    """
    ontology = site.researcher.publish_ontology(digits.ontology.read_bytes(), "turtle", "digits").digest
    document = _document(job, digits, ontology, {"profile": "exact"} if secure else {"secure": False})
    if aggregation is not None:
        document = _document(job, digits, ontology, aggregation)
    file = parse_settings(JobFile, document, source="benchmark")
    submitted = submit_job(resolve_job(file, digits.folder, site.researcher), site.researcher)
    return finish_job(site, submitted)


def finish_job(site: Site, submitted: JobId) -> JobView:
    """The job's view when it has finished.

    Raises:
        FaultError: it failed, or takes too long.
    """
    deadline = time.monotonic() + _DEADLINE_S
    while not (view := site.researcher.job(submitted)).state.ended:
        site.processes.check()
        if time.monotonic() > deadline:
            raise FaultError("the job takes too long", where=submitted, expected=f"within {_DEADLINE_S:g} s")
        time.sleep(_POLL_S)
    if view.state is not JobState.FINISHED:
        raise FaultError("the job did not finish", where=submitted, got=f"{view.state}: {view.reason}")
    return view


def _document(job: Fixed, digits: Digits, ontology: str, aggregation: Mapping[str, Any]) -> dict[str, Any]:
    source, mapping = digits.held_out
    return {
        "name": "digits",
        "task": {
            "ontology": ontology,
            "vocabulary": VOCABULARY,
            "features": [{"concept": name} for name in PIXELS],
            "target": {"concept": "digit", "classes": list(DIGITS)},
        },
        "model": {"kind": "mlp", "hidden": list(job.hidden), "initial_weights": digits.weights.name},
        "training": {
            "rounds": job.rounds,
            "batching": "epochs",
            "local_epochs": 1,
            "batch_size": 32,
            "shuffle_seed": 0,
            "learning_rate": 0.1,
        },
        "privacy": {"mode": "none"},
        "aggregation": {
            "min_cohort": job.members,
            "max_cohort": job.members,
            "update_norm": _UPDATE_NORM,
            "weighting": "rows",
            "most_rows": digits.most_rows,
            **aggregation,
        },
        "evaluation": {"source": source.name, "mapping": mapping.name},
    }
