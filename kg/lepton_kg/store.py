"""Where published ontology versions are kept: bytes by their hash, each with a line of what it is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Protocol

from pydantic import Field

from lepton_core.errors import FaultError, NotFoundError
from lepton_core.ids import Digest, digest_of, require_digest
from lepton_core.settings import Settings, parse_settings


class OntologyRecord(Settings):
    """What a list of versions shows of one."""

    digest: str
    #: The publisher's name for the version.
    label: str = Field(default="", max_length=300)
    #: Seconds since the Unix epoch, UTC, of the first publication.
    published: float
    concepts: int = Field(ge=0)
    canonical_bytes: int = Field(ge=0)


class OntologyStore(Protocol):
    """Keeps versions for ever; what `put` returned from is durable."""

    def put(self, record: OntologyRecord, canonical: bytes) -> OntologyRecord:
        """The version's record: this one, or the first one if the version was there."""
        ...

    def get(self, digest: Digest) -> bytes:
        """The canonical bytes.

        Raises:
            NotFoundError: no such version.
        """
        ...

    def list(self) -> tuple[OntologyRecord, ...]:
        """All versions, oldest first."""
        ...


class FolderOntologyStore:
    """Two files a version in one folder: `<digest>.nq` and, written after it, `<digest>.json`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, record: OntologyRecord, canonical: bytes) -> OntologyRecord:
        """The version's record: this one, or the first one if the version was there.

        Raises:
            FaultError: the disk refuses.
        """
        digest = require_digest(record.digest, "ontology hash")
        note = self._root / f"{digest}.json"
        try:
            if note.exists():
                return self._read(note)
            self._write(self._root / f"{digest}.nq", canonical)
            self._write(note, record.model_dump_json().encode())
        except OSError as error:
            raise _fault("an ontology could not be stored", error) from error
        return record

    def get(self, digest: Digest) -> bytes:
        """The canonical bytes.

        Raises:
            NotFoundError: no such version.
            FaultError: the disk refuses, or its bytes no longer have that hash.
        """
        path = self._root / f"{require_digest(digest, 'ontology hash')}.nq"
        try:
            canonical = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                "no such ontology version", where=digest, hint="`lepton ontology list` shows the published ones"
            ) from None
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

    def list(self) -> tuple[OntologyRecord, ...]:
        """All versions, oldest first.

        Raises:
            FaultError: the disk refuses.
        """
        try:
            records = [self._read(path) for path in self._root.glob("*.json")]
        except OSError as error:
            raise _fault("the ontologies could not be listed", error) from error
        return tuple(sorted(records, key=lambda record: (record.published, record.digest)))

    def _read(self, path: Path) -> OntologyRecord:
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            document = {}
        return parse_settings(OntologyRecord, document, source=str(path))

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
