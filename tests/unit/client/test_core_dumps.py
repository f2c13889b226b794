"""Does a daemon that crashes leave its memory in a file?"""

from __future__ import annotations

import resource
import subprocess
import sys

from lepton_client.daemon import _leave_no_core_dump


def test_neither_a_daemon_nor_the_processes_it_starts_leave_a_core_dump() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        _leave_no_core_dump()
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
        asked = [sys.executable, "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"]
        assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() == "0"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
