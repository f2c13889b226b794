"""Calls about ontology versions over an open channel to a coordinator: plain values in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lepton_core.errors import PeerViolation
from lepton_core.ids import require_digest
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.v1 import kg_pb2

#: Longest a call may take, but for publishing.
CALL_TIMEOUT_S = 30.0
#: Parsing and hashing the largest document takes about a minute on one core.
PUBLISH_TIMEOUT_S = 200.0
#: Largest version that is taken into memory; none that is larger can be published.
LARGEST_ONTOLOGY = 64 * 2**20


@dataclass(frozen=True)
class OntologyVersion:
    """A published ontology version, addressed by the hash of its canonical form."""

    digest: str
    label: str
    concepts: int
    published: float
    publisher: str
    format: str
    importer: str
    #: 0.0 while it may be used for new jobs.
    deprecated: float
    deprecation_reason: str
    replaced_by: str
    #: Who vouches for it.
    approvers: tuple[str, ...]


@dataclass(frozen=True)
class FoundConcept:
    """A concept that a text names."""

    text: str
    iri: str
    labels: dict[str, str]
    unit: str


@dataclass(frozen=True)
class ConceptChange:
    """A concept that two versions describe differently: (field, old text, new text)."""

    iri: str
    fields: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class VersionDiff:
    """What the new version has, lacks and says otherwise."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[ConceptChange, ...]
    statements_added: int
    statements_removed: int


class OntologyCalls:
    """One method a call. Every method raises the coordinator's own typed error, or `FaultError` without an answer."""

    def __init__(self, stub: Callable[[], Any], typed_errors: Callable[[], AbstractContextManager[None]]) -> None:
        """`stub` gives the service's stub over the channel that is open now."""
        self._stub = stub
        self._typed_errors = typed_errors

    def publish(self, document: bytes, format: str, label: str) -> OntologyVersion:
        """Publish an ontology document; equal content gives the same version."""

        def pieces() -> Iterator[kg_pb2.PublishOntologyRequest]:
            yield kg_pb2.PublishOntologyRequest(document=document[:CHUNK_BYTES], format=format, label=label)
            for start in range(CHUNK_BYTES, len(document), CHUNK_BYTES):
                yield kg_pb2.PublishOntologyRequest(document=document[start : start + CHUNK_BYTES])

        with self._typed_errors():
            return _version(self._stub().Publish(pieces(), timeout=PUBLISH_TIMEOUT_S))

    def canonical(self, digest: str) -> bytes:
        """Canonical N-Quads of a version; the caller checks them against the digest."""
        canonical = bytearray()
        with self._typed_errors():
            for reply in self._stub().Get(kg_pb2.GetOntologyRequest(digest=digest), timeout=CALL_TIMEOUT_S):
                canonical += reply.canonical
                if len(canonical) > LARGEST_ONTOLOGY:
                    raise PeerViolation(
                        "an ontology larger than any that is published",
                        where="coordinator",
                        expected=f"at most {LARGEST_ONTOLOGY} bytes",
                        got="more",
                    )
        return bytes(canonical)

    def versions(self) -> tuple[OntologyVersion, ...]:
        """Every published version, oldest first."""
        with self._typed_errors():
            reply = self._stub().List(kg_pb2.ListOntologiesRequest(), timeout=CALL_TIMEOUT_S)
        return tuple(_version(version) for version in reply.versions)

    def diff(self, old: str, new: str) -> VersionDiff:
        """What changed from one version to another."""
        request = kg_pb2.DiffOntologiesRequest(old_digest=old, new_digest=new)
        with self._typed_errors():
            reply = self._stub().Diff(request, timeout=CALL_TIMEOUT_S)
        return VersionDiff(
            added=tuple(reply.added),
            removed=tuple(reply.removed),
            changed=tuple(
                ConceptChange(change.iri, tuple((one.field, one.old_text, one.new_text) for one in change.fields))
                for change in reply.changed
            ),
            statements_added=reply.statements_added,
            statements_removed=reply.statements_removed,
        )

    def approve(self, digest: str, note: str) -> OntologyVersion:
        """Vouch for a version."""
        request = kg_pb2.ApproveOntologyRequest(digest=digest, note=note)
        with self._typed_errors():
            return _version(self._stub().Approve(request, timeout=CALL_TIMEOUT_S))

    def deprecate(self, digest: str, reason: str, replaced_by: str) -> OntologyVersion:
        """Take a version out of use for new work."""
        request = kg_pb2.DeprecateOntologyRequest(digest=digest, reason=reason, replaced_by=replaced_by)
        with self._typed_errors():
            return _version(self._stub().Deprecate(request, timeout=CALL_TIMEOUT_S))

    def resolve(self, digest: str, texts: list[str]) -> tuple[FoundConcept, ...]:
        """The concepts that IRIs, codes, labels or synonyms name."""
        with self._typed_errors():
            reply = self._stub().Resolve(kg_pb2.ResolveRequest(digest=digest, texts=texts), timeout=CALL_TIMEOUT_S)
        return tuple(FoundConcept(one.text, one.iri, dict(one.labels), one.unit) for one in reply.found)

    def closure(self, digest: str, iri: str, *, upward: bool) -> tuple[tuple[str, int], ...]:
        """Every narrower concept, or every broader one, with its distance in steps, nearest first."""
        request = kg_pb2.ClosureRequest(digest=digest, iri=iri, upward=upward)
        with self._typed_errors():
            reply = self._stub().Closure(request, timeout=CALL_TIMEOUT_S)
        return tuple((concept.iri, concept.steps) for concept in reply.concepts)


def _version(message: kg_pb2.OntologyVersion) -> OntologyVersion:
    return OntologyVersion(
        digest=require_digest(message.digest, "ontology digest"),
        label=message.label,
        concepts=message.concepts,
        published=message.published,
        publisher=message.publisher,
        format=message.format,
        importer=message.importer,
        deprecated=message.deprecated,
        deprecation_reason=message.deprecation_reason,
        replaced_by=message.replaced_by,
        approvers=tuple(approval.approver for approval in message.approvals),
    )
