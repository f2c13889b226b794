"""Bytes that survive a power loss: written whole, synced, and named in a synced folder."""

from __future__ import annotations

import os
from pathlib import Path

#: What a file of this size or more holds need not stay in memory once it is on disk: a transfer of gigabytes would push
#: out what others read, and pages used again cost less than fresh ones. Masked inputs below it are summed from memory.
_UNCACHED_BYTES = 64 * 2**20


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All of `data` at `offset`."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def sync_data(descriptor: int, *, size: int) -> None:
    """Have on disk what was written so far of a file that will have `size` bytes."""
    os.fdatasync(descriptor)
    if size >= _UNCACHED_BYTES and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
