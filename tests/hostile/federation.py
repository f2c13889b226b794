"""A federation of real processes, one coordinator and five daemons over mutual TLS, in which a job's name is a lie.

Started once for all attacks: `tests.hostile.coordinator` and `tests.hostile.member` lie by the name of a job. What
daemons did is read from outside: their files, their logs, and the coordinator's end of the wire.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lepton_admin.demo.processes import Processes, free_port
from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.link import CoordinatorLink
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home, load_identity
from lepton_client.membership import accept
from lepton_core.ids import JobId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.views import JobEvent, JobView
from lepton_pool.models import model_layout
from lepton_pool.weights import decode_weights
from lepton_server.setup import init_home
from tests.unit.client.clinics import TURTLE, make_clinic_job, write_policy

T = TypeVar("T")

#: Norm of each owner's update: no two sets of owners have the same mean.
WEIGHTS = {"aurora": 0.05, "birken": 0.1, "changhe": 0.2, "elm-park": 0.4, "fjord": 0.8}
#: The owner whose daemon lies, where the job's name is a member's lie.
LIAR = "fjord"
HONEST = tuple(owner for owner in WEIGHTS if owner != LIAR)
#: Long enough for any step on a loaded machine; no lie needs a step to run into its deadline.
_STEP_S = 30.0
#: Longest that a job takes, beside others.
_JOB_S = 45.0


@dataclass(frozen=True)
class Hostile:
    """What runs, and what can be seen of it."""

    folder: Path
    processes: Processes
    operator: CoordinatorLink
    researcher: CoordinatorLink
    #: Owner by hex member id.
    owners: dict[str, str]
    #: How long the coordinator's log was when each job was submitted.
    logged_before: dict[JobId, int] = field(default_factory=dict)
    _jobs: dict[JobId, Job] = field(default_factory=dict)

    def home(self, owner: str) -> Path:
        """The owner's folder."""
        return self.folder / owner

    def start(self, owner: str, folder: Path | None = None) -> None:
        """Start the owner's daemon, or one of its identity in another folder."""
        home, role = folder or self.home(owner), ["liar"] if owner == LIAR else []
        self.processes.lepton(home.name, "--module", "tests.hostile.member", str(home), str(WEIGHTS[owner]), *role)

    def kill(self, name: str) -> None:
        """End a process as a loss of power does, and forget it."""
        self.processes.kill(name)
        del self.processes._running[name]

    def submit(self, name: str, *, rounds: int = 1, hidden: int = 0) -> JobId:
        """A job without privacy, whose name may be a lie's; a hidden layer of this width makes its inputs long."""
        document = make_clinic_job(rounds=rounds).model_dump() | {
            "name": name,
            "model": {"kind": "mlp", "hidden": [hidden]} if hidden else {"kind": "logistic"},
            "privacy": {"mode": "none"},
            "aggregation": {"min_cohort": 4, "max_cohort": 8, "profile": "exact", "step_deadline_s": _STEP_S},
        }
        job = Job.model_validate(document)
        before = len(self.log("coordinator"))
        job_id = self.researcher.submit(job.canonical())
        self.logged_before[job_id] = before
        self._jobs[job_id] = job
        return job_id

    def ended(self, job: JobId, *, besides: tuple[str, ...] = ()) -> JobView:
        """The job once it has ended, all other processes alive and none with a fault."""
        list(self.researcher.watch(job, timeout_s=_JOB_S))
        view = self.researcher.job(job)
        assert view.state.ended, f"{view}\n{self.wire(job)}"
        self.require_well(besides)
        return view

    def events(self, job: JobId, kind: str) -> list[JobEvent]:
        """What watchers were told of an ended job."""
        return [event for event in self.researcher.watch(job, timeout_s=_JOB_S) if event.kind == kind]

    def wire(self, job: JobId, way: str = "", kind: str = "") -> list[dict[str, Any]]:
        """What went over the coordinator's end of the wire, in order, with owners' names."""
        lines = [json.loads(line) for line in (self.folder / "wire.jsonl").read_text("utf-8").splitlines()]
        return [
            line | {"owner": self.owners[line["member"]]}
            for line in lines
            if line["job"] == job and way in line["way"] and kind in {"", line["kind"]}
        ]

    def heard(self, job: JobId, kind: str) -> list[str]:
        """Which owners reported this, in order."""
        return [line["owner"] for line in self.wire(job, "heard", kind)]

    def refusals(self, job: JobId) -> dict[str, set[str]]:
        """Why each owner left rounds of the job, in the words told to the coordinator."""
        told: dict[str, set[str]] = {}
        for line in self.wire(job, "heard", "RoundRefusal"):
            told.setdefault(line["owner"], set()).add(line["reason"])
        return told

    def revealed(self, job: JobId) -> dict[str, set[str]]:
        """Of which secrets of each owner shares were revealed to the coordinator, by anybody in any round."""
        kinds: dict[str, set[str]] = {}
        for line in self.wire(job, "heard", "Unmasking"):
            for dealer, kind in line["revealed"].items():
                kinds.setdefault(self.owners[dealer], set()).add(kind)
        return kinds

    def answers(self, owner: str, job: JobId) -> list[int]:
        """Model versions of the job that the owner's own file says it has answered on."""
        lines = map(json.loads, (self.home(owner) / "answers.jsonl").read_text("utf-8").splitlines())
        return [line["model_version"] for line in lines if line["job_id"] == job]

    def log(self, name: str) -> str:
        """Everything that a process has logged."""
        return self.processes._running[name].log.read_text("utf-8")

    def mean_of(self, job: JobId) -> float:
        """Norm of the mean update behind the job's newest model, by its models alone."""
        versions = sorted(self.researcher.models(job), key=lambda model: model.version)
        last, before = (self._weights(job, model.digest) for model in (versions[-1], versions[-2]))
        step = last - before
        assert np.ptp(step) < 1e-4  # every coordinate moved alike, as every update does
        return float(step.mean() * np.sqrt(len(step)))

    def require_well(self, besides: tuple[str, ...] = ()) -> None:
        """Every other process runs, and none has met a fault of its own."""
        self.processes.check(besides=besides)
        for name in self.processes._running:
            log = self.log(name)
            for fault in ("Traceback", "a fault in", "was dropped", "not done"):
                assert fault not in log, f"{name}: {log}"

    def wait_until(self, done: Callable[[], bool], what: str, *, besides: tuple[str, ...] = ()) -> None:
        """Wait for something that the processes bring about, all but these alive."""
        alive = [name for name in self.processes._running if name not in besides]
        self.processes.wait_until(done, what, *alive, timeout_s=30.0)

    def _weights(self, job: JobId, digest: str) -> Vector:
        document = self._jobs[job]
        layout = model_layout(document.model, len(document.task.features))
        return decode_weights(layout, self.researcher.download(digest))


