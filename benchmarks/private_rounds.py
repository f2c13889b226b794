"""How fast rounds with noise in shares are: real daemons that clip, sum, noise and mask, over mTLS, everything durable.

Eight sites of 100 digits each and an MLP of about 10,000 parameters; a coordinator and daemons as `lepton` starts them,
with their training processes and ledgers. The first rounds are left out. CPU is what the kernel charged a process and
its children between two looks at the job, so that a busy machine does not show in it; wall time shows one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federation_digits import DIGITS, PIXELS, VOCABULARY, load_rows, write_parts
from benchmarks.federation_site import Budget, Site, federation, with_children
from lepton_admin.submission import resolve_job, submit_job
from lepton_core.errors import FaultError
from lepton_core.ids import JobId
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_core.views import JobView

_DELTA = 1e-4
#: Rounds that are not counted: processes load their libraries, caches are cold and connections young.
_WARM_UP = 10
_DEADLINE_S = 900.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--members", type=int, default=8, help="sites")
    parser.add_argument("--rows", type=int, default=100, help="rows a site")
    parser.add_argument("--rounds", type=int, default=510, help="rounds, the first ten not counted")
    parser.add_argument("--hidden", type=int, default=133, help="hidden units; 75 parameters each")


def run(args: argparse.Namespace) -> dict[str, object]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder, pixels = Path(name), load_rows()
        pixels = pixels[np.random.default_rng(0).permutation(len(pixels))]
        parts = [pixels[site * args.rows : (site + 1) * args.rows] for site in range(args.members)]
        digits = write_parts(folder / "data", pixels[-args.rows :], parts, darkest=0)
        budget = Budget(modes=("record-distributed",), epsilon=16.0, delta=_DELTA)
        with federation(folder, digits, args.members, budget) as site:
            ontology = site.researcher.publish_ontology(digits.ontology.read_bytes(), "turtle", "digits").digest
            file = parse_settings(JobFile, _document(args, ontology), source="benchmark")
            job_id = submit_job(resolve_job(file, folder, site.researcher), site.researcher)
            first = _wait_for_rounds(site, job_id, _WARM_UP)
            before = _cpu_s(site)
            last = _wait_for_rounds(site, job_id, args.rounds)
            after = _cpu_s(site)
    done = [round_ for round_ in last.rounds if round_.state == "completed"]
    counted = len(done) - len(first.rounds)
    seconds = done[-1].ended - done[-1 - counted].ended
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return {
        "rounds_per_s": counted / seconds,
        "seconds_500_rounds": 500 * seconds / counted,
        "member_cpu_ms": 1e3 * statistics.mean(spent[1:]) / counted,
        "coordinator_cpu_ms": 1e3 * spent[0] / counted,
        "cpu_s_500_rounds": 500 * sum(spent) / counted,
        "rounds": counted,
        "survivors": len(done[-1].survivors),
        "parameters": last.model_parameters,
        "epsilon": last.models[-1].epsilon,
    }


def _document(args: argparse.Namespace, ontology: str) -> dict[str, Any]:
    return {
        "name": "rounds",
        "task": {
            "ontology": ontology,
            "vocabulary": VOCABULARY,
            "features": [{"concept": name} for name in PIXELS],
            "target": {"concept": "digit", "classes": list(DIGITS)},
        },
        "model": {"kind": "mlp", "hidden": [args.hidden]},
        "training": {"rounds": args.rounds, "expected_rows": args.rows, "learning_rate": 0.5},
        "privacy": {"mode": "record-distributed", "epsilon": 8.0, "delta": _DELTA},
        "aggregation": {"min_cohort": args.members, "max_cohort": args.members},
    }


def _wait_for_rounds(site: Site, job: JobId, count: int) -> JobView:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        view = site.researcher.job(job)
        if view.state.ended or view.model_version >= count:
            if view.model_version < count:
                raise FaultError("the job did not finish", where=job, got=view.reason)
            return view
        site.processes.check()
        # A look at the job costs the coordinator as much as a part of a round.
        time.sleep(1.0)
    raise FaultError("the rounds take too long", where=job, expected=f"{count} within {_DEADLINE_S:g} s")


def _cpu_s(site: Site) -> list[float]:
    """User and system time of the coordinator, then of each owner, in seconds, with all their children."""
    return [
        sum(_process_cpu_s(pid) for pid in with_children([site.processes.pid(name)]))
        for name in ("coordinator", *site.owners)
    ]


def _process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
