"""The privacy benchmark over real processes: ten daemons and a coordinator, mTLS, durable ledgers, job after job.

A federation is started from nothing for one split, and its owners' one budget pays for every job.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.federation import finish_job
from benchmarks.federation_digits import write_parts
from benchmarks.federation_site import Budget, federation
from benchmarks.privacy_jobs import DELTA, SITES, Case, Split, document
from lepton_admin.submission import resolve_job, submit_job
from lepton_core.errors import FaultError
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings

#: Enough for three modes at three epsilons each; the ledger counts every round of it.
_BUDGET = Budget(modes=("record-distributed", "record-local"), epsilon=60.0, delta=DELTA)


def run_jobs(cases: Sequence[Case], split: Split) -> list[float]:
    """The last model's accuracy on the rows held out, as the coordinator tells it, of every case in turn.

    Raises:
        FaultError: a job failed or was late, or lost a site on its way.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits = write_parts(folder / "data", split.held_out, split.sites, darkest=0)
        source, mapping = digits.held_out
        with federation(folder, digits, SITES, _BUDGET) as site:
            ontology = site.researcher.publish_ontology(digits.ontology.read_bytes(), "turtle", "digits").digest
            accuracies = []
            for case in cases:
                drafted = document(case, ontology) | {"evaluation": {"source": source.name, "mapping": mapping.name}}
                file = parse_settings(JobFile, drafted, source="benchmark")
                submitted = submit_job(resolve_job(file, digits.folder, site.researcher), site.researcher)
                view = finish_job(site, submitted)
                if any(len(one.survivors) != SITES for one in view.rounds if one.state == "completed"):
                    raise FaultError("a site was missing in a round", where=submitted)
                accuracies.append(_told(view.models[-1].accuracy, submitted))
    return accuracies


def _told(accuracy: float, job: str) -> float:
    if accuracy < 0.0:
        raise FaultError("the last model was not evaluated", where=job)
    return accuracy
