"""A file that is uploaded: read chunk by chunk, and refused if it changes its length meanwhile; and an upload's end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_core.errors import FaultError, InputError, PeerViolation
from lepton_core.ids import Digest
from lepton_protos.channel import CHUNK_BYTES


class Outgoing:
    """An open file and the size that it had."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int) -> bytes:
        """The chunk at this offset.

        Raises:
            FaultError: the file cannot be read, or has become shorter.
        """
        expected = min(CHUNK_BYTES, self.size - offset)
        try:
            data = os.pread(self._descriptor, expected, offset)
        except OSError as error:
            raise _unreadable(self._path, error.strerror or type(error).__name__) from None
        if len(data) != expected:
            raise _unreadable(self._path, f"{offset + len(data)} bytes where it had {self.size}")
        return data

    def digest(self) -> Digest:
        """SHA-256 of the content, read chunk by chunk.

        Raises:
            FaultError: as `read`.
        """
        hasher = hashlib.sha256()
        for offset in range(0, self.size, CHUNK_BYTES):
            hasher.update(self.read(offset))
        return Digest(hasher.hexdigest())


@contextmanager
def open_outgoing(path: Path) -> Iterator[Outgoing]:
    """The file, open to be sent.

    Raises:
        InputError: it is not there, or may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(
            "a file that cannot be uploaded", where=str(path), got=error.strerror or type(error).__name__
        ) from None
    try:
        yield Outgoing(path, descriptor)
    finally:
        os.close(descriptor)


def require_complete(*, complete: bool, acknowledged: int, size: int) -> None:
    """Return if the coordinator has said that an upload is durable.

    Raises:
        PeerViolation: it ended the call early.
    """
    if not complete:
        raise PeerViolation(
            "an upload ended early",
            where="coordinator",
            expected=f"{size} bytes acknowledged",
            got=f"{acknowledged} bytes",
            reason="BAD_UPLOAD",
        )


def _unreadable(path: Path, got: str) -> FaultError:
    return FaultError(
        "a file cannot be read while it is uploaded",
        where=str(path),
        expected="a file that nobody changes meanwhile",
        got=got,
        hint="upload it again",
        reason="SOURCE_FILE",
    )
