"""Ontology versions kept by a knowledge service of its own, which the coordinator asks in everybody's place."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio

from lepton_core.errors import LeptonError, NotFoundError
from lepton_core.ids import Digest
from lepton_core.task import Task
from lepton_kg.ontology import Ontology, load_canonical
from lepton_kg.rdf import require_size
from lepton_kg.task import resolve_task
from lepton_protos.channel import Endpoint, open_aio_channel, open_channel
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import kg_pb2 as pb
from lepton_protos.v1 import kg_pb2_grpc

#: A knowledge service that takes longer does not hold a researcher's submission up any further.
DEADLINE_S = 20.0
#: Parsing and hashing the largest document takes about a minute on one core.
PUBLISH_DEADLINE_S = 180.0
_CACHED_VERSIONS = 8
M = TypeVar("M")


class RemoteKnowledge:
    """A knowledge service behind mutual TLS, which knows the coordinator by its certificate."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._channel = open_aio_channel(endpoint)
        self._stub: Any = kg_pb2_grpc.KnowledgeServiceStub(self._channel)
        self._endpoint = endpoint
        self._parsed: OrderedDict[Digest, Ontology] = OrderedDict()
        self._lock = threading.Lock()

    async def publish(self, requests: AsyncIterator[pb.PublishOntologyRequest]) -> pb.OntologyVersion:
        """Keep a version; the document passes through in pieces."""
        return await self._ask(pb.OntologyVersion, self._stub.Publish, requests, PUBLISH_DEADLINE_S)

    async def get(self, digest: Digest) -> bytes:
        """Canonical bytes of a version."""
        canonical = bytearray()
        try:
            async for reply in self._stub.Get(pb.GetOntologyRequest(digest=digest), timeout=DEADLINE_S):
                require_size(len(canonical) + len(reply.canonical), "knowledge service")
                canonical += reply.canonical
        except grpc.aio.AioRpcError as failure:
            raise _error(failure) from None
        return bytes(canonical)

    async def versions(self) -> pb.OntologyList:
        """All versions, oldest first."""
        return await self._ask(pb.OntologyList, self._stub.List, pb.ListOntologiesRequest())

    async def diff(self, request: pb.DiffOntologiesRequest) -> pb.OntologyDiff:
        """What changed between two versions."""
        return await self._ask(pb.OntologyDiff, self._stub.Diff, request)

    async def approve(self, request: pb.ApproveOntologyRequest) -> pb.OntologyVersion:
        """Vouch for a version."""
        return await self._ask(pb.OntologyVersion, self._stub.Approve, request)

    async def deprecate(self, request: pb.DeprecateOntologyRequest) -> pb.OntologyVersion:
        """Take a version out of use for new work."""
        return await self._ask(pb.OntologyVersion, self._stub.Deprecate, request)

    async def resolve(self, request: pb.ResolveRequest) -> pb.ConceptList:
        """Concepts by IRI, code, label or synonym."""
        return await self._ask(pb.ConceptList, self._stub.Resolve, request)

    async def closure(self, request: pb.ClosureRequest) -> pb.ClosureList:
        """Every narrower or broader concept."""
        return await self._ask(pb.ClosureList, self._stub.Closure, request)

    async def value_set(self, request: pb.ValueSetRequest) -> pb.ValueList:
        """The permitted values of a coded concept."""
        return await self._ask(pb.ValueList, self._stub.ValueSet, request)

    async def validate_mapping(self, request: pb.ValidateMappingRequest) -> pb.MappingReport:
        """What does not make sense in a mapping."""
        return await self._ask(pb.MappingReport, self._stub.ValidateMapping, request)

    def check_task(self, task: Task) -> None:
        """Refuse a task whose concepts are not in its ontology."""
        resolve_task(task, self._ontology(Digest(task.ontology)))

    async def close(self) -> None:
        """Release connections."""
        await self._channel.close(None)

    async def _ask(self, kind: type[M], call: Any, request: object, timeout_s: float = DEADLINE_S) -> M:
        try:
            reply = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as failure:
            raise _error(failure) from None
        if not isinstance(reply, kind):
            raise TypeError(kind)
        return reply

    def _ontology(self, digest: Digest) -> Ontology:
        with self._lock:
            if digest in self._parsed:
                self._parsed.move_to_end(digest)
                return self._parsed[digest]
        # `check_task` runs in the coordinator's thread and waits for its answer there; once a version, as it is kept.
        with open_channel(self._endpoint) as channel:
            stub: Any = kg_pb2_grpc.KnowledgeServiceStub(channel)
            try:
                replies: Iterable[pb.OntologyBytes] = stub.Get(pb.GetOntologyRequest(digest=digest), timeout=DEADLINE_S)
                canonical = bytearray()
                for reply in replies:
                    require_size(len(canonical) + len(reply.canonical), "knowledge service")
                    canonical += reply.canonical
            except grpc.RpcError as failure:
                raise _error(failure) from None
        ontology = load_canonical(bytes(canonical), digest)
        with self._lock:
            self._parsed[digest] = ontology
            while len(self._parsed) > _CACHED_VERSIONS:
                self._parsed.popitem(last=False)
        return ontology


def _error(failure: grpc.RpcError) -> LeptonError:
    error = error_from_rpc(failure)
    if not isinstance(error, NotFoundError) and not error.where:
        error.where = "knowledge service"
    return error
