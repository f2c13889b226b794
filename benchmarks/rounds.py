"""How many secure rounds a second: real coordinator and member processes, mTLS, durable, without training.

Steady state: the first rounds are left out. CPU is what the kernel charged the processes between two rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.link import CoordinatorLink
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home
from lepton_client.membership import accept
from lepton_core.errors import FaultError
from lepton_core.ids import JobId
from lepton_core.job import Job
from lepton_core.settings import parse_settings
from lepton_core.views import JobView
from lepton_server.setup import init_home

_ONTOLOGY = Path(__file__).parent.parent / "examples" / "hospitals" / "ontology.ttl"
_VOCABULARY = "https://example.org/hospitals/"
_FEATURES = tuple(
    f"{which}-{what}"
    for which in ("mean", "worst")
    for what in ("radius", "texture", "perimeter", "area", "smoothness")
)
#: Rounds that are not counted: caches are cold and connections young.
_WARM_UP = 10
_DEADLINE_S = 300.0

#: When, what, how many.
Count = tuple[float, str, int]

_POLICY = """
[peers]
federation_key = "{key}"
minimum_cohort = 4

[[populations]]
name = "patients"
mapping = "mapping.yaml"
declared_rows = 100
modes = ["none"]
epsilon = 8.0
delta = 1e-4

[jobs]
purposes = ["research"]
concepts = ["{vocabulary}*"]
models = ["mlp"]
expires = {expires}
max_rounds = 100000
allow_unprotected = true
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--members", type=int, default=8, help="member processes")
    parser.add_argument("--rounds", type=int, default=100, help="rounds, the first ten not counted")
    parser.add_argument("--dimension", type=int, default=10_000, help="model parameters, roughly")


def run(args: argparse.Namespace) -> dict[str, object]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        coordinator, counts = stack.enter_context(_coordinator(folder))
        members = stack.enter_context(_members(folder, args.members))
        with CoordinatorLink.of_profile(folder / "researcher") as researcher:
            job_id = researcher.submit(_job(args, _publish(researcher)).canonical())
            before = _wait_for_rounds(researcher, job_id, _WARM_UP)
            start, cpu = time.time(), [_cpu_s(pid) for pid in (coordinator, *members)]
            after = _wait_for_rounds(researcher, job_id, args.rounds)
            spent = [_cpu_s(pid) - was for pid, was in zip((coordinator, *members), cpu, strict=True)]
    figures = _figures(after, len(before.rounds), spent, counts)
    return figures | {"pids": [coordinator, *members], "measured_s": time.time() - start}


def _figures(view: JobView, first: int, spent: list[float], counts: list[Count]) -> dict[str, object]:
    """`first`: rounds not counted; `spent`: CPU seconds of the coordinator, then of the members."""
    done = [round_ for round_ in view.rounds if round_.state == "completed"]
    start, end = done[first].ended, done[-1].ended
    rounds = len(done) - first - 1
    members = len(done[-1].cohort)

    def a_round(what: str) -> float:
        return sum(number for at, kind, number in counts if kind == what and start <= at <= end) / rounds

    return {
        "rounds_per_second": rounds / (end - start),
        "member_cpu_ms": 1e3 * statistics.mean(spent[1:]) / (rounds + 1),
        "server_cpu_ms": 1e3 * spent[0] / (rounds + 1),
        "messages": a_round("messages"),
        "message_bytes_per_member": done[-1].message_bytes / members,
        "commits_per_round": a_round("commits"),
        "member_commits_per_round": a_round("syncs") / members,
        "signatures_per_round": a_round("signatures"),
        "survivors": len(done[-1].survivors),
        "parameters": view.model_parameters,
    }


@contextlib.contextmanager
def _coordinator(folder: Path) -> Iterator[tuple[int, list[Count]]]:
    home, counts = folder / "coordinator", folder / "counts"
    init_home(home, listen="127.0.0.1:0", hosts=("127.0.0.1", "localhost"))
    counted: list[Count] = []
    with _process("benchmarks.rounds_coordinator", str(home), str(counts)) as pid:
        _wait_until((home / "address").is_file, "the coordinator's start")
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: counted.extend(_counts(folder)))
            yield pid, counted


def _counts(folder: Path) -> Iterator[Count]:
    """What the processes have counted so far."""
    for place in folder.glob("*counts"):
        for line in place.read_text().splitlines():
            at, what, number = line.split()
            yield float(at), what, int(number)


@contextlib.contextmanager
def _members(folder: Path, count: int) -> Iterator[list[int]]:
    owners = [f"owner-{index}" for index in range(count)]
    with CoordinatorLink.of_profile(folder / "coordinator" / "operator") as operator:
        for owner in owners:
            enrol_owner(operator.invite(owner, "owner", 600.0), folder / owner)
        enrol(operator.invite("rosa", "researcher", 600.0), folder / "researcher", None)
    key = create_federation(folder / "federation", "benchmark")
    add_members(folder / "federation", [Home(folder / owner).card for owner in owners])
    sign_members(folder / "federation", days=1)
    signed = folder / "federation" / SIGNED_FILE
    expires = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    for owner in owners:
        policy = _POLICY.format(key=key, vocabulary=_VOCABULARY, expires=expires.isoformat())
        (folder / owner / "policy.toml").write_text(policy)
        accept(Home(folder / owner), signed)
    with CoordinatorLink.of_profile(folder / "researcher") as researcher:
        researcher.publish_membership(signed.read_bytes())
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                _process(
                    "benchmarks.rounds_member",
                    str(folder / owner),
                    str(folder / f"{owner}.counts"),
                    log=folder / f"{owner}.log",
                )
            )
            for owner in owners
        ]


def _publish(researcher: CoordinatorLink) -> str:
    return researcher.publish_ontology(_ONTOLOGY.read_bytes(), "turtle", "benchmark").digest


def _job(args: argparse.Namespace, ontology: str) -> Job:
    hidden = max(1, (args.dimension - 1) // (len(_FEATURES) + 2))
    document = {
        "name": "rounds",
        "task": {
            "ontology": ontology,
            "vocabulary": _VOCABULARY,
            "features": [{"concept": name} for name in _FEATURES],
            "target": {"concept": "diagnosis", "positive": "malignant"},
        },
        "model": {"kind": "mlp", "hidden": [hidden]},
        "training": {"rounds": args.rounds, "local_steps": 1},
        "privacy": {"mode": "none"},
        "aggregation": {"min_cohort": max(4, args.members // 2), "max_cohort": max(args.members, 4)},
    }
    return parse_settings(Job, document, source="benchmark")


def _wait_for_rounds(link: CoordinatorLink, job: JobId, count: int) -> JobView:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        view = link.job(job)
        if view.state.ended or view.model_version >= count:
            if view.model_version < count:
                raise FaultError("the job did not finish", where=job, got=view.reason)
            return view
        time.sleep(0.25)
    raise FaultError("the rounds take too long", where=job, expected=f"{count} within {_DEADLINE_S:g} s")


@contextlib.contextmanager
def _process(module: str, *arguments: str, log: Path | None = None) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("wb")) if log is not None else subprocess.DEVNULL
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=sink, stderr=sink, env=environment
        )
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _cpu_s(pid: int) -> float:
    """User and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not done():
        if time.monotonic() > deadline:
            raise FaultError(f"{what} takes too long", expected="within 60 s")
        time.sleep(0.05)
