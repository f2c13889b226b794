"""The knowledge service without a transport: publish, list, compare, approve, deprecate and look up versions."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lepton_core.errors import FaultError, NotFoundError
from lepton_core.ids import Digest, digest_of, require_digest
from lepton_core.ports import Clock
from lepton_kg.catalogue import Catalogue, Decision, VersionApproval, VersionRecord
from lepton_kg.concept import Concept, Value
from lepton_kg.diff import OntologyDiff, diff
from lepton_kg.formulas import require_formulas
from lepton_kg.mapping import parse_mapping
from lepton_kg.mapping_check import MappingProblem, check_mapping
from lepton_kg.ontology import Ontology, load_canonical, parse_ontology
from lepton_kg.rdf import importer_of
from lepton_kg.store import OntologyStore

#: Parsed versions kept in memory.
_CACHED_VERSIONS = 8


class Index(Protocol):
    """What makes a version ready for queries; can be built again from its bytes."""

    def build(self, digest: Digest, canonical: bytes | Path) -> Path:
        """Make the version ready; nothing happens if it is."""
        ...

    def has(self, digest: Digest) -> bool:
        """True if it is ready."""
        ...

    def remove(self, digest: Digest) -> None:
        """Forget it; nothing happens if it is not there."""
        ...


class Knowledge:
    """Ontology versions by hash; safe to call from several threads.

    A version is published when the catalogue has its record, which comes last; before that it is not found, whatever
    lies in files already.
    """

    def __init__(self, store: OntologyStore, catalogue: Catalogue, clock: Clock, *, index: Index | None = None) -> None:
        """`index` is for queries; without one, versions are published and looked up all the same."""
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._index = index
        self._lock = threading.Lock()
        #: One at a time, so that undoing one publication cannot take back another's bytes.
        self._publishing = threading.Lock()
        #: Last used last.
        self._parsed: OrderedDict[Digest, Ontology] = OrderedDict()

    def adopt_earlier(self) -> None:
        """Take in the versions that an earlier release has left without a database."""
        known = {record.digest for record in self._catalogue.records()}
        for record in self._store.earlier_records():
            if record.digest not in known:
                self._catalogue.add(record)

    def sweep(self) -> tuple[Digest, ...]:
        """Take away what publications have left that were killed before their record; gives the versions.

        Only bytes that such a publication put there itself go, and none that is on record or still being published.

        Raises:
            FaultError: a disk or the database failed.
        """
        swept = []
        with self._publishing:
            for digest in self._store.dead():
                if not self._is_published(digest):
                    if self._index is not None:
                        self._index.remove(digest)
                    self._store.remove(digest)
                    swept.append(digest)
                self._store.finish(digest)
        return tuple(swept)

    def publish(
        self, data: bytes, *, format: str, label: str = "", source: str = "upload", publisher: str = ""
    ) -> VersionRecord:
        """The record of the ontology in the document, now durable; the same statements again change nothing.

        Raises:
            OntologyError: the document is refused.
            FaultError: a disk or the database failed; nothing of the document is left in any of them.
        """
        ontology = parse_ontology(data, format=format, source=source)
        require_formulas(ontology, source)
        record = VersionRecord(
            digest=ontology.digest,
            label=label,
            published=self._clock.now(),
            publisher=publisher,
            concepts=len(ontology.concepts),
            canonical_bytes=len(ontology.canonical),
            format=format.lower(),
            importer=importer_of(format),
            document=digest_of(data),
        )
        # Only the record makes a version published: what was kept for one that died before it is nobody's yet.
        with self._publishing, contextlib.ExitStack() as undo:
            if not self._is_published(ontology.digest) and self._store.begin(ontology.digest):
                undo.callback(self._store.finish, ontology.digest)
                undo.callback(self._store.remove, ontology.digest)
                if self._index is not None:
                    undo.callback(self._index.remove, ontology.digest)
            self._store.put(ontology.digest, ontology.canonical)
            if self._index is not None:
                self._index.build(ontology.digest, ontology.canonical)
            record = self._catalogue.add(record)
            undo.pop_all()
            with contextlib.suppress(FaultError):  # it is on record; the next sweep sees that
                self._store.finish(ontology.digest)
        self._remember(ontology)
        return record

    def get(self, digest: Digest) -> bytes:
        """The canonical N-Quads of that version.

        Raises:
            NotFoundError: no such version.
        """
        self._catalogue.record(require_digest(digest, "ontology hash"))
        return self._store.get(digest)

    def ontology(self, digest: Digest) -> Ontology:
        """That version, parsed.

        Raises:
            NotFoundError: no such version.
        """
        with self._lock:
            found = self._parsed.get(digest)
            if found is not None:
                self._parsed.move_to_end(digest)
                return found
        loaded = load_canonical(self.get(digest), digest)
        self._remember(loaded)
        return loaded

    def list(self) -> tuple[VersionRecord, ...]:
        """All published versions, oldest first."""
        return tuple(self._catalogue.records())

    def record(self, digest: Digest) -> VersionRecord:
        """What is known of that version; NotFoundError if there is none."""
        return self._catalogue.record(digest)

    def approvals(self, digest: Digest) -> Sequence[VersionApproval]:
        """Who vouches for that version."""
        return self._catalogue.approvals(digest)

    def approve(self, digest: Digest, *, actor: str, note: str = "") -> VersionApproval:
        """Put on record that somebody vouches for the version; NotFoundError if there is none."""
        return self._catalogue.approve(digest, Decision(actor, self._clock.now()), note=note)

    def deprecate(self, digest: Digest, *, actor: str, reason: str, replaced_by: str = "") -> VersionRecord:
        """Take the version out of use for new work: its label no longer leads to it; its hash does, for ever.

        Raises:
            NotFoundError: no such version, or none that replaces it.
        """
        by = Decision(actor, self._clock.now())
        return self._catalogue.deprecate(digest, by, reason=reason, replaced_by=replaced_by)

    def diff(self, old: Digest, new: Digest) -> OntologyDiff:
        """What changed from one version to another; NotFoundError if there is none."""
        return diff(self.ontology(old), self.ontology(new))

    def resolve(self, digest: Digest, text: str) -> tuple[Concept, ...]:
        """The concepts of that IRI, code, label or synonym in any language, whatever the case, by IRI.

        Raises:
            NotFoundError: no such version.
        """
        return self.ontology(digest).resolve(text)

    def closure(self, digest: Digest, iri: str, *, upward: bool) -> Mapping[str, int]:
        """Every broader (`upward`) or narrower concept with its distance in steps.

        Raises:
            NotFoundError: no such version.
            OntologyError: no such concept in it.
        """
        ontology = self.ontology(digest)
        ontology.concept(iri)
        return ontology.ancestors(iri) if upward else ontology.descendants(iri)

    def value_set(self, digest: Digest, iri: str) -> tuple[Value, ...]:
        """The permitted values of a coded concept, by code; empty for a concept that is measured.

        Raises:
            NotFoundError: no such version.
            OntologyError: no such concept in it.
        """
        return self.ontology(digest).concept(iri).value_set

    def check_mapping(self, digest: Digest, text: str) -> tuple[MappingProblem, ...]:
        """What does not make sense in a mapping (YAML) under that version.

        Raises:
            NotFoundError: no such version.
            MappingError, SettingsError: no mapping at all.
        """
        return check_mapping(parse_mapping(text, source="mapping"), self.ontology(digest))

    def _is_published(self, digest: Digest) -> bool:
        try:
            self._catalogue.record(digest)
        except NotFoundError:
            return False
        return True

    def _remember(self, ontology: Ontology) -> None:
        with self._lock:
            self._parsed[ontology.digest] = ontology
            self._parsed.move_to_end(ontology.digest)
            while len(self._parsed) > _CACHED_VERSIONS:
                self._parsed.popitem(last=False)
