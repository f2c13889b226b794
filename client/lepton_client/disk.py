"""What the daemon's durable memory asks of a disk: the calls that change something, each a place where it may die."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from lepton_protos import durable


class Disk(Protocol):
    """Changes to files; what `write`, `truncate` and `replace` did survives a power loss once it is synced."""

    def write(self, file: int, data: bytes) -> int:
        """Bytes of `data` that were written at the end of a file that was opened to append.

        Raises:
            OSError: none of them counts.
        """
        ...

    def truncate(self, file: int, length: int) -> None:
        """Cut the file to so many bytes.

        Raises:
            OSError: it may be as it was.
        """
        ...

    def sync(self, file: int) -> None:
        """Return when the file's content is on the disk.

        Raises:
            OSError: it may not be.
        """
        ...

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name of `target`, which is gone.

        Raises:
            OSError: both are as they were.
        """
        ...

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in the folder are on the disk.

        Raises:
            OSError: they may not be.
        """
        ...


class SystemDisk:
    """The operating system's calls."""

    def write(self, file: int, data: bytes) -> int:
        """See `Disk.write`."""
        return os.write(file, data)

    def truncate(self, file: int, length: int) -> None:
        """See `Disk.truncate`."""
        os.ftruncate(file, length)

    def sync(self, file: int) -> None:
        """See `Disk.sync`."""
        os.fsync(file)

    def replace(self, source: Path, target: Path) -> None:
        """See `Disk.replace`."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """See `Disk.sync_folder`."""
        durable.sync_folder(folder)


#: The disk of every daemon.
SYSTEM_DISK = SystemDisk()
