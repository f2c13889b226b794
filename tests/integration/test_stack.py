"""The compose stack's own commands as processes of this machine: PostgreSQL, knowledge service, coordinator, daemons.

What stands in docker-compose.yml is run as it stands; only its folders, ports and hosts become this machine's.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, make_url, text

from lepton_admin.cli.main import run
from lepton_admin.cli.options import OutputFormat
from lepton_admin.demo import stage
from lepton_admin.demo.folder import example_folder
from lepton_admin.demo.processes import Processes, free_port
from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.link import CoordinatorLink
from lepton_admin.submission import load_job_file, resolve_job, submit_job
from lepton_admin.watching import Watcher, follow
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home
from lepton_client.membership import accept
from lepton_client.status import status
from lepton_core.views import JobEvent

pytestmark = [pytest.mark.timeout(150), pytest.mark.xdist_group("postgres")]
#: The four that play the part of the compose file's `client-a`.
OWNERS = ("aurora", "birken", "changhe", "elm-park")
ROUNDS, KILLED_IN_ROUND = 4, 2
#: Mount points of the compose file.
_MOUNT = re.compile(r"(?<![\w./-])(/state|/knowledge|/invitations|/data|/run/secrets)(?=[/ \"']|$)")


@dataclass(frozen=True)
class Stack:
    """The services of the compose file, below one folder."""

    services: dict[str, Any]
    root: Path
    processes: Processes
    port: int
    knowledge_port: int

    def volume(self, name: str) -> Path:
        """The folder that stands for a volume."""
        return self.root / "volumes" / name

    def once(self, service: str, owner: str = "") -> None:
        """Run a step to its end."""
        entry, command = self.services[service]["entrypoint"], self.services[service]["command"]
        script = self._here(service, command[0].replace("$$", "$"), owner)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ended = subprocess.run(
            [*entry, script], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{service} {owner}: {ended.stdout}{ended.stderr}"

    def start(self, service: str, owner: str = "") -> None:
        """Start a server; returns at once."""
        words = [self._here(service, word, owner) for word in self.services[service]["command"]]
        self.processes.lepton(owner or service, *words)

    def is_healthy(self, service: str, owner: str = "") -> bool:
        """What the service's health check says."""
        kind, program, *words = self.services[service]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "lepton")
        return run([self._here(service, word, owner) for word in words]) == 0

    def wait_until_ready(self, service: str) -> None:
        """Wait until the server's log says that it is ready."""
        log = self.root / "logs" / f"{service}.log"
        self.processes.wait_until(lambda: f"{service} ready at" in log.read_text("utf-8"), service, service)

    def _here(self, service: str, command: str, owner: str) -> str:
        mounts = self._mounts(service, owner)
        command = _MOUNT.sub(lambda found: str(mounts[found[1]]), command)
        for there, here in (
            ("0.0.0.0:8443", f"127.0.0.1:{self.port}"),
            ("0.0.0.0:8442", "127.0.0.1:0"),
            ("0.0.0.0:8444", f"127.0.0.1:{self.knowledge_port}"),
            ("localhost:8444", f"localhost:{self.knowledge_port}"),
            ("knowledge:8444", f"localhost:{self.knowledge_port}"),
            ("--host coordinator --host localhost", "--host localhost"),
            ("client-a", owner),
        ):
            command = command.replace(there, here)
        return command

    def _mounts(self, service: str, owner: str) -> dict[str, Path]:
        mounts = {"/run/secrets": self.root / "secrets", "/data": self.root / "data" / owner}
        for volume in self.services[service]["volumes"]:
            if isinstance(volume, str):
                name, target = volume.split(":")[:2]
                mounts[target] = self.volume(name.replace("client-a", owner).replace("invitation-a", f"to-{owner}"))
        return mounts


