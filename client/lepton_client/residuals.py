"""What a member's updates still hold that was not sent, kept at the site: one residual a job, and one that may follow.

A round that may still count is `PENDING`: what was sent in it, and what it would leave. Once it has counted it is
`SETTLED`, by one rename, so that whatever ends the process, the residual is the one before or the one after.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from lepton_client.journal import write_private
from lepton_core.canonical import canonical_json
from lepton_core.errors import FaultError, InputError
from lepton_core.ids import JobId, ModelVersion, RoundNumber, require_name
from lepton_core.layout import Vector, require_finite
from lepton_core.ring import Words
from lepton_protos.durable import sync_folder

_MAGIC = b"lepton/residual/1\n"
#: The header is a short line of JSON.
_MOST_HEADER_BYTES = 1024
_DIGEST_BYTES = 32


class Slot(StrEnum):
    """Which of a job's two places."""

    PENDING = "pending"
    SETTLED = "settled"


@dataclass(frozen=True)
class Mark:
    """The round that a residual follows."""

    round: RoundNumber
    #: The model version that the round trained on.
    version: ModelVersion
    #: Names round and model, 32 bytes.
    sid: bytes


@dataclass(frozen=True, eq=False)
class Kept:
    """What a round has sent, and what it has left out. Both depend on records; neither is shown."""

    mark: Mark
    #: Shape (terms.words,), uint64.
    words: Words
    #: Shape (model_length,), float32.
    residual: Vector

    def __repr__(self) -> str:
        """Without the values."""
        return f"Kept({self.mark!r}, {len(self.words)} words, {len(self.residual)} values)"


class Residuals(Protocol):
    """What the participant asks of the place where residuals are."""

    def mark(self, job: JobId, slot: Slot) -> Mark | None:
        """The round of what is kept there; None if nothing is.

        Raises:
            InputError: RESIDUAL_UNREADABLE.
            FaultError: the disk.
        """
        ...

    def read(self, job: JobId, slot: Slot) -> Kept:
        """What is kept there, whole.

        Raises:
            InputError: RESIDUAL_UNREADABLE, or nothing is kept there.
            FaultError: the disk.
        """
        ...

    def stage(self, job: JobId, kept: Kept) -> None:
        """Make durable what a round is about to send, in place of what was pending.

        Raises:
            FaultError: the disk; nothing may be sent.
        """
        ...

    def settle(self, job: JobId) -> None:
        """What is pending has counted: it takes the place of what was settled. Nothing happens if nothing is pending.

        Raises:
            FaultError: the disk.
        """
        ...

    def drop(self, job: JobId) -> None:
        """What is pending has not counted, and never will.

        Raises:
            FaultError: the disk.
        """
        ...

    def forget(self, job: JobId) -> None:
        """The job is over: nothing of it is kept.

        Raises:
            FaultError: the disk.
        """
        ...


class MemoryResiduals:
    """Residuals that live as long as the object, for simulations and tests."""

    def __init__(self) -> None:
        self._kept: dict[tuple[JobId, Slot], Kept] = {}

    def mark(self, job: JobId, slot: Slot) -> Mark | None:
        """See `Residuals.mark`."""
        kept = self._kept.get((job, slot))
        return kept.mark if kept is not None else None

    def read(self, job: JobId, slot: Slot) -> Kept:
        """See `Residuals.read`."""
        kept = self._kept.get((job, slot))
        if kept is None:
            raise _nothing(f"job {job}, {slot}")
        return kept

    def stage(self, job: JobId, kept: Kept) -> None:
        """See `Residuals.stage`."""
        self._kept[job, Slot.PENDING] = kept

    def settle(self, job: JobId) -> None:
        """See `Residuals.settle`."""
        kept = self._kept.pop((job, Slot.PENDING), None)
        if kept is not None:
            self._kept[job, Slot.SETTLED] = kept

    def drop(self, job: JobId) -> None:
        """See `Residuals.drop`."""
        self._kept.pop((job, Slot.PENDING), None)

    def forget(self, job: JobId) -> None:
        """See `Residuals.forget`."""
        for slot in Slot:
            self._kept.pop((job, slot), None)


