"""What the coordinator asks of ontologies, wherever they are kept: here, or by a knowledge service of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from lepton_core.ids import Digest
from lepton_core.task import Task
from lepton_protos.v1 import kg_pb2 as pb


class KnowledgeSource(Protocol):
    """Messages in and out, since the coordinator hands them on. Requests have been checked by the servicer."""

    async def publish(self, requests: AsyncIterator[pb.PublishOntologyRequest]) -> pb.OntologyVersion:
        """Keep a version. The first message bears format, label and actor."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """Canonical bytes of a version; NotFoundError if there is none."""
        ...

    async def versions(self) -> pb.OntologyList:
        """All versions, oldest first."""
        ...

    async def diff(self, request: pb.DiffOntologiesRequest) -> pb.OntologyDiff:
        """What changed between two versions."""
        ...

    async def approve(self, request: pb.ApproveOntologyRequest) -> pb.OntologyVersion:
        """Vouch for a version."""
        ...

    async def deprecate(self, request: pb.DeprecateOntologyRequest) -> pb.OntologyVersion:
        """Take a version out of use for new work."""
        ...

    async def resolve(self, request: pb.ResolveRequest) -> pb.ConceptList:
        """Concepts by IRI, code, label or synonym."""
        ...

    async def closure(self, request: pb.ClosureRequest) -> pb.ClosureList:
        """Every narrower or broader concept."""
        ...

    async def value_set(self, request: pb.ValueSetRequest) -> pb.ValueList:
        """The permitted values of a coded concept."""
        ...

    async def validate_mapping(self, request: pb.ValidateMappingRequest) -> pb.MappingReport:
        """What does not make sense in a mapping."""
        ...

    def check_task(self, task: Task) -> None:
        """Refuse a task whose concepts are not in its ontology; blocks, so not on the event loop.

        Raises:
            JobError: names the concept, and the closest one.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
