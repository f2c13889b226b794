from __future__ import annotations

import json
import signal
import sys

import pytest

from lepton_admin.cli.main import run
from tests.e2e.hospitals import FOR_PEOPLE, SUMMED, WIDE, run_job, running
from tests.e2e.live import Live
from tests.hostile.federation import found_by_children, hostile_federation

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
#: Fewer than the job file's 100, to be quick; enough for the lost member to come back.
ROUNDS = 12


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """`lepton demo --keep --output json` with its federation still running; `result` is the object it printed."""
    place = tmp_path_factory.mktemp("demo")
    live = Live(place, "demo", "--keep", "--output", "json", "--rounds", str(ROUNDS), "--folder", str(place / "folder"))
    try:
        live.wait_for("\n}\n", 240.0)
        live.folder = place / "folder"
        live.result = json.loads(live.out.read_text("utf-8"))
        yield live
    finally:
        live.process.send_signal(signal.SIGINT)
        live.process.wait(30)
        live.wait_until_nothing_is_left()


@pytest.fixture
def lepton(capsys):
    """Run one command line with JSON output; gives (exit code, answer, error)."""

    def call(*words):
        code = run([*map(str, words), "--output", "json"])
        told = capsys.readouterr()
        # `job watch` answers with one object a line, everything else with one object.
        whole = json.loads(told.out) if told.out and words[:2] != ("job", "watch") else None
        return code, whole, json.loads(told.err) if told.err else None

    return call


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory):
    """A federation of real processes behind recording proxies."""
    with running(tmp_path_factory.mktemp("hospitals")) as federation:
        yield federation


@pytest.fixture(scope="session")
def learnt(hospitals):
    """The job that the hospitals have finished together, and whom their daemons were connected with meanwhile."""
    return run_job(hospitals, model=WIDE)


@pytest.fixture(scope="session")
def learnt_small(hospitals, learnt):
    """A second job, whose masked words travel within messages."""
    return run_job(hospitals, population="trial")


@pytest.fixture(scope="session")
def learnt_summed(hospitals, learnt_small):
    """A third job, in which each hospital adds a share of the noise to its clipped sum."""
    return run_job(hospitals, **SUMMED)


@pytest.fixture(scope="session")
def learnt_of_people(hospitals, learnt_summed):
    """A fourth job, such a one again in which a person with all rows is what is protected."""
    return run_job(hospitals, **FOR_PEOPLE)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, repository):
    """A federation of real processes whose coordinator, or one of whose members, lies by the name of a job."""
    with found_by_children(repository), hostile_federation(tmp_path_factory.mktemp("hostile")) as federation:
        yield federation
