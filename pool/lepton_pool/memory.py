"""How a process that works on model vectors round after round keeps its memory."""

from __future__ import annotations

import ctypes
import sys

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
