"""Artifacts on disk or in memory, addressed by SHA-256, and uploads that arrive in pieces.

A slot is where one sender's upload collects; it is named by a digest too, of sender and content, so that nobody can
write into another's. A whole artifact appears at once, by a rename, after its hash was checked and its bytes synced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Protocol

from lepton_core.errors import FaultError, InputError, NotFoundError
from lepton_core.ids import Digest, digest_of, require_digest
from lepton_core.ports import Clock
from lepton_protos.durable import sync_data, sync_folder, write_all
from lepton_protos.spooling import Piece
from lepton_server.store.growing import Growing, GrowingUploads, require_no_gap
from lepton_server.store.port import Artifacts

_PIECE = 2**20
#: Of a digest, and so of an artifact's name.
_DIGITS = 64


class Spool(Artifacts, Protocol):
    """Artifacts that can also be read and written piece by piece."""

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; NotFoundError if it is not there."""
        ...

    def received(self, slot: Digest) -> int:
        """Bytes of an unfinished upload that have arrived; 0 for none."""
        ...

    def write_at(self, slot: Digest, offset: int, data: Piece) -> None:
        """Put a piece at `offset`; what lay behind it is forgotten. InputError if it would leave a gap."""
        ...

    def finish(self, slot: Digest, digest: Digest, size: int) -> None:
        """Make the upload an artifact. InputError, and the upload forgotten, if size or hash is another."""
        ...

    def sync(self, slot: Digest, size: int) -> None:
        """Have on disk what has come of `size` bytes, while more comes, so that `finish` has little to wait for."""
        ...

    def rest(self, slot: Digest) -> None:
        """Let go of the file of an unfinished upload, to which nobody writes for now; its hash is kept."""
        ...

    def discard(self, slot: Digest) -> None:
        """Forget an unfinished upload; nothing happens if there is none."""
        ...


