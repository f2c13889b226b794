"""A federation of real processes that the tests share: a coordinator, four hospitals that learn and one that cannot.

Between each daemon and the coordinator stands a recording proxy, from the enrolment on. The populations of every
policy beside `patients` are for what goes wrong; at `aurora` their mappings are wrong ones.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from lepton_admin.demo import stage
from lepton_admin.demo.folder import DemoFolder
from lepton_admin.demo.processes import Processes
from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.link import CoordinatorLink
from lepton_admin.submission import resolve_job, submit_job
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home
from lepton_client.membership import accept
from lepton_client.opened import open_population
from lepton_core.ids import JobId
from lepton_core.job import JobFile
from lepton_core.ports import SystemClock
from lepton_core.settings import parse_settings
from lepton_core.views import Invitation, JobView
from lepton_kg.approval import approve
from lepton_kg.mapping import Subject, dump_mapping, parse_mapping
from lepton_kg.source import source_schema
from lepton_protos.channel import Endpoint, load_endpoint
from tests.e2e.recording_proxy import RecordingProxy

LEARNING = ("aurora", "birken", "changhe", "elm-park")
REFUSING = "fjord"
OWNERS = (*LEARNING, REFUSING)
ROUNDS = 4
#: Budget of the population `patients`: room for one job of epsilon 8 with a lost round, and not for two.
BUDGET = 10.0
DELTA = 1e-4
#: Every person of the population `people` has so many rows, but the last one.
ROWS_A_PERSON = 2
#: Long enough for five workers to import torch beside other tests; a whole job may take as long again.
STEP_DEADLINE_S = 60.0
_JOB_S = 2 * STEP_DEADLINE_S

#: Populations beside `patients`; at `aurora` the mappings of three of them are wrong ones.
FURTHER = ("trial", "unit", "version", "file", "people")
#: Populations that each owner has opened in its ledger.
OPENED = 1 + len(FURTHER)
POPULATION = """
[[populations]]
name = "{name}"
mapping = "{mapping}"
declared_rows = {rows}
modes = ["record-local", "record-distributed"]
epsilon = {epsilon}
delta = {delta}
"""


@dataclass(frozen=True)
class Federation:
    """What runs, and whom to ask."""

    folder: DemoFolder
    processes: Processes
    operator: CoordinatorLink
    researcher: CoordinatorLink
    proxies: dict[str, RecordingProxy]
    invitations: dict[str, Invitation]

    def job_file(self, **changes: Any) -> JobFile:
        """The hospitals' job, shorter, on a wider model; `changes` replace keys of its tables, None takes one away."""
        document: dict[str, Any] = {
            "name": "hospitals",
            "population": "patients",
            "task": job_task(self.folder.data / "job.toml"),
            "model": {"kind": "mlp", "hidden": [32]},
            "training": {"rounds": ROUNDS, "local_steps": 4, "sampling_rate": 0.5, "learning_rate": 1.0},
            "privacy": {"epsilon": 8.0, "delta": DELTA},
            "aggregation": {
                "min_cohort": 4,
                "max_cohort": 8,
                "kept_fraction": 0.5,
                "update_norm": 8.0,
                "step_deadline_s": STEP_DEADLINE_S,
            },
        }
        for key, value in changes.items():
            document[key] = {**document[key], **value} if isinstance(value, dict) else value
            if isinstance(value, dict):
                document[key] = {name: one for name, one in document[key].items() if one is not None}
        return parse_settings(JobFile, document, source="test")

    def submit(self, **changes: Any) -> JobId:
        """Hand the job in."""
        return submit_job(resolve_job(self.job_file(**changes), self.folder.data, self.researcher), self.researcher)

    def ended(self, job: JobId) -> JobView:
        """The job once it has ended."""
        for _ in self.researcher.watch(job, timeout_s=_JOB_S):
            pass
        return self.researcher.job(job)

    def home(self, owner: str) -> Home:
        """The owner's folder."""
        return Home(self.folder.home(owner))

    def pid(self, name: str) -> int:
        """The process, which leads a process group of its own."""
        return self.processes._running[name].process.pid

    def processes_of(self, name: str) -> list[int]:
        """The ids of all processes of its group: itself and what it started."""
        return processes_of_group(self.pid(name))


