"""Reading and writing the files that commands are given, with errors that say what to do."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from lepton_core.errors import ConflictError, FaultError, InputError
from lepton_protos.durable import sync_folder


def read_bytes(path: Path, what: str) -> bytes:
    """The file's content.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = ", ".join(sorted(entry.name for entry in path.parent.glob("*"))[:12]) if path.parent.is_dir() else ""
        raise InputError(
            f"the {what} is missing",
            where=str(path),
            expected="an existing file",
            got=f"the folder holds: {near}" if near else "no such file",
            hint="check the path; a relative one starts where you are",
        ) from None
    except OSError as error:
        raise InputError(
            f"the {what} cannot be read", where=str(path), got=error.strerror or "", hint="check its permissions"
        ) from None


def read_text(path: Path, what: str) -> str:
    """The file's text, UTF-8.

    Raises:
        InputError: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return read_bytes(path, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the {what} is not UTF-8 text", where=f"{path}, byte {error.start}", expected="UTF-8", hint="re-save it"
        ) from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The file's TOML document.

    Raises:
        InputError: it is missing or not TOML; the line is named.
    """
    try:
        return tomllib.loads(read_text(path, what))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(
            f"the {what} is not TOML", where=str(path), expected="a TOML document", got=str(error), hint="see the line"
        ) from None


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file that only its owner can read.

    Raises:
        ConflictError: it exists, and must not be replaced.
        FaultError: the disk refuses.
    """
    _write(path, data, mode=0o600, replace=replace)


def write_public(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file that everybody on the machine may read.

    Raises:
        ConflictError: it exists, and must not be replaced.
        FaultError: the disk refuses.
    """
    _write(path, data, mode=0o644, replace=replace)


def require_absent(path: Path) -> None:
    """Return if nothing would be overwritten.

    Raises:
        ConflictError: the file exists.
    """
    if path.exists():
        raise ConflictError("the file exists already", where=str(path), hint="name another file, or move this one away")


def publish(written: Path, path: Path) -> None:
    """Give a file that was written and synced its name, and let everybody on the machine read it.

    Raises:
        ConflictError: there is one of that name.
        FaultError: the disk refuses.
    """
    try:
        require_absent(path)
        written.chmod(0o644)
        written.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise FaultError("the file cannot be written", where=str(path), got=error.strerror or "") from None


def _write(path: Path, data: bytes, *, mode: int, replace: bool) -> None:
    beside = path.with_name(f".{path.name}.partial")
    try:
        if not replace:
            require_absent(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise FaultError("the file cannot be written", where=str(path), got=error.strerror or "") from None
