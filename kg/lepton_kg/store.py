"""Where the statements of published ontology versions are kept: canonical bytes by their hash, one file each."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lepton_core.errors import FaultError, InputError
from lepton_core.ids import Digest, digest_of, require_digest
from lepton_kg.catalogue import VersionRecord, unknown_version
from lepton_kg.unfinished import Unfinished


class OntologyStore(Protocol):
    """Keeps canonical bytes; what `put` returned from is durable."""

    def put(self, digest: Digest, canonical: bytes) -> None:
        """Keep the bytes; nothing happens if they are there, whole."""
        ...

    def get(self, digest: Digest) -> bytes:
        """The canonical bytes.

        Raises:
            NotFoundError: no such version.
        """
        ...

    def remove(self, digest: Digest) -> None:
        """Forget the bytes of a version that was never published after all; nothing happens if there are none."""
        ...

    def begin(self, digest: Digest) -> bool:
        """A publication of that version begins; True if its bytes are nobody's until `finish`.

        Raises:
            FaultError: another process publishes it just now, or the disk refuses.
        """
        ...

    def finish(self, digest: Digest) -> None:
        """The version is on record, or its bytes are removed."""
        ...

    def dead(self) -> Iterator[Digest]:
        """Versions whose publication died between `begin` and `finish`; each is to be finished."""
        ...

    def earlier_records(self) -> Iterator[VersionRecord]:
        """Records that an earlier release kept beside the bytes."""
        ...


class FolderOntologyStore:
    """`<digest>.nq` in one folder, written elsewhere, synced and renamed.

    Raises:
        FaultError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = Unfinished(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            for left in root.glob(".*.nq.*"):  # of a process that was killed while it wrote
                with contextlib.suppress(InputError):
                    if not self._unfinished.runs(require_digest(left.name[1:].partition(".")[0], "ontology hash")):
                        left.unlink(missing_ok=True)
        except OSError as error:
            raise _fault("the folder of ontologies cannot be used", error) from error

    def path(self, digest: Digest) -> Path:
        """Where a version's bytes lie; no digest leads out of the folder."""
        return self._root / f"{require_digest(digest, 'ontology hash')}.nq"

    def put(self, digest: Digest, canonical: bytes) -> None:
        """Keep the bytes; nothing happens if they are there, whole.

        Raises:
            FaultError: the disk refuses.
        """
        path = self.path(digest)
        try:
            if path.exists() and digest_of(path.read_bytes()) == digest:
                return
            self._write(path, canonical)
        except OSError as error:
            raise _fault("an ontology could not be stored", error) from error

    def get(self, digest: Digest) -> bytes:
        """The canonical bytes.

        Raises:
            NotFoundError: no such version.
            FaultError: the disk refuses, or its bytes no longer have that hash.
        """
        path = self.path(digest)
        try:
            canonical = path.read_bytes()
        except FileNotFoundError:
            raise unknown_version(digest) from None
        except OSError as error:
            raise _fault("an ontology could not be read", error) from error
        if digest_of(canonical) != digest:
            raise FaultError(
                "a stored ontology is damaged",
                where=path.name,
                expected=digest,
                got=digest_of(canonical),
                hint="remove the file and publish the ontology again",
            )
        return canonical

    def remove(self, digest: Digest) -> None:
        """Forget the bytes of a version that was never published after all."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise _fault("an ontology could not be removed", error) from error

    def begin(self, digest: Digest) -> bool:
        """A publication begins; True if it is the first to put the bytes, or one that did so died.

        Bytes that were there before are another publication's, whoever has its record.

        Raises:
            FaultError: another process publishes it just now, or the disk refuses.
        """
        try:
            if self.path(digest).exists() and not self._unfinished.path(digest).exists():
                return False
            self._unfinished.begin(digest)
        except OSError as error:
            raise _fault("an ontology could not be stored", error) from error
        return True

    def finish(self, digest: Digest) -> None:
        """The version is on record, or its bytes are removed."""
        try:
            self._unfinished.finish(digest)
        except OSError as error:
            raise _fault("an ontology could not be stored", error) from error

    def dead(self) -> Iterator[Digest]:
        """Versions whose publication died between `begin` and `finish`, each held against other processes."""
        return self._unfinished.dead()

    def earlier_records(self) -> Iterator[VersionRecord]:
        """What `<digest>.json` notes beside the bytes; earlier releases wrote them in the place of a database."""
        for note in sorted(self._root.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                known = json.loads(note.read_bytes())
                digest = require_digest(str(known["digest"]), "ontology hash")
                if self.path(digest).exists():
                    yield VersionRecord(
                        digest=digest,
                        label=str(known.get("label", "")),
                        published=float(known["published"]),
                        publisher="",
                        concepts=int(known["concepts"]),
                        canonical_bytes=int(known["canonical_bytes"]),
                    )

    def _write(self, path: Path, data: bytes) -> None:
        """All of the bytes under that name, durably, or nothing."""
        passing = self._root / f".{path.name}.{secrets.token_hex(8)}"
        try:
            with passing.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            passing.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                passing.unlink()
            raise
        folder = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _fault(message: str, error: OSError) -> FaultError:
    return FaultError(message, where=str(error.filename or ""), got=error.strerror or type(error).__name__)
