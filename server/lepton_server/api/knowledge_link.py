"""Ontology versions for the coordinator: kept here, or by a knowledge service of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio

from lepton_core.errors import LeptonError, NotFoundError
from lepton_core.ids import Digest
from lepton_core.job import Task
from lepton_core.ports import Clock
from lepton_kg.ontology import Ontology, load_canonical
from lepton_kg.service import Knowledge
from lepton_kg.store import FolderOntologyStore
from lepton_kg.task import resolve_task
from lepton_protos.channel import Endpoint, open_aio_channel, open_channel
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import kg_pb2 as pb
from lepton_protos.v1 import kg_pb2_grpc

#: A knowledge service that takes longer does not hold a researcher's submission up any further.
DEADLINE_S = 20.0
_CACHED_VERSIONS = 8


class KnowledgeSource(Protocol):
    """What the coordinator asks of ontologies; messages, since it hands them on."""

    async def publish(self, request: pb.PublishOntologyRequest) -> pb.OntologyVersion:
        """Keep a version."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """Canonical bytes of a version; NotFoundError if there is none."""
        ...

    async def versions(self) -> pb.OntologyList:
        """All versions, oldest first."""
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


class EmbeddedKnowledge:
    """Ontologies in a folder of the coordinator's; parsing and hashing run in threads."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._knowledge = Knowledge(FolderOntologyStore(folder), clock)

    async def publish(self, request: pb.PublishOntologyRequest) -> pb.OntologyVersion:
        """Keep a version."""
        return await asyncio.to_thread(self._publish, request)

    async def get(self, digest: Digest) -> bytes:
        """Canonical bytes of a version."""
        return await asyncio.to_thread(self._knowledge.get, digest)

    async def versions(self) -> pb.OntologyList:
        """All versions, oldest first."""
        return pb.OntologyList(versions=await asyncio.to_thread(self._records))

    def check_task(self, task: Task) -> None:
        """Refuse a task whose concepts are not in its ontology."""
        resolve_task(task, self._knowledge.ontology(Digest(task.ontology)))

    async def close(self) -> None:
        """Nothing to release."""

    def _publish(self, request: pb.PublishOntologyRequest) -> pb.OntologyVersion:
        digest = self._knowledge.publish(
            request.document, format=request.format or "turtle", label=request.label[:300], source="upload"
        )
        return next(version for version in self._records() if version.digest == digest)

    def _records(self) -> list[pb.OntologyVersion]:
        return [
            pb.OntologyVersion(
                digest=record.digest, label=record.label, concepts=record.concepts, published=record.published
            )
            for record in self._knowledge.list()
        ]


class RemoteKnowledge:
    """A knowledge service behind mutual TLS, which knows the coordinator by its certificate."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._channel = open_aio_channel(endpoint)
        self._stub = kg_pb2_grpc.KnowledgeStub(self._channel)
        self._endpoint = endpoint
        self._parsed: OrderedDict[Digest, Ontology] = OrderedDict()
        self._lock = threading.Lock()

    async def publish(self, request: pb.PublishOntologyRequest) -> pb.OntologyVersion:
        """Keep a version."""
        try:
            version: pb.OntologyVersion = await self._stub.Publish(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as failure:
            raise _error(failure) from None
        return version

    async def get(self, digest: Digest) -> bytes:
        """Canonical bytes of a version."""
        try:
            reply = await self._stub.Get(pb.GetOntologyRequest(digest=digest), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as failure:
            raise _error(failure) from None
        canonical: bytes = reply.canonical
        return canonical

    async def versions(self) -> pb.OntologyList:
        """All versions, oldest first."""
        try:
            versions: pb.OntologyList = await self._stub.List(pb.ListOntologiesRequest(), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as failure:
            raise _error(failure) from None
        return versions

    def check_task(self, task: Task) -> None:
        """Refuse a task whose concepts are not in its ontology."""
        resolve_task(task, self._ontology(Digest(task.ontology)))

    async def close(self) -> None:
        """Release connections."""
        await self._channel.close(None)

    def _ontology(self, digest: Digest) -> Ontology:
        with self._lock:
            if digest in self._parsed:
                self._parsed.move_to_end(digest)
                return self._parsed[digest]
        # `check_task` runs in the coordinator's thread and waits for its answer there; once a version, as it is kept.
        with open_channel(self._endpoint) as channel:
            try:
                reply = kg_pb2_grpc.KnowledgeStub(channel).Get(pb.GetOntologyRequest(digest=digest), timeout=DEADLINE_S)
            except grpc.RpcError as failure:
                raise _error(failure) from None
        ontology = load_canonical(reply.canonical, digest)
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
