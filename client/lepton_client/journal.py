"""A file that only grows: a line is durable before `append` returns, and an interrupted last line never happened."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from lepton_core.errors import ConflictError, FaultError
from lepton_protos.durable import sync_folder


class Journal:
    """An append-only file of lines, held by one process at a time.

    Guarantees: a line handed to `append` is on the disk before `append` returns. A file that ends without a line
    break was interrupted inside `append`, so nothing was done because of its last line, and the line is cut off.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (0600) and lock it.

        Raises:
            ConflictError: another process holds it.
            FaultError: the file cannot be opened, read or written.
        """
        #: Where the lines are.
        self.path = path
        new = not path.exists()
        self._file = _open(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConflictError(
                "another daemon is using this folder",
                where=str(path),
                expected="one daemon a folder",
                hint="stop the other `lepton client run`, or give this one its own folder",
                reason="LOCKED",
            ) from None
        try:
            self._lines = _whole_lines(path, self._file)
            if new:
                sync_folder(path.parent)
        except OSError as error:
            os.close(self._file)
            raise _fault("read", path, error) from None

    @property
    def lines(self) -> tuple[bytes, ...]:
        """Every line that was there when the file was opened, without line breaks."""
        return self._lines

    def append(self, *lines: bytes) -> None:
        """Make the lines durable, each without a line break inside.

        Raises:
            FaultError: the disk refused; nothing may be done as if the lines were there.
        """
        block = b"".join(line.rstrip(b"\n") + b"\n" for line in lines)
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(block):
                written += os.write(self._file, block[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, start)
            raise _fault("write", self.path, error) from None

    def close(self) -> None:
        """Let another process open the file; closing twice does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> tuple[bytes, ...]:
    """The whole lines of a journal that another process may be writing; none if there is no file.

    Raises:
        FaultError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _fault("read", path, error) from None
    return tuple(content.split(b"\n")[:-1])


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by `content` as a whole, durably, readable by this user only.

    Raises:
        FaultError: the disk refused; the old content is still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _fault("write", path, error) from None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _fault("open", path, error) from None


def _whole_lines(path: Path, file: int) -> tuple[bytes, ...]:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(file, whole)
        os.fsync(file)
    return tuple(content[:whole].split(b"\n")[:-1])


def _fault(verb: str, path: Path, error: OSError) -> FaultError:
    return FaultError(
        f"cannot {verb} a file of the client",
        where=str(path),
        got=error.strerror or type(error).__name__,
        hint="check the folder's owner, its permissions and the free space",
    )