class MemoryArtifacts:
    """Artifacts in a dictionary, for tests and the simulation."""

    def __init__(self) -> None:
        self._whole: dict[Digest, bytes] = {}
        self._slots: dict[Digest, bytearray] = {}

    def put(self, data: bytes) -> Digest:
        """Keep the bytes; a second time is free."""
        digest = digest_of(data)
        self._whole[digest] = data
        return digest

    def get(self, digest: Digest) -> bytes:
        """The bytes; NotFoundError if they are not there."""
        if digest not in self._whole:
            raise _missing(digest)
        return self._whole[digest]

    def has(self, digest: Digest) -> bool:
        """True if the bytes are there, whole."""
        return digest in self._whole

    def claim(self, digest: Digest) -> bool:
        """True if the bytes are there, whole; nothing sweeps memory."""
        return self.has(digest)

    def delete(self, digest: Digest) -> None:
        """Forget the bytes; nothing happens if they are not there."""
        self._whole.pop(digest, None)

    def size(self, digest: Digest) -> int:
        """Bytes of the artifact; NotFoundError if it is not there."""
        return len(self.get(digest))

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; NotFoundError if it is not there."""
        return self.get(digest)[offset : offset + length]

    def received(self, slot: Digest) -> int:
        """Bytes of an unfinished upload that have arrived; 0 for none."""
        return len(self._slots.get(slot, b""))

    def write_at(self, slot: Digest, offset: int, data: Piece) -> None:
        """Put a piece at `offset`; what lay behind it is forgotten. InputError if it would leave a gap."""
        require_no_gap(offset, self.received(slot))
        self._slots.setdefault(slot, bytearray())[offset:] = data

    def finish(self, slot: Digest, digest: Digest, size: int) -> None:
        """Make the upload an artifact. InputError, and the upload forgotten, if size or hash is another."""
        data = bytes(self._slots.pop(slot, b""))
        _require_whole(digest, size, digest_of(data), len(data))
        self._whole[digest] = data

    def sync(self, slot: Digest, size: int) -> None:
        """Nothing to do: memory has no disk."""

    def rest(self, slot: Digest) -> None:
        """Nothing to do: memory has no open files."""

    def discard(self, slot: Digest) -> None:
        """Forget an unfinished upload; nothing happens if there is none."""
        self._slots.pop(slot, None)


class FolderArtifacts:
    """Artifacts in `root/<first two digits>/<digest>`, unfinished uploads in `root/partial/<slot>`.

    What `put` and `finish` have returned from survives a power loss. Safe to use from several threads, as long as
    one slot has one writer.

    Raises:
        FaultError: the folder cannot be made, or written to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._partial = root / "partial"
        self._growing = GrowingUploads()
        #: Held while an artifact's age is looked at and it is deleted, or it is claimed or published.
        self._claims = Lock()
        with _typed_errors(root):
            self._partial.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_shelves(root)
            if not os.access(self._partial, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def put(self, data: bytes) -> Digest:
        """Keep the bytes durably; a second time is free."""
        digest = digest_of(data)
        if self.claim(digest):
            return digest
        with _typed_errors(self._root):
            temporary = self._partial / f"put-{os.urandom(16).hex()}"
            try:
                _write_durably(temporary, data)
                self._publish(temporary, digest)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return digest

    def get(self, digest: Digest) -> bytes:
        """The bytes, with their hash checked; NotFoundError if they are not there, FaultError if they have changed."""
        with _typed_errors(self._root):
            try:
                data = self._path(digest).read_bytes()
            except FileNotFoundError:
                raise _missing(digest) from None
        if digest_of(data) != digest:
            raise FaultError(
                "an artifact's bytes have changed on disk",
                where=digest,
                hint="check the disk and restore the artifacts folder from a backup",
                reason="ARTIFACT_DAMAGED",
            )
        return data

    def has(self, digest: Digest) -> bool:
        """True if the bytes are there, whole."""
        return self._path(digest).is_file()

    def claim(self, digest: Digest) -> bool:
        """True if the bytes are there, whole; they count as new then, so that no sweep takes them."""
        with _typed_errors(self._root), self._claims:
            try:
                os.utime(self._path(digest))
            except FileNotFoundError:
                return False
        return True

    def delete(self, digest: Digest) -> None:
        """Forget the bytes; nothing happens if they are not there."""
        with _typed_errors(self._root):
            self._path(digest).unlink(missing_ok=True)

    def size(self, digest: Digest) -> int:
        """Bytes of the artifact; NotFoundError if it is not there."""
        with _typed_errors(self._root):
            try:
                return self._path(digest).stat().st_size
            except FileNotFoundError:
                raise _missing(digest) from None

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; NotFoundError if it is not there."""
        with _typed_errors(self._root):
            try:
                with self._path(digest).open("rb") as file:
                    file.seek(offset)
                    return file.read(length)
            except FileNotFoundError:
                raise _missing(digest) from None

    def received(self, slot: Digest) -> int:
        """Bytes of an unfinished upload that have arrived; 0 for none."""
        with _typed_errors(self._root), contextlib.suppress(FileNotFoundError):
            return self._slot(slot).stat().st_size
        return 0

    def write_at(self, slot: Digest, offset: int, data: Piece) -> None:
        """Put a piece at `offset`; what lay behind it is forgotten. InputError if it would leave a gap."""
        path = self._slot(slot)
        with _typed_errors(self._root), self._growing.holding(slot) as held:
            held.growing = held.growing or Growing(path)
            held.growing.write_at(offset, data)

    def rest(self, slot: Digest) -> None:
        """Let go of the file of an unfinished upload, to which nobody writes for now; its hash is kept."""
        with self._growing.holding(slot) as held:
            if held.growing is not None:
                held.growing.close()

    def finish(self, slot: Digest, digest: Digest, size: int) -> None:
        """Make the upload an artifact. InputError, and the upload forgotten, if size or hash is another."""
        path = self._slot(slot)
        with _typed_errors(self._root), self._growing.holding(slot) as held:
            growing, held.growing = held.growing, None
            if growing is not None:
                growing.close()
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as file:
                received = os.fstat(file.fileno()).st_size
                hasher = growing.hasher if growing is not None and growing.length == received else None
                if hasher is None:  # begun by an earlier process
                    hasher = hashlib.sha256()
                    while piece := file.read(_PIECE):
                        hasher.update(piece)
                try:
                    _require_whole(digest, size, Digest(hasher.hexdigest()), received)
                except InputError:
                    path.unlink(missing_ok=True)
                    raise
                sync_data(file.fileno(), size=size)
            self._publish(path, digest)

    def sync(self, slot: Digest, size: int) -> None:
        """Have on disk what has come of `size` bytes, while more comes, so that `finish` has little to wait for."""
        with _typed_errors(self._root), contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._slot(slot), os.O_RDWR | os.O_CLOEXEC)
            try:
                sync_data(descriptor, size=size)
            finally:
                os.close(descriptor)

    def discard(self, slot: Digest) -> None:
        """Forget an unfinished upload; nothing happens if there is none."""
        path = self._slot(slot)
        with _typed_errors(self._root), self._growing.holding(slot) as held:
            if held.growing is not None:
                held.growing.close()
            held.growing = None
            path.unlink(missing_ok=True)

    def sweep(self, clock: Clock, *, older_than_s: float) -> int:
        """Forget unfinished uploads nobody has added to for so long; how many there were."""
        swept = 0
        with _typed_errors(self._root):
            for path in self._partial.iterdir():
                if path.stat().st_mtime < clock.now() - older_than_s:
                    path.unlink(missing_ok=True)
                    swept += 1
        return swept

    def sweep_unnamed(self, named: AbstractSet[str], clock: Clock, *, older_than_s: float) -> int:
        """Delete the artifacts that are none of these and that nobody has put or claimed for so long; how many.

        Safe beside everything else here: what is claimed after `named` was put together is found young, or is gone
        before the claim, which then says so.
        """
        swept = 0
        with _typed_errors(self._root):
            for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
                if path.name in named or len(path.name) != _DIGITS:
                    continue
                with self._claims, contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < clock.now() - older_than_s:
                        path.unlink()
                        swept += 1
        return swept

    def _publish(self, temporary: Path, digest: Digest) -> None:
        """Rename to the artifact's name and sync its folder, so that the name is durable too."""
        path = self._path(digest)
        os.utime(temporary)  # an upload may have stood still for long
        with self._claims:
            temporary.replace(path)
        sync_folder(path.parent)

    def _path(self, digest: Digest) -> Path:
        require_digest(digest, "digest")
        return self._root / digest[:2] / digest

    def _slot(self, slot: Digest) -> Path:
        return self._partial / require_digest(slot, "upload slot")


def _make_shelves(root: Path) -> None:
    """All 256 folders at once, and durable, so that no artifact has to wait for its own."""
    there = {entry.name for entry in root.iterdir()}
    for name in (f"{first:02x}" for first in range(256)):
        if name not in there:
            (root / name).mkdir(exist_ok=True, mode=0o700)
    sync_folder(root)  # also for those that an interrupted start has made


def _write_durably(path: Path, data: bytes) -> None:
    """A new file with these bytes. Its data and its length are synced; nobody reads its times."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data, 0)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _missing(digest: Digest) -> NotFoundError:
    return NotFoundError("no such artifact", where=digest, hint="it was never uploaded whole, or has been deleted")


def _require_whole(digest: Digest, size: int, got_digest: Digest, got_size: int) -> None:
    if got_size != size:
        raise InputError(
            "an upload of another length than announced",
            where=digest,
            expected=f"{size} bytes",
            got=f"{got_size} bytes",
            reason="LENGTH",
        )
    if got_digest != digest:
        raise InputError(
            "an upload whose hash is another than announced",
            where=digest,
            expected=digest,
            got=got_digest,
            hint="upload it again from the start",
            reason="DIGEST",
        )


@contextmanager
def _typed_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FaultError(
            "the artifacts folder cannot be used",
            where=str(root),
            expected="a folder the coordinator may write to, with room left",
            got=error.strerror or type(error).__name__,
            hint="make room or correct the folder's owner and mode",
            reason="DISK",
        ) from None
