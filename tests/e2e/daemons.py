"""Runs the daemons of many owners in one process: `python -m tests.e2e.daemons PARENT FOLDER ...`; SIGTERM ends it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from lepton_client import daemon
from lepton_client.logs import open_log

_PR_SET_PDEATHSIG = 1


#: As many training processes may load their libraries at once.
_LOADING = 3


async def _run(folders: list[Path]) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for folder in folders:
            while _busy_children() >= _LOADING and not stop.is_set():  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.05)
            up = asyncio.Event()
            group.create_task(daemon.run(folder, stop=stop, ready=up.set, log=open_log(sys.stdout)))
            await up.wait()
        # The newest daemon has taken the signals for itself; all have the same `stop`.


def _busy_children() -> int:
    """How many child processes run at this moment."""
    mine, busy = os.getpid(), 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            busy += int(parent) == mine and state in "RD"
    return busy


def main() -> None:
    """Go on until asked to end, or until the parent has died."""
    parent, *folders = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(parent):
        asyncio.run(_run([Path(folder) for folder in folders]))


if __name__ == "__main__":
    main()