class FileResiduals:
    """Residuals in a folder (0700), one file (0600) a job and slot, replaced as a whole; one process at a time.

    A file is a magic line, a line of JSON with the job, the round and the sizes, the residual (float32), the words
    (uint64), both little-endian, and the SHA-256 of all that.
    """

    def __init__(self, folder: Path, open_jobs: Collection[JobId]) -> None:
        """Open or make the folder, and delete what belongs to no open job or was never finished.

        Raises:
            FaultError: the disk.
        """
        self._folder = folder
        kept = {f"{job}.{slot}" for job in open_jobs for slot in Slot}
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for path in folder.iterdir():
                if path.name not in kept:
                    path.unlink()
            sync_folder(folder)
        except OSError as error:
            raise _fault(folder, error) from None

    def mark(self, job: JobId, slot: Slot) -> Mark | None:
        """See `Residuals.mark`."""
        path = self._path(job, slot)
        try:
            with path.open("rb") as file:
                return _parse_header(file, job, path)[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(path, error) from None

    def read(self, job: JobId, slot: Slot) -> Kept:
        """See `Residuals.read`."""
        path = self._path(job, slot)
        try:
            with path.open("rb") as file:
                mark, values, words = _parse_header(file, job, path)
                header_bytes = file.tell()
                file.seek(0)
                content = file.read()
        except FileNotFoundError:
            raise _nothing(str(path)) from None
        except OSError as error:
            raise _fault(path, error) from None
        body, told = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if len(body) != header_bytes + 4 * values + 8 * words or hashlib.sha256(body).digest() != told:
            raise _unreadable(path)
        cut = header_bytes + 4 * values
        residual = np.frombuffer(body[header_bytes:cut], dtype="<f4").astype(np.float32)
        sent = np.frombuffer(body[cut:], dtype="<u8").astype(np.uint64)
        return Kept(mark, sent, require_finite(residual, "residual"))

    def stage(self, job: JobId, kept: Kept) -> None:
        """See `Residuals.stage`."""
        header = {
            "job": job,
            "round": int(kept.mark.round),
            "sid": kept.mark.sid.hex(),
            "values": len(kept.residual),
            "version": int(kept.mark.version),
            "words": len(kept.words),
        }
        parts = (kept.residual.astype("<f4").tobytes(), kept.words.astype("<u8").tobytes())
        body = b"".join((_MAGIC, canonical_json(header), b"\n", *parts))
        write_private(self._path(job, Slot.PENDING), body + hashlib.sha256(body).digest())

    def settle(self, job: JobId) -> None:
        """See `Residuals.settle`."""
        pending = self._path(job, Slot.PENDING)
        try:
            with contextlib.suppress(FileNotFoundError):
                pending.replace(self._path(job, Slot.SETTLED))
                sync_folder(self._folder)
        except OSError as error:
            raise _fault(pending, error) from None

    def drop(self, job: JobId) -> None:
        """See `Residuals.drop`."""
        self._unlink(job, Slot.PENDING)

    def forget(self, job: JobId) -> None:
        """See `Residuals.forget`."""
        for slot in Slot:
            self._unlink(job, slot)

    def _unlink(self, job: JobId, slot: Slot) -> None:
        path = self._path(job, slot)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                sync_folder(self._folder)
        except OSError as error:
            raise _fault(path, error) from None

    def _path(self, job: JobId, slot: Slot) -> Path:
        return self._folder / f"{require_name(job, 'job id')}.{slot}"


def _parse_header(file: BinaryIO, job: JobId, path: Path) -> tuple[Mark, int, int]:
    """The mark, and how many values and words follow; the file stands behind the header."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _unreadable(path)
    line = file.readline(_MOST_HEADER_BYTES)
    try:
        read: Any = json.loads(line)
        mark = Mark(RoundNumber(int(read["round"])), ModelVersion(int(read["version"])), bytes.fromhex(read["sid"]))
        told, sizes = str(read["job"]), (int(read["values"]), int(read["words"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unreadable(path) from None
    if told != job or not line.endswith(b"\n") or min(sizes) < 0:
        raise _unreadable(path)
    return mark, *sizes


def _unreadable(path: Path) -> InputError:
    return InputError(
        "what was not sent of earlier updates cannot be read",
        where=str(path),
        expected="a residual of this job, whole",
        hint="restore the file, or delete it: what it held is then never sent, and the job goes on without it",
        reason="RESIDUAL_UNREADABLE",
    )


def _nothing(where: str) -> InputError:
    return InputError("no residual is kept there", where=where, expected="a round that was staged")


def _fault(path: Path, error: OSError) -> FaultError:
    return FaultError(
        "cannot keep what of an update is not sent yet",
        where=str(path),
        got=error.strerror or type(error).__name__,
        hint="check the folder's owner, its permissions and the free space",
    )
