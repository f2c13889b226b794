"""A process of the demo: runs command lines of `lepton` one after another, and dies with the demo whatever happens.

python -m lepton_admin.demo.child PARENT_PID NOUN VERB ... [--then NOUN VERB ...]
python -m lepton_admin.demo.child PARENT_PID --file FILE.py ARGUMENT ...
python -m lepton_admin.demo.child PARENT_PID --module MODULE ARGUMENT ...
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: Separates two command lines.
THEN = "--then"


def command_lines(arguments: list[str]) -> list[list[str]]:
    """The command lines between the separators."""
    lines: list[list[str]] = [[]]
    for argument in arguments:
        if argument == THEN:
            lines.append([])
        else:
            lines[-1].append(argument)
    return lines


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends; end now if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Run the command lines up to the first that fails; its exit code is the process's."""
    die_with(int(sys.argv[1]))
    if sys.argv[2] in {"--file", "--module"}:
        kind, sys.argv = sys.argv[2], sys.argv[3:]
        if kind == "--file":
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module(sys.argv[0], run_name="__main__")
        return
    from lepton_admin.cli.main import run

    code = 0
    for line in command_lines(sys.argv[2:]):
        code = code or run(line)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed and durable; tearing down the interpreter would wait about 2 s for gRPC's threads.
    os._exit(code)


if __name__ == "__main__":
    main()
