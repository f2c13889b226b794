"""Do real daemons, over mutual TLS, carry a job from the match to the last round, and leave nothing behind?"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_admin.link import CoordinatorLink
from lepton_client.daemon import run
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home, load_identity, save_identity, save_settings
from lepton_client.logs import open_log
from lepton_client.membership import accept
from lepton_client.pausing import pause, resume
from lepton_client.status import status
from lepton_core.errors import ConflictError
from lepton_core.identity import IdentityKey
from lepton_core.membership import ListedMember, MembershipList, sign
from lepton_core.ports import SystemClock, SystemRandomness
from lepton_core.views import Invitation
from lepton_protos import convert
from lepton_protos.channel import Endpoint, save_endpoint
from tests.integration.server.running import invite, running
from tests.unit.client.clinics import TURTLE, make_clinic_job, write_clinic, write_policy

NAMES = ("aurora", "boreal", "cirrus")


@contextlib.asynccontextmanager
async def daemon(folder: Path, log: io.StringIO):
    stop = asyncio.Event()
    task = asyncio.create_task(run(folder, stop=stop, log=open_log(log)))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20)


async def invited(coordinator: Path, name: str, role: str = "owner") -> Invitation:
    return convert.from_proto(await invite(coordinator, name, role), Invitation)


async def make_federation(coordinator: Path, root: Path) -> None:
    """Enrol everybody, sign and accept the list, publish list and ontology."""
    federation = IdentityKey.generate(SystemRandomness())
    listed = []
    for seed, name in enumerate(NAMES):
        await asyncio.to_thread(enrol_owner, await invited(coordinator, name), root / name)
        write_clinic(root / name, seed=seed)
        write_policy(root / name, federation.public.hex())
        listed.append(ListedMember(owner=name, identity=load_identity(Home(root / name)).public.hex()))
    now = int(time.time())
    signed = sign(
        MembershipList(federation="clinics", version=1, issued=now - 60, expires=now + 86_400, members=tuple(listed)),
        federation,
    )
    (root / "signed.json").write_bytes(signed.to_json())
    for name in NAMES:
        accept(Home(root / name), root / "signed.json")
    await asyncio.to_thread(enrol, await invited(coordinator, "rosa", "researcher"), root / "rosa", None)
    with CoordinatorLink.of_profile(coordinator / "operator") as link:
        await asyncio.to_thread(link.publish_membership, signed.to_json())
    with CoordinatorLink.of_profile(root / "rosa") as link:
        await asyncio.to_thread(link.publish_ontology, TURTLE, "turtle", "clinics")


async def ended(link: CoordinatorLink, job: str):
    """The job once it has ended; the watch ends with it."""
    await asyncio.wait_for(asyncio.to_thread(lambda: list(link.watch(job))), 90)
    return await asyncio.to_thread(link.job, job)


class EventfulLog(io.StringIO):
    """Lets a test wait until words were logged often enough."""

    def __init__(self) -> None:
        super().__init__()
        self._written = asyncio.Event()

    def write(self, text: str) -> int:
        self._written.set()
        return super().write(text)

    async def wait_for(self, words: str, times: int) -> None:
        async with asyncio.timeout(30):
            while self.getvalue().count(words) < times:
                self._written.clear()
                await self._written.wait()


@pytest.mark.timeout(150)
async def test_three_daemons_outlive_their_coordinator_finish_a_private_job_and_remember_what_it_cost(tmp_path) -> None:
    coordinator, log = tmp_path / "coordinator", EventfulLog()
    async with contextlib.AsyncExitStack() as stack:
        async with running(coordinator) as address:
            await make_federation(coordinator, tmp_path)
            tasks = [await stack.enter_async_context(daemon(tmp_path / name, log)) for name in NAMES]
            await log.wait_for("session open", len(NAMES))
        # The coordinator that they were connected with is gone; they come back to the next one at its address.
        await stack.enter_async_context(running(coordinator, listen=address))
        link = stack.enter_context(CoordinatorLink.of_profile(tmp_path / "rosa"))
        job = await asyncio.to_thread(link.submit, make_clinic_job().canonical())
        view = await ended(link, job)
        assert not any(task.done() for task in tasks)
        # The words of an owner's log are those that left: no rows, no paths.
        refused = await asyncio.to_thread(link.submit, make_clinic_job(features=("glucose", "pressure")).canonical())
        failed = await ended(link, refused)
        # The policy's file is the policy: what an owner writes while its daemon runs holds at once.
        text = (tmp_path / NAMES[0] / "policy.toml").read_text()
        (tmp_path / NAMES[0] / "policy.toml").write_text(text.replace('"logistic"', '"mlp"'))
        (tmp_path / NAMES[1] / "policy.toml").write_text("[jobs")
        pause(Home(tmp_path / NAMES[2]), "an audit nobody need know of", SystemClock())
        forbidden = await ended(link, await asyncio.to_thread(link.submit, make_clinic_job().canonical()))
    assert forbidden.state.value == "failed"
    assert {match.owner: (match.reason, match.subject) for match in forbidden.owners if match.state == "cannot"} == {
        NAMES[0]: ("MODEL", "policy.jobs.models"),
        NAMES[1]: ("UNREADABLE", "policy.toml"),
        NAMES[2]: ("PAUSED", ""),
    }
    assert status(tmp_path / NAMES[2])["paused"]["reason"] == "an audit nobody need know of"
    assert resume(Home(tmp_path / NAMES[2])) is not None
    assert "policy unreadable" in log.getvalue()
    for name in NAMES[:2]:
        (tmp_path / name / "policy.toml").write_text(text)
    assert view.state.value == "finished", (view.reason, log.getvalue())
    assert view.model_version == 2
    assert {match.state for match in view.owners} == {"can"}
    assert failed.state.value == "failed"
    assert {(match.reason, match.subject) for match in failed.owners} == {
        ("MISSING_CONCEPT", "https://example.org/clinic/pressure")
    }
    for name in NAMES:
        told = status(tmp_path / name)
        (population,) = told["populations"]
        assert 0 < population["epsilon_spent"] <= 4.0
        assert sum(known["rounds_charged"] for known in told["jobs"]) == 2
        answers = (tmp_path / name / "answers.jsonl").read_text().splitlines()
        assert [json.loads(line)["model_version"] for line in answers] == [0, 1]
    assert _children() == []


def _children() -> list[int]:
    """Processes whose parent is this one, but for pytest's own helpers."""
    me, found = os.getpid(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
            if int(stat[1]) == me and b"lepton_client.train.worker" in command:
                found.append(int(folder.name))
    return found


@pytest.fixture
def lonely(tmp_path) -> Path:
    """A client whose coordinator is not there."""
    folder = tmp_path / "lonely"
    write_clinic(folder)
    write_policy(folder, "f" * 64)
    home = Home(folder)
    save_settings(home, "lonely")
    save_identity(home, IdentityKey.generate(SystemRandomness()), "lonely")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    from lepton_server.identity.ca import KeyPair, Subject, make_ca

    authority, keys = make_ca(now=time.time()), KeyPair.generate()
    issued = authority.issue(keys.public, Subject("owner", "lonely"), now=time.time(), valid_s=3600.0)
    save_endpoint(home.tls, Endpoint(address, authority.certificate, issued.certificate, keys.to_pem()))
    return folder


async def test_a_second_daemon_in_one_folder_is_refused(lonely) -> None:
    log = EventfulLog()
    async with daemon(lonely, log):
        await log.wait_for("daemon up", 1)
        with pytest.raises(ConflictError, match="another daemon"):
            await run(lonely, log=open_log(io.StringIO()))


def test_a_daemon_ends_cleanly_on_sigterm_and_its_worker_with_it(lonely) -> None:
    code = "import asyncio, sys; from pathlib import Path; from lepton_client.daemon import run; "
    code += "asyncio.run(run(Path(sys.argv[1]))); assert 'torch' not in sys.modules"
    process = subprocess.Popen([sys.executable, "-c", code, str(lonely)], stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while "session lost" not in (line := process.stderr.readline()):
            assert line, lines
            lines.append(line)
        assert json.loads(lines[0])["event"] == "daemon up"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert not Path(f"/proc/{children[0]}").exists()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
