"""Ontology versions kept by this process: files, an index for queries, and the database's catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from lepton_core.errors import InputError
from lepton_core.ids import Digest
from lepton_core.ports import Clock
from lepton_core.task import Task
from lepton_kg.catalogue import VersionApproval, VersionRecord
from lepton_kg.concept import Concept
from lepton_kg.index import OntologyIndex
from lepton_kg.rdf import require_size
from lepton_kg.service import Knowledge
from lepton_kg.store import FolderOntologyStore
from lepton_kg.task import resolve_task
from lepton_protos.v1 import kg_pb2 as pb
from lepton_server.api.knowledge_catalogue import StoreCatalogue
from lepton_server.store.port import Store

#: Most concepts, changes or values of one answer, so that it fits a message; SPARQL gives more.
LARGEST_ANSWER = 10_000
_log = structlog.get_logger("lepton.knowledge")

#: Documents that are in memory at once: one is read, one is waited for.
_PUBLISHING_AT_ONCE = 2


class EmbeddedKnowledge:
    """Ontologies in a folder and a store of this process; whatever takes time runs in threads.

    Raises:
        FaultError: the folder cannot be used.
    """

    def __init__(self, folder: Path, store: Store, clock: Clock) -> None:
        #: For queries; other processes may open what is in it.
        self.index = OntologyIndex(folder / "index")
        self._files = FolderOntologyStore(folder)
        self._knowledge = Knowledge(self._files, StoreCatalogue(store), clock, index=self.index)
        self._knowledge.adopt_earlier()
        swept = self._knowledge.sweep()
        if swept:
            _log.info("unfinished publications taken away", versions=swept)
        self._places = asyncio.Semaphore(_PUBLISHING_AT_ONCE)

    async def publish(self, requests: AsyncIterator[pb.PublishOntologyRequest]) -> pb.OntologyVersion:
        """Keep a version; a document that is too large is refused before it is in memory."""
        async with self._places:
            document = bytearray()
            first: pb.PublishOntologyRequest | None = None
            async for request in requests:
                first = request if first is None else first
                require_size(len(document) + len(request.document), "upload")
                document += request.document
            if first is None:
                raise InputError("a publication without a message", expected="format and document", got="nothing")
            name, label, actor = first.format or "turtle", first.label[:300], first.actor
            record = await asyncio.to_thread(
                self._knowledge.publish, bytes(document), format=name, label=label, publisher=actor
            )
        return await asyncio.to_thread(self._version, record)

    async def get(self, digest: Digest) -> bytes:
        """Canonical bytes of a version."""
        return await asyncio.to_thread(self._knowledge.get, digest)

    async def versions(self) -> pb.OntologyList:
        """All versions, oldest first."""
        return pb.OntologyList(versions=await asyncio.to_thread(lambda: [*map(self._version, self._knowledge.list())]))

    async def diff(self, request: pb.DiffOntologiesRequest) -> pb.OntologyDiff:
        """What changed between two versions."""
        found = await asyncio.to_thread(self._knowledge.diff, Digest(request.old_digest), Digest(request.new_digest))
        _require_few(len(found.added) + len(found.removed) + len(found.changed), "changes")
        return pb.OntologyDiff(
            added=found.added,
            removed=found.removed,
            changed=[
                pb.ConceptChange(
                    iri=change.iri,
                    fields=[
                        pb.FieldChange(field=field.field, old_text=field.old[:1_000], new_text=field.new[:1_000])
                        for field in change.fields
                    ],
                )
                for change in found.changed
            ],
            statements_added=found.statements_added,
            statements_removed=found.statements_removed,
        )

    async def approve(self, request: pb.ApproveOntologyRequest) -> pb.OntologyVersion:
        """Vouch for a version."""
        digest = Digest(request.digest)
        await asyncio.to_thread(self._knowledge.approve, digest, actor=request.actor, note=request.note[:2_000])
        return await asyncio.to_thread(lambda: self._version(self._knowledge.record(digest)))

    async def deprecate(self, request: pb.DeprecateOntologyRequest) -> pb.OntologyVersion:
        """Take a version out of use for new work."""
        record = await asyncio.to_thread(
            self._knowledge.deprecate,
            Digest(request.digest),
            actor=request.actor,
            reason=request.reason[:2_000],
            replaced_by=request.replaced_by,
        )
        return await asyncio.to_thread(self._version, record)

    async def resolve(self, request: pb.ResolveRequest) -> pb.ConceptList:
        """Concepts by IRI, code, label or synonym."""
        digest = Digest(request.digest)
        found = await asyncio.to_thread(
            lambda: [(text, concept) for text in request.texts for concept in self._knowledge.resolve(digest, text)]
        )
        _require_few(len(found), "concepts")
        return pb.ConceptList(found=[_found(text, concept) for text, concept in found])

    async def closure(self, request: pb.ClosureRequest) -> pb.ClosureList:
        """Every narrower or broader concept, nearest first."""
        found = await asyncio.to_thread(
            self._knowledge.closure, Digest(request.digest), request.iri, upward=request.upward
        )
        _require_few(len(found), "concepts")
        nearest = sorted(found.items(), key=lambda pair: (pair[1], pair[0]))
        return pb.ClosureList(concepts=[pb.RelatedConcept(iri=iri, steps=steps) for iri, steps in nearest])

    async def value_set(self, request: pb.ValueSetRequest) -> pb.ValueList:
        """The permitted values of a coded concept."""
        found = await asyncio.to_thread(self._knowledge.value_set, Digest(request.digest), request.iri)
        _require_few(len(found), "values")
        return pb.ValueList(
            values=[
                pb.PermittedValue(
                    iri=value.iri, notation=value.notation or "", labels=value.labels, synonyms=value.synonyms
                )
                for value in found
            ]
        )

    async def validate_mapping(self, request: pb.ValidateMappingRequest) -> pb.MappingReport:
        """What does not make sense in a mapping."""
        found = await asyncio.to_thread(self._knowledge.check_mapping, Digest(request.digest), request.mapping)
        return pb.MappingReport(
            problems=[
                pb.MappingProblem(
                    column=problem.column,
                    reason=problem.reason,
                    message=problem.message + (f", code {problem.code!r}" if problem.code else ""),
                    expected=problem.expected,
                    got=problem.got,
                    hint=problem.hint,
                )
                for problem in found[:LARGEST_ANSWER]
            ]
        )

    def check_task(self, task: Task) -> None:
        """Refuse a task whose concepts are not in its ontology."""
        resolve_task(task, self._knowledge.ontology(Digest(task.ontology)))

    async def close(self) -> None:
        """Nothing to release."""

    def ready_index(self, digest: Digest) -> Path:
        """Where the version's triple store lies, built from its bytes if it is not there; blocks.

        Raises:
            NotFoundError: no such version.
        """
        if not self.index.has(digest):
            self._knowledge.get(digest)  # checked against its hash
            return self.index.build(digest, self._files.path(digest))
        return self.index.path(digest)

    def records(self) -> tuple[VersionRecord, ...]:
        """All versions, oldest first; blocks."""
        return self._knowledge.list()

    def _version(self, record: VersionRecord) -> pb.OntologyVersion:
        approvals = self._knowledge.approvals(Digest(record.digest))
        return pb.OntologyVersion(**vars(record), approvals=[_approval(approval) for approval in approvals])


def _approval(approval: VersionApproval) -> pb.OntologyApproval:
    return pb.OntologyApproval(approver=approval.approver, time=approval.time, note=approval.note)


def _found(text: str, concept: Concept) -> pb.FoundConcept:
    return pb.FoundConcept(
        text=text,
        iri=concept.iri,
        labels=concept.labels,
        synonyms=concept.synonyms,
        notations=concept.notations,
        datatype=concept.datatype or "",
        unit=concept.unit or "",
        quantity_kind=concept.quantity_kind or "",
        plausible_minimum=concept.plausible_minimum,
        plausible_maximum=concept.plausible_maximum,
        molar_mass_g_per_mol=concept.molar_mass_g_per_mol,
        missing_meaning=concept.missing_meaning or "",
        missing_codes=concept.missing_codes,
        broader=concept.broader,
    )


def _require_few(count: int, what: str) -> None:
    if count > LARGEST_ANSWER:
        raise InputError(
            f"more {what} than one answer holds",
            expected=f"at most {LARGEST_ANSWER}",
            got=str(count),
            hint="ask with SPARQL, which gives them in parts (LIMIT and OFFSET)",
            reason="TOO_LARGE",
        )