@contextlib.contextmanager
def running(root: Path) -> Iterator[Federation]:
    """The federation in the folder, its daemons connected. Afterwards every process group of it has ended."""
    folder = DemoFolder(root)
    with contextlib.ExitStack() as stack:
        processes = Processes(folder.logs)
        # 1. A coordinator, and the hospitals' data meanwhile.
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(_require_ended, started)
        stack.enter_context(processes)
        stage.start_coordinator(folder, processes)
        stage.write_data(folder, processes, 0)
        processes.wait_until((folder.coordinator / "address").is_file, "the coordinator", "coordinator")
        operator = stack.enter_context(CoordinatorLink.of_profile(folder.operator))
        enrol(operator.invite("rosa", "researcher", 600.0), folder.researcher, None)
        researcher = stack.enter_context(CoordinatorLink.of_profile(folder.researcher))
        # 2. Every owner enrols through a proxy of its own, whose address it keeps.
        proxies, invitations = {}, {}
        for owner in OWNERS:
            invitations[owner] = invitation = operator.invite(owner, "owner", 600.0)
            proxy = proxies[owner] = RecordingProxy(folder.coordinator)
            stack.callback(proxy.close)
            proxy.dial(bootstrap_of(invitation))
            enrol_owner(replace(invitation, address=proxy.address), folder.home(owner))
            proxy.dial(replace(load_endpoint(folder.home(owner) / "tls"), address=operator.address))
        # 3. Who may be a peer, and what each owner allows.
        key = create_federation(folder.federation, "hospitals")
        add_members(folder.federation, [Home(folder.home(owner)).card for owner in OWNERS])
        sign_members(folder.federation, days=1)
        researcher.publish_membership((folder.federation / SIGNED_FILE).read_bytes())
        processes.finish("data", 60.0)
        for owner in OWNERS:
            _write_policy(folder, owner, key)
            accept(Home(folder.home(owner)), folder.federation / SIGNED_FILE)
            for name in ("patients", *FURTHER):
                open_population(folder.home(owner), name, "made-up people for tests", SystemClock())
        mapped = {owner: (folder.mapping(owner), folder.home(owner)) for owner in OWNERS}
        stage.sign_mappings(processes, folder.ontology, mapped)
        # 4. Their daemons.
        stage.start_owners(folder, processes, OWNERS)
        started += [running.process for running in processes._running.values()]
        researcher.publish_ontology((folder.data / "ontology.ttl").read_bytes(), "turtle", "hospitals")
        processes.wait_until(lambda: operator.health().connected_members == len(OWNERS), "connecting", *OWNERS)
        yield Federation(folder, processes, operator, researcher, proxies, invitations)


@dataclass(frozen=True)
class Learnt:
    """A job that has ended."""

    view: JobView
    #: Owner -> whom its processes were connected with in the middle of the job; `listening` for an open port.
    connections: dict[str, set[str]]


#: A model whose masked words are too long to travel within a message.
WIDE = {"hidden": [2400]}
#: The changes that make the job one of noise in shares, on one clipped sum a round.
SUMMED: dict[str, Any] = {
    "population": "trial",
    "training": {"local_steps": None, "sampling_rate": None, "expected_rows": 80},
    "privacy": {"mode": "record-distributed", "epsilon": 2.0},
    "aggregation": {"update_norm": None},
}


#: The same, where what is protected is a person with all rows.
FOR_PEOPLE: dict[str, Any] = {
    **SUMMED,
    "population": "people",
    "training": {**SUMMED["training"], "expected_rows": 40},
    "privacy": {**SUMMED["privacy"], "unit": "subject"},
}


def run_job(federation: Federation, **changes: Any) -> Learnt:
    """Run the hospitals' job to its end."""
    job = federation.submit(**changes)
    connections: dict[str, set[str]] = {}
    for event in federation.researcher.watch(job, timeout_s=_JOB_S):
        if event.kind == "round" and not connections:
            connections = {owner: connections_of(federation.processes_of(owner)) for owner in OWNERS}
    return Learnt(federation.researcher.job(job), connections)


def connections_of(processes: list[int]) -> set[str]:
    """`host:port` of every peer of the processes' TCP and UDP sockets; `listening` for one that takes connections."""
    sockets = set()
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(handle.readlink().name)
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, _, remote, state, *_ = fields = line.split()
            if f"socket:[{fields[9]}]" in sockets:
                found.add("listening" if state == "0A" else _address(remote))
    return found


