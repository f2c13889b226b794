"""Compiles the loops with the machine's C compiler; run while the package is built, with nothing but Python."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

LIBRARY = "kernels.so"
SOURCES = ("kernels.c", "rotation.h", "gaussians.h", "products.h")
#: No option that would let a compiler change a sum: neither contraction nor another order of additions.
_OPTIONS = (
    "-O3",
    "-std=gnu11",
    "-shared",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_DEADLINE_S = 120.0


def source_digest(folder: Path) -> str:
    """SHA-256 over the sources of the loops, in hexadecimal."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def build_library(folder: Path, target: Path) -> str | None:
    """Compile the sources in `folder` into `target`; None if that worked, else in a few words why not."""
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [found for found in map(shutil.which, ("cc", "gcc", "clang")) if found][:1]
    )
    if not compiler:
        return "no C compiler (cc, gcc or clang, or the one named by CC)"
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    command = [
        *compiler,
        *_OPTIONS,
        f'-DLEPTON_SOURCE="{source_digest(folder)}"',
        str(folder / SOURCES[0]),
        "-o",
        str(partial),
        "-lm",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
        if done.returncode:
            return f"{compiler[0]} failed: {done.stderr.strip()[-300:]}"
        partial.replace(target)
    except (OSError, subprocess.TimeoutExpired) as failure:
        return f"{compiler[0]} failed: {failure}"
    finally:
        partial.unlink(missing_ok=True)
    return None
