"""A `lepton` process of its own whose whole offspring can be found by a mark in its environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "LEPTON_TEST_MARK"


class Live:
    """A running `lepton ARGUMENTS`; standard output and error go to files, so that no pipe fills."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lepton_admin.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=os.environ | {MARK: self.mark},
                start_new_session=True,
            )

    def wait_for(self, text: str, timeout_s: float) -> None:
        """Wait until it has printed the text."""
        self._wait(lambda: text in self.out.read_text("utf-8"), f"{text!r} in its output", timeout_s)

    def wait_until_nothing_is_left(self, timeout_s: float = 10.0) -> None:
        """Wait until neither it nor anything that it started runs."""
        self._wait(lambda: not self.offspring(), "its offspring's end", timeout_s, may_end=True)

    def offspring(self) -> list[str]:
        """Command lines of all running processes that carry its mark."""
        return marked(self.mark)

    def _wait(self, done, what: str, timeout_s: float, *, may_end: bool = False) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            told = f"{self.out.read_text('utf-8')[-2000:]}\n{self.err.read_text('utf-8')[-2000:]}"
            assert may_end or self.process.poll() is None, f"it ended while waiting for {what}:\n{told}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_s} s:\n{told}\n{self.offspring()}"
            time.sleep(0.05)


def marked(mark: str) -> list[str]:
    """Command lines of all running processes with this mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue  # it has just ended, or is not ours to look at
    return found