def every(owners: Iterable[str], value: T) -> dict[str, T]:
    """The same of each owner."""
    return {owner: value for owner in owners}  # noqa: C420 - a list or set is compared with here, never changed


def mean_weight(*owners: str) -> float:
    """Norm of the mean update of these owners."""
    return sum(WEIGHTS[owner] for owner in owners) / len(owners)


@contextlib.contextmanager
def hostile_federation(root: Path) -> Iterator[Hostile]:
    """The federation in the folder, its daemons connected."""
    coordinator, researcher = root / "coordinator", root / "rosa"
    init_home(coordinator, listen=f"127.0.0.1:{free_port()}", hosts=("127.0.0.1", "localhost"))
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes(root / "logs"))
        tap = str(root / "wire.jsonl")
        processes.lepton("coordinator", "--module", "tests.hostile.coordinator", str(coordinator), tap)
        processes.wait_until((coordinator / "address").is_file, "the coordinator", "coordinator")
        operator = stack.enter_context(CoordinatorLink.of_profile(coordinator / "operator"))
        enrol(operator.invite("rosa", "researcher", 600.0), researcher, None)
        link = stack.enter_context(CoordinatorLink.of_profile(researcher))
        for owner in WEIGHTS:
            enrol_owner(operator.invite(owner, "owner", 600.0), root / owner)
        key = create_federation(root / "federation", "clinics")
        add_members(root / "federation", [Home(root / owner).card for owner in WEIGHTS])
        sign_members(root / "federation", days=1)
        signed = root / "federation" / SIGNED_FILE
        owners = {load_identity(Home(root / owner)).member.hex(): owner for owner in WEIGHTS}
        hostile = Hostile(root, processes, operator, link, owners)
        for owner in WEIGHTS:
            _allow(root / owner, key)
            accept(Home(root / owner), signed)
            hostile.start(owner)
        link.publish_membership(signed.read_bytes())
        link.publish_ontology(TURTLE, "turtle", "clinics")
        processes.wait_until(lambda: operator.health().connected_members == len(WEIGHTS), "connecting", *WEIGHTS)
        yield hostile


def _allow(folder: Path, key: str) -> None:
    """A policy that allows jobs without privacy, whose sums can be looked at."""
    write_policy(folder, key, modes=["none"])
    path = folder / "policy.toml"
    text = path.read_text("utf-8").replace('models = ["logistic"]', 'models = ["logistic", "mlp"]')
    path.write_text(f"{text}allow_unprotected = true\n", "utf-8")


@contextlib.contextmanager
def found_by_children(repository: Path) -> Iterator[None]:
    """Processes started within find `tests`, wherever pytest was started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(repository), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
