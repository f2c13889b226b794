"""A download as it grows, in memory or in a file: never beyond the size it has stated and that is allowed.

`write` may run in another thread than the checks; one transfer has one writer at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from google.protobuf.message import DecodeError

from lepton_core.errors import ConflictError, FaultError, PeerViolation
from lepton_core.ids import Digest
from lepton_protos.chunks import split_chunk
from lepton_protos.durable import sync_data, sync_folder, write_all
from lepton_protos.spooling import Piece
from lepton_protos.v1 import transfer_pb2

#: Is told the bytes done and the bytes in all.
Progress = Callable[[int, int], None]

_PIECE = 2**20


def tell_nobody(done: int, size: int) -> None:
    """Progress that nobody watches."""
    del done, size


class Incoming:
    """What memory and file have in common: the size, the order, and the hash."""

    def __init__(self, digest: Digest, largest: int) -> None:
        self.digest = digest
        self._largest = largest
        #: Bytes in all, once a chunk has told.
        self.size: int | None = None
        #: Bytes that are kept and hashed.
        self.length = 0
        self._hasher = hashlib.sha256()

    def require_next(self, chunk: transfer_pb2.DownloadChunk, length: int, *, at: int) -> None:
        """Return if so many bytes may come next at this offset.

        Raises:
            PeerViolation: larger than allowed, or out of order.
        """
        self.require_size(chunk.size)
        if at + length > chunk.size:
            raise bad_download("a download larger than allowed", f"at most {chunk.size} bytes", self.digest)
        if chunk.offset != at:
            raise bad_download("a download out of order", f"offset {at}", self.digest)

    @property
    def left(self) -> int:
        """Bytes that are known to come yet; none before a size was told."""
        return 0 if self.size is None else self.size - self.length

    def require_size(self, size: int) -> None:
        """Return if the download may have so many bytes in all.

        Raises:
            PeerViolation: more than allowed, or another size than stated before.
        """
        if self.size is None:
            self.size = size
        if size != self.size or not self.length <= size <= self._largest:
            raise bad_download("a download larger than allowed", f"at most {self._largest} bytes", self.digest)

    def _count(self, piece: Piece) -> None:
        self._hasher.update(piece)
        self.length += len(piece)

    @property
    def _is_whole(self) -> bool:
        return self.length == self.size and self._hasher.hexdigest() == self.digest

    def _other_bytes(self) -> PeerViolation:
        return bad_download("other bytes than asked for", f"SHA-256 {self.digest}", self.digest)


class IncomingBytes(Incoming):
    """A download in memory."""

    def __init__(self, digest: Digest, largest: int) -> None:
        super().__init__(digest, largest)
        self._content = io.BytesIO()

    def write(self, at: int, piece: Piece) -> None:
        """Keep the next piece."""
        del at  # pieces come in order
        self._content.write(piece)
        self._count(piece)

    def whole(self) -> bytes:
        """The bytes, if they are those asked for.

        Raises:
            PeerViolation: other bytes, or fewer.
        """
        if not self._is_whole:
            raise self._other_bytes()
        return self._content.getvalue()


class IncomingFile(Incoming):
    """A download into a file; until it is whole, what has come lies in `.<digest>.partial` beside it, mode 0600.

    A partial file that an earlier process left is gone on with: its hash is worked out from the disk.
    """

    def __init__(self, path: Path, digest: Digest, largest: int) -> None:
        super().__init__(digest, largest)
        self._path = path
        self.partial = partial_of(path, digest)
        self._descriptor = -1

    @classmethod
    def open(cls, path: Path, digest: Digest, *, largest: int) -> Self:
        """Begin, or go on with what is there. Reads all of that; close it afterwards.

        Raises:
            ConflictError: another process downloads to here.
            FaultError: the folder cannot be written to.
        """
        incoming = cls(path, digest, largest)
        with _typed_errors(incoming.partial):
            descriptor = os.open(incoming.partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                incoming._resume(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        return incoming

    def _resume(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                "another process downloads this file",
                where=str(self.partial),
                hint="wait for it, or end it",
                reason="DOWNLOADING",
            ) from None
        os.fchmod(descriptor, 0o600)
        self._descriptor = descriptor
        if os.fstat(descriptor).st_size > self._largest:
            os.ftruncate(descriptor, 0)
        while piece := os.pread(descriptor, _PIECE, self.length):
            self._count(piece)

    def write(self, at: int, piece: Piece) -> None:
        """Keep the next piece.

        Raises:
            FaultError: the disk is full, or broken.
        """
        with _typed_errors(self.partial):
            write_all(self._descriptor, piece, at)
        self._count(piece)

    def sync(self) -> None:
        """Have on disk what has come so far."""
        with _typed_errors(self.partial):
            sync_data(self._descriptor, size=self.size or 0)

    def finish(self) -> None:
        """Give the file its name, durably, if its bytes are those asked for; else it is deleted.

        Raises:
            PeerViolation: other bytes, or fewer.
            FaultError: the disk is full, or broken.
        """
        with _typed_errors(self.partial):
            if not self._is_whole:
                self.partial.unlink(missing_ok=True)
                raise self._other_bytes()
            self.sync()
            self.partial.replace(self._path)
            sync_folder(self._path.parent)

    def close(self) -> None:
        """Let go of the file; what has come stays for the next time."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def partial_of(path: Path, digest: Digest) -> Path:
    """Where an unfinished download to `path` lies."""
    return path.parent / f".{digest}.partial"


def read_chunk(raw: bytes, digest: Digest) -> tuple[transfer_pb2.DownloadChunk, memoryview]:
    """A chunk of the download of this digest, and its bytes as a view of `raw`.

    Raises:
        PeerViolation: no such message.
    """
    try:
        return split_chunk(transfer_pb2.DownloadChunk, raw)
    except DecodeError:
        raise bad_download("a chunk that cannot be read", "protobuf", digest) from None


def bad_download(message: str, expected: str, digest: Digest) -> PeerViolation:
    """The coordinator sent what nobody asked for."""
    return PeerViolation(
        message, where="coordinator", expected=expected, got=f"artifact {digest}", reason="BAD_DOWNLOAD"
    )


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FaultError(
            "a download cannot be written",
            where=str(path),
            expected="a folder that may be written to, with room left",
            got=error.strerror or type(error).__name__,
            hint="make room, or choose another folder, and download again: what has come is kept",
            reason="DISK",
        ) from None
