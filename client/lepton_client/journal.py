"""A file that only grows: a line is durable before `append` returns, and an interrupted last line never happened."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from lepton_client.disk import SYSTEM_DISK, Disk
from lepton_core.errors import ConflictError, FaultError


class Journal:
    """An append-only file of lines, held by one process at a time.

    Guarantees: a line handed to `append` is on the disk before `append` returns. A file that ends without a line
    break was interrupted inside `append`, so nothing was done because of its last line, and the line is cut off.
    """

    def __init__(self, path: Path, disk: Disk = SYSTEM_DISK) -> None:
        """Open or create the file (0600) and lock it.

        Raises:
            ConflictError: another process holds it.
            FaultError: the file cannot be opened, read or written.
        """
        #: Where the lines are.
        self.path = path
        self._disk = disk
        #: True once a line that was not made durable could not be taken back either: what follows it would not hold.
        self._spoilt = False
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
            self._lines = self._whole_lines()
            if new:
                disk.sync_folder(path.parent)
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
        if self._spoilt:
            raise _fault("write", self.path, OSError(0, "an earlier line could not be taken back"))
        block = b"".join(line.rstrip(b"\n") + b"\n" for line in lines)
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(block):
                written += self._disk.write(self._file, block[written:])
            self._disk.sync(self._file)
        except OSError as error:
            try:
                self._disk.truncate(self._file, start)
            except OSError:
                self._spoilt = True
            raise _fault("write", self.path, error) from None

    def close(self) -> None:
        """Let another process open the file; closing twice does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _whole_lines(self) -> tuple[bytes, ...]:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._disk.truncate(self._file, whole)
            self._disk.sync(self._file)
        return tuple(content[:whole].split(b"\n")[:-1])

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


def write_private(path: Path, content: bytes, disk: Disk = SYSTEM_DISK) -> None:
    """Replace a file by `content` as a whole, durably, readable by this user only.

    Raises:
        FaultError: the disk refused; the old content is still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[disk.write(file, bytes(rest)) :]
            disk.sync(file)
        finally:
            os.close(file)
        disk.replace(draft, path)
        disk.sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _fault("write", path, error) from None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _fault("open", path, error) from None


def _fault(verb: str, path: Path, error: OSError) -> FaultError:
    return FaultError(
        f"cannot {verb} a file of the client",
        where=str(path),
        got=error.strerror or type(error).__name__,
        hint="check the folder's owner, its permissions and the free space",
    )