@pytest.fixture
def stack(tmp_path: Path, repository: Path, postgres_url: str):
    """The stack with its secrets, its empty volumes and an empty database; nothing runs yet."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as server:
        server.execute(text("DROP DATABASE IF EXISTS stack"))
        server.execute(text("CREATE DATABASE stack"))
    engine.dispose()
    (tmp_path / "secrets").mkdir()
    database = make_url(postgres_url).set(database="stack").render_as_string(hide_password=False)
    (tmp_path / "secrets" / "database_url").write_text(f"{database}\n", "utf-8")
    names = ["coordinator", "knowledge", *OWNERS, f"to-{OWNERS[0]}"]
    for name in names:
        (tmp_path / "volumes" / name).mkdir(parents=True)
    services = yaml.safe_load((repository / "docker-compose.yml").read_text("utf-8"))["services"]
    with Processes(tmp_path / "logs") as processes:
        yield Stack(services, tmp_path, processes, free_port(), free_port())


def enrol_owners(stack: Stack, operator: CoordinatorLink) -> None:
    """The first owner by the steps of the file, twice, as by a second `docker compose up`; the others as these do."""
    first, *others = OWNERS
    for step in ("invite-a", "enrol-a") * 2:
        stack.once(step, first)
    for owner in others:
        policy = stack.root / "data" / owner / "policy.toml"
        (stack.volume(owner) / "client.toml").write_text(f'owner = "{owner}"\npolicy = "{policy}"\n', "utf-8")
        enrol_owner(operator.invite(owner, "owner", 600.0), stack.volume(owner))


def found_federation(stack: Stack, researcher: CoordinatorLink) -> None:
    """Sign the list of the owners, who pin its key in their policies and accept it."""
    folder = stack.root / "federation"
    key = create_federation(folder, "hospitals")
    add_members(folder, [Home(stack.volume(owner)).card for owner in OWNERS])
    sign_members(folder, days=1)
    for owner in OWNERS:
        policy = stage.POLICY.format(
            owner=owner,
            federation_key=key,
            mapping="mapping.yaml",
            rows=stage.DECLARED_ROWS[owner],
            epsilon=stage.BUDGET_EPSILON,
            delta=stage.BUDGET_DELTA,
            expires=(dt.datetime.now(dt.UTC).date() + dt.timedelta(days=2)).isoformat(),
        )
        (stack.root / "data" / owner / "policy.toml").write_text(policy, "utf-8")
        accept(Home(stack.volume(owner)), folder / SIGNED_FILE)
    mapped = {owner: (stack.root / "data" / owner / "mapping.yaml", stack.volume(owner)) for owner in OWNERS}
    stage.sign_mappings(stack.processes, stack.root / "data" / "ontology.ttl", mapped)
    researcher.publish_membership((folder / SIGNED_FILE).read_bytes())


def test_a_job_on_the_stack_outlives_its_coordinator(stack: Stack) -> None:
    data, home = stack.root / "data", stack.volume("coordinator") / "home"
    stack.processes.lepton("data", "--file", str(example_folder() / "make_data.py"), str(data))
    # 1. In the order of the compose file: authority and certificates, tables, knowledge service, coordinator.
    stack.once("init")
    stack.once("migrate")
    for service in ("knowledge", "coordinator"):
        assert not stack.is_healthy(service)
        stack.start(service)
        stack.wait_until_ready(service)
        assert stack.is_healthy(service)
    # 2. Owners, each by an invitation of its own; the federation; the daemons.
    with CoordinatorLink.of_profile(home / "operator") as operator:
        enrol_owners(stack, operator)
        assert operator.health().database.startswith("postgresql")
        enrol(operator.invite("rosa", "researcher", 600.0), stack.root / "rosa", None)
    stack.processes.finish("data", 60.0)
    with CoordinatorLink.of_profile(stack.root / "rosa") as researcher:
        found_federation(stack, researcher)
        for owner in OWNERS:
            stack.start("client-a", owner)
        # 3. The knowledge service keeps what is published through the coordinator.
        version = researcher.publish_ontology((data / "ontology.ttl").read_bytes(), "turtle", "hospitals")
        assert [path.name for path in (stack.volume("knowledge") / "home" / "ontologies").rglob(f"{version.digest}*")]
        # 4. A job, whose coordinator is killed between two steps of a round, and started as by `docker compose up`.
        job_file = data / "job.toml"
        job_file.write_text(job_file.read_text("utf-8").replace("rounds = 100", f"rounds = {ROUNDS}"), "utf-8")
        job = submit_job(resolve_job(load_job_file(job_file, researcher), data, researcher), researcher)
        killed: list[JobEvent] = []

        def take(event: JobEvent) -> None:
            watcher.take(event)
            if not killed and (event.kind, event.round) == ("step", KILLED_IN_ROUND):
                killed.append(event)
                stack.processes.kill("coordinator")
                stack.once("init")
                stack.once("migrate")
                stack.start("coordinator")

        with Watcher(job, OutputFormat.TABLE) as watcher:
            follow(lambda after: researcher.watch(job, after), take, watcher.board, between=stack.processes.check)
        view = researcher.job(job)
    # 5. It went on to its end, with the same authority and the same owners.
    assert killed
    assert (view.state.value, view.model_version) == ("finished", ROUNDS), view.reason
    assert [model.round for model in view.models if model.round][-1] >= ROUNDS
    assert {match.owner for match in view.owners if match.state == "can"} == set(OWNERS)
    assert stack.is_healthy("coordinator")
    for owner in OWNERS:
        assert stack.is_healthy("client-a", owner)
        (told,) = status(stack.volume(owner))["populations"]
        assert 0 < told["epsilon_spent"] <= told["epsilon_budget"]
    # 6. State lies where the volumes are: the database's in PostgreSQL, the ontologies with their service.
    assert not list(home.rglob("*.db"))
    assert not (home / "ontologies").exists()
