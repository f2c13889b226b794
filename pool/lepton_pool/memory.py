"""How a process that works on model vectors round after round keeps its memory, and how much it may take."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3), from <malloc.h>.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8

#: Vectors up to this size come from memory that was used before; it is the most that glibc takes.
_LARGEST_REUSED_BYTES = 32 * 2**20
#: Freed memory that a process keeps for its next round, at most.
_KEPT_BYTES = 256 * 2**20


def keep_freed_memory() -> None:
    """Have freed vectors used again, in place of fresh pages from the kernel for each; call it before threads start.

    Every page of a fresh vector costs a fault: at a million parameters, half of what encoding and decoding an update
    takes. One arena serves all threads, as an arena of its own can neither be so large nor be used by another thread.
    Nothing happens where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in (
        (_ARENA_MAX, 1),
        (_MMAP_THRESHOLD, _LARGEST_REUSED_BYTES),
        (_TRIM_THRESHOLD, _KEPT_BYTES),
    ):
        mallopt(parameter, value)


@contextmanager
def importing() -> Iterator[None]:
    """Import large libraries within: Python does not search for cycles among what will stay, then or later.

    At its own pace it would search some hundred times while torch is imported, a fifth of the whole time.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if searching:
            gc.enable()


def cap_memory(mib: int) -> None:
    """Let this process take at most so many MiB of data; an allocation beyond it fails, and nothing else is disturbed.

    What counts is private memory that can be written to (RLIMIT_DATA); torch itself takes about 200 MiB of it. Only on
    Linux; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = mib * 2**20
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
