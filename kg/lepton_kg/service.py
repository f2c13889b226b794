"""The knowledge service without a transport: publish, get, list and resolve ontology versions."""

from __future__ import annotations

import threading
import unicodedata
from collections import OrderedDict

from lepton_core.ids import Digest
from lepton_core.ports import Clock
from lepton_kg.ontology import Concept, Ontology, load_canonical, parse_ontology
from lepton_kg.store import OntologyRecord, OntologyStore

#: Parsed versions kept in memory.
_CACHED_VERSIONS = 8


class Knowledge:
    """Ontology versions by hash; safe to call from several threads."""

    def __init__(self, store: OntologyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        #: Last used last.
        self._parsed: OrderedDict[Digest, Ontology] = OrderedDict()

    def publish(self, data: bytes, *, format: str, label: str = "", source: str = "upload") -> Digest:
        """The hash of the ontology in the document, now durable; the same statements again change nothing.

        Raises:
            OntologyError: the document is refused.
            FaultError: the store failed.
        """
        ontology = parse_ontology(data, format=format, source=source)
        self._store.put(
            OntologyRecord(
                digest=ontology.digest,
                label=label,
                published=self._clock.now(),
                concepts=len(ontology.concepts),
                canonical_bytes=len(ontology.canonical),
            ),
            ontology.canonical,
        )
        self._remember(ontology)
        return ontology.digest

    def get(self, digest: Digest) -> bytes:
        """The canonical N-Quads of that version.

        Raises:
            NotFoundError: no such version.
        """
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
        loaded = load_canonical(self._store.get(digest), digest)
        self._remember(loaded)
        return loaded

    def list(self) -> tuple[OntologyRecord, ...]:
        """All published versions, oldest first."""
        return self._store.list()

    def resolve(self, digest: Digest, label: str) -> tuple[Concept, ...]:
        """The concepts of that IRI, label or synonym in any language, whatever the case, sorted by IRI.

        Raises:
            NotFoundError: no such version.
        """
        wanted = _folded(label)
        return tuple(
            concept
            for _, concept in sorted(self.ontology(digest).concepts.items())
            if label == concept.iri
            or wanted in {_folded(name) for name in (*concept.labels.values(), *concept.synonyms)}
        )

    def _remember(self, ontology: Ontology) -> None:
        with self._lock:
            self._parsed[ontology.digest] = ontology
            self._parsed.move_to_end(ontology.digest)
            while len(self._parsed) > _CACHED_VERSIONS:
                self._parsed.popitem(last=False)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