def _address(remote: str) -> str:
    """`0100007F:1F90` as `127.0.0.1:8080`; an IPv4 address may stand in an IPv6 one."""
    host, _, port = remote.partition(":")
    octets = bytes.fromhex(host[-8:])[::-1]
    return f"{'.'.join(map(str, octets))}:{int(port, 16)}"


def job_task(path: Path) -> dict[str, Any]:
    """The task of the example's job file."""
    task: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))["task"]
    return task


def processes_of_group(group: int) -> list[int]:
    """Ids of all processes of a group that have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            state, _, number = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if folder.name.isdigit() and int(number) == group and state != "Z":
                found.append(int(folder.name))
    return found


def _require_ended(started: list[subprocess.Popen[bytes]]) -> None:
    """All have ended by themselves when they were asked to, and nothing that they started is left."""
    assert [process.returncode for process in started] == [0] * (len(OWNERS) + 3)
    assert [left for process in started for left in processes_of_group(process.pid)] == []


def bootstrap_of(invitation: Invitation) -> Endpoint:
    """How to reach the coordinator with an invitation and nothing else."""
    return Endpoint(
        invitation.address,
        invitation.ca_certificate.encode(),
        invitation.bootstrap_certificate.encode(),
        invitation.bootstrap_key.encode(),
    )


def _write_policy(folder: DemoFolder, owner: str, federation_key: str) -> None:
    """The demo's policy with the populations of the tests."""
    stage.write_policy(folder, owner, federation_key)
    path = folder.home(owner) / "policy.toml"
    text = re.sub(r"^epsilon = .*$", f"epsilon = {BUDGET}", path.read_text("utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^modes = .*$", 'modes = ["record-local", "record-distributed"]', text, flags=re.MULTILINE)
    data = folder.data / owner
    mapping = (data / "mapping.yaml").read_text("utf-8")
    wrong = {
        # An area in a unit of concentration.
        "unit": mapping.replace("unit: mm2", "unit: mg/dL"),
        "version": re.sub(r"^ontology: .*$", f"ontology: {'0' * 64}", mapping, flags=re.MULTILINE),
        "file": mapping,
    }
    for name in ("trial", *wrong):
        place = data
        if owner == "aurora" and name in wrong:
            place = folder.data / f"{owner}-{name}"
            place.mkdir()
            if name != "file":
                shutil.copy(data / "data.csv", place)
                assert wrong[name] != mapping
            (place / "mapping.yaml").write_text(wrong[name], "utf-8")
        relative = os.path.relpath(place / "mapping.yaml", path.parent)
        rows = stage.DECLARED_ROWS[owner]
        text += POPULATION.format(name=name, mapping=relative, rows=rows, epsilon=1000.0, delta=DELTA)
    relative = os.path.relpath(write_people(folder.data, owner), path.parent)
    text += POPULATION.format(name="people", mapping=relative, rows=rows, epsilon=1000.0, delta=DELTA)
    text += f"declared_subjects = {rows // ROWS_A_PERSON}\nsubject_epsilon = {BUDGET}\n"
    path.write_text(text, "utf-8")


def write_people(data: Path, owner: str) -> Path:
    """The owner's data again with a column that says whose each row is, and its mapping, whose path it gives."""
    place = data / f"{owner}-people"
    place.mkdir()
    source = data / owner / "data.csv"
    if source.is_file():
        # Whatever the encoding, bytes of a letter stay what they are.
        head, *lines = source.read_text("latin-1").splitlines()
        separator = ";" if ";" in head else ","
        people = [f"{line}{separator}{_person(owner, row)}" for row, line in enumerate(lines)]
        (place / source.name).write_text("\n".join([f"{head}{separator}person", *people, ""]), "latin-1")
    else:
        table = pl.read_parquet(source.with_suffix(".parquet"))
        people = pl.Series("person", [_person(owner, row) for row in range(len(table))])
        table.with_columns(people).write_parquet(place / "data.parquet")
    before = parse_mapping((data / owner / "mapping.yaml").read_text("utf-8"), source=owner)
    mapping = before.model_copy(update={"subject": Subject(column="person")})
    schema, today = source_schema(mapping.source, place), dt.date(2026, 1, 1)
    (place / "mapping.yaml").write_text(
        dump_mapping(approve(mapping, approver=owner, date=today, schema=schema)), "utf-8"
    )
    return place / "mapping.yaml"


def _person(owner: str, row: int) -> str:
    return f"{owner}-person-{row // ROWS_A_PERSON}"
