"""The demo's processes: each in a session of its own with a log file, and none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lepton_core.errors import FaultError

#: How long processes have to end by themselves before they are killed.
GRACE_S = 5.0
#: How often a state that nobody announces is looked at.
POLL_S = 0.02


@dataclass(frozen=True)
class Running:
    """A process with its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self, lines: int = 6) -> str:
        """The end of its log."""
        return " | ".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:]) or "nothing"


class Processes:
    """Starts, kills and ends processes; use it in `with`. Start processes from the main thread only.

    The kernel ends a child with the *thread* that started it (PR_SET_PDEATHSIG), which is how nothing outlives even a
    demo that is killed.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, Running] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def lepton(self, name: str, *arguments: str) -> Running:
        """Start `lepton ARGUMENTS`, or what else `child` runs; its output goes to the log of that name."""
        log = self._logs / f"{name}.log"
        # One thread for linear algebra: all the processes share this machine.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "lepton_admin.demo.child", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        self._running[name] = Running(name, process, log)
        return self._running[name]

    def pid(self, name: str) -> int:
        """The process of that name."""
        return self._running[name].process.pid

    def kill(self, name: str) -> None:
        """SIGKILL to a process and its children, as if the machine had lost power; returns when it is gone."""
        _signal_group(self._running[name].process, signal.SIGKILL)
        self._running[name].process.wait()

    def stop_children(self, name: str) -> bool:
        """SIGSTOP to what a process has started, which `kill` ends all the same; False if nothing is there to stop."""
        children = _children_of(self.pid(name))
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
        return bool(children)

    def finish(self, name: str, timeout_s: float) -> None:
        """Wait for a process that ends by itself.

        Raises:
            FaultError: it failed, or took longer.
        """
        running = self._running[name]
        try:
            code = running.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise FaultError(
                f"{name} takes too long", where=str(running.log), expected=f"done within {timeout_s:g} s"
            ) from None
        if code != 0:
            raise _died(running, code)

    def wait_until(self, done: Callable[[], bool], what: str, *needs: str, timeout_s: float = 60.0) -> None:
        """Wait for something that the named processes bring about.

        Raises:
            FaultError: one of them died, or it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            for name in needs:
                code = self._running[name].process.poll()
                if code is not None:
                    raise _died(self._running[name], code)
            if time.monotonic() > deadline:
                told = "; ".join(f"{name}: {self._running[name].last_words()}" for name in needs)
                raise FaultError(f"{what} takes too long", expected=f"within {timeout_s:g} s", got=told)
            time.sleep(POLL_S)

    def check(self, *, besides: Sequence[str] = ()) -> None:
        """Nothing, if every process still runs.

        Raises:
            FaultError: one has ended that nobody ended.
        """
        for name, running in self._running.items():
            code = running.process.poll()
            if name not in besides and code is not None and code not in {0, -signal.SIGKILL}:
                raise _died(running, code)

    def end(self) -> None:
        """Ask every process to end, then kill what is left, children included; returns when all are gone.

        The first one, on which the others depend, is asked last, so that it need not wait for their sessions.
        """
        running = list(self._running.values())
        _end(running[1:])
        _end(running[:1])
        self._running.clear()


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(wave: Sequence[Running]) -> None:
    for running in wave:
        if running.process.poll() is None:
            _signal_group(running.process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    for running in wave:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(max(0.0, deadline - time.monotonic()))
    for running in wave:
        _signal_group(running.process, signal.SIGKILL)
        running.process.wait()


def _children_of(pid: int) -> list[int]:
    """The processes that a process has started; none where the kernel does not tell, which Linux does."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(status.read_text("utf-8", "replace").rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process's own group, which also holds its training worker."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _died(running: Running, code: int) -> FaultError:
    return FaultError(
        f"{running.name} ended with exit code {code}",
        where=str(running.log),
        expected="a process that runs",
        got=running.last_words(),
        hint="read its log; `lepton demo --fresh` starts anew",
    )
