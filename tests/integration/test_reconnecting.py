"""Does a blocking channel find its server again, however often it was used while the server was away?"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lepton_admin.demo.processes import Processes, free_port
from lepton_admin.link import CoordinatorLink
from lepton_core.errors import FaultError
from lepton_server.setup import init_home

#: The longest pause between attempts is 5 s (`grpc.max_reconnect_backoff_ms`).
BACK_WITHIN_S = 15.0
#: Between calls nobody waits on the channel, which is what once kept it from connecting.
PAUSE_S = 0.7


def start(home: Path, processes: Processes) -> None:
    """Start the coordinator, and wait until it is ready."""
    (home / "address").unlink(missing_ok=True)
    processes.lepton("coordinator", "coordinator", "serve", str(home))
    processes.wait_until((home / "address").is_file, "the coordinator's start", "coordinator")


def test_a_link_used_during_an_outage_works_again_soon_after_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    # `localhost` has two addresses, of which the coordinator listens on one.
    init_home(home, listen=f"127.0.0.1:{free_port()}", hosts=["localhost"])
    with Processes(tmp_path / "logs") as processes, CoordinatorLink.of_profile(home / "operator") as link:
        start(home, processes)
        assert link.health().ready
        processes.kill("coordinator")
        for _ in range(2):
            with pytest.raises(FaultError, match="cannot be reached"):
                link.health()
            time.sleep(PAUSE_S)
        start(home, processes)
        assert is_ready_within(link, BACK_WITHIN_S)


def is_ready_within(link: CoordinatorLink, limit_s: float) -> bool:
    """Call again and again with pauses, as `lepton job watch` does."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            return link.health().ready
        except FaultError:
            time.sleep(PAUSE_S)
    return False
