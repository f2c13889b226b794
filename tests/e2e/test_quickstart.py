"""Every command of docs/quickstart.md is run, as it stands, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_admin.demo.processes import free_port
from tests.e2e.live import MARK, marked
from tests.unit.admin.command_tree import walk

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("quickstart")]
OWNERS = ("aurora", "birken", "changhe", "delta-clinic", "elm-park")
#: As few as the page's policy lets into a round.
FEWEST = ("aurora", "birken", "changhe", "elm-park")


def blocks(repository: Path) -> list[str]:
    """The page's shell blocks in order."""
    page = (repository / "docs" / "quickstart.md").read_text("utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_page_uses_the_commands_of_every_role(repository):
    named = set(re.findall(r"\blepton ([a-z]+(?: [a-z]+)?)", "\n".join(blocks(repository))))
    known = {name for name, _ in walk()}
    assert named <= known
    assert {name.partition(" ")[0] for name in named} == {name.partition(" ")[0] for name in known} - {"demo", "kg"}


def is_free(port: int) -> bool:
    """True if nobody listens on this port of the loopback interface."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("owners", [FEWEST, pytest.param(OWNERS, marks=pytest.mark.nightly)], ids=len)
def test_every_command_of_the_page_works_as_it_stands(repository, tmp_path, owners):
    operator, *rest = blocks(repository)
    assert operator.startswith("# terminal 1")
    # The one thing changed: the page's port may be taken on this machine. Fewer rounds, and by day fewer of the owners
    # for whom the page repeats its commands: it is not about them.
    port = next(str(port) for port in iter(free_port, 0) if is_free(port - 1))  # large transfers take the one before
    fewer = "sed -i 's/^rounds = 100/rounds = 4/' data/job.toml\n"
    second = "\n".join(rest).replace("lepton ontology publish", f"{fewer}lepton ontology publish")
    everybody = f"for owner in {' '.join(OWNERS)}; do"
    assert second.count(everybody) == 3
    second = second.replace(everybody, f"for owner in {' '.join(owners)}; do")
    first = operator.replace("8443", port)
    assert port in first
    mark = "quickstart-" + port
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EXAMPLES": str(repository / "examples" / "hospitals"),
        "OMP_NUM_THREADS": "1",
        MARK: mark,
    }
    environment.pop("LEPTON_PROFILE", None)
    with (tmp_path / "one.txt").open("wb") as out:
        terminal = subprocess.Popen(
            ["bash", "-eu", "-c", first], cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "coordinator" / "address").is_file():
            assert terminal.poll() is None, (tmp_path / "one.txt").read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        script = f"set -o pipefail\n{second}\nkill {' '.join(f'%{n + 1}' for n in range(len(owners)))}\nwait\n"
        ended = subprocess.run(
            ["bash", "-eum", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        for text in ("hospitals finished with model 4", "aurora", "epsilon spent"):
            assert text in ended.stdout
        sidecar = json.loads((tmp_path / "model.json").read_text("utf-8"))
        assert sidecar["version"] == 4
    finally:
        os.killpg(terminal.pid, signal.SIGINT)
        terminal.wait(30)
        deadline = time.monotonic() + 10
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert marked(mark) == []
