"""Lives in processes of their own, for tests that kill them: forked by a program that nobody else has threads in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def forked(live: Callable[[int], None]) -> tuple[int, list[Any]]:
    """The exit code of a forked process that ran `live(pipe)`, and each line of JSON that it wrote into the pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            live(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        lines = [json.loads(line) for line in stream]
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), lines


def tell(pipe: int, value: Any) -> None:
    """Write a line of JSON."""
    os.write(pipe, json.dumps(value).encode() + b"\n")


def told_by(module: str, *arguments: str, timeout_s: float) -> Any:
    """The JSON that a module prints, run as a program of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-2_000:]
    return json.loads(ran.stdout)
