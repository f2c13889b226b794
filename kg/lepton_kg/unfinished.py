"""Which bytes in a folder of ontologies are nobody's: put there by a publication that was killed before its record.

A publication holds the lock of an empty file named after its version while it runs, and takes the file away when the
record is written, or everything undone. A file whose lock is free is therefore a dead process's. Nothing is inferred
from what a database does not know: it may be another folder's, or older than the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lepton_core.errors import FaultError, InputError
from lepton_core.ids import Digest, require_digest

_PREFIX, _SUFFIX = ".", ".unfinished"


class Unfinished:
    """The publications that run in a folder, and those that died in it. Safe to use from several processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        #: Descriptors that hold the locks of this process's publications.
        self._held: dict[Digest, int] = {}

    def path(self, digest: Digest) -> Path:
        """The file that says so of a version."""
        return self._root / f"{_PREFIX}{require_digest(digest, 'ontology hash')}{_SUFFIX}"

    def begin(self, digest: Digest) -> None:
        """A publication of that version runs from now on, until `finish` or the end of this process.

        Raises:
            FaultError: another process publishes or sweeps it just now.
            OSError: the disk refuses.
        """
        descriptor = self._locked(digest, os.O_CREAT)
        if descriptor is None:
            raise FaultError(
                "another process is publishing this ontology in the same folder",
                where=str(self._root),
                got=digest,
                hint="try again when it is done",
                reason="BUSY",
            )
        self._held[digest] = descriptor

    def finish(self, digest: Digest) -> None:
        """It is on record, or wholly undone."""
        try:
            self.path(digest).unlink(missing_ok=True)
        finally:
            descriptor = self._held.pop(digest, None)
            if descriptor is not None:
                os.close(descriptor)

    def runs(self, digest: Digest) -> bool:
        """True while a publication of that version lives, here or in another process."""
        if digest in self._held:
            return True
        descriptor = self._locked(digest, 0)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None and self.path(digest).exists()

    def dead(self) -> Iterator[Digest]:
        """The versions whose publication died, each held against other processes until the next is asked for."""
        for path in sorted(self._root.glob(f"{_PREFIX}*{_SUFFIX}")):
            with contextlib.suppress(InputError):
                digest = require_digest(path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX), "ontology hash")
                descriptor = None if digest in self._held else self._locked(digest, 0)
                if descriptor is not None:
                    try:
                        yield digest
                    finally:
                        os.close(descriptor)

    def _locked(self, digest: Digest, flags: int) -> int | None:
        """A descriptor that holds the lock; None if another has it, or there is no file and none is to be made."""
        path = self.path(digest)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:  # its last holder has taken it away between the two
            os.close(descriptor)
            return None
        return descriptor
