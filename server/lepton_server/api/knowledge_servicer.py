"""`Knowledge`: publish, get and list ontology versions."""

from __future__ import annotations

from lepton_core.errors import InputError
from lepton_core.ids import require_digest
from lepton_protos.channel import MESSAGE_BYTES
from lepton_protos.v1 import kg_pb2 as pb
from lepton_server.api.guard import Call
from lepton_server.api.knowledge_link import KnowledgeSource

#: Canonical bytes that fit one message, with room for its frame.
LARGEST_ONTOLOGY = MESSAGE_BYTES - 1_024


class KnowledgeService:
    """Ontology versions by hash, wherever they are kept."""

    service = pb.DESCRIPTOR.services_by_name["Knowledge"]

    def __init__(self, source: KnowledgeSource) -> None:
        self._source = source

    async def publish(self, request: pb.PublishOntologyRequest, _call: Call) -> pb.OntologyVersion:
        """The version's hash and size."""
        return await self._source.publish(request)

    async def get(self, request: pb.GetOntologyRequest, _call: Call) -> pb.OntologyBytes:
        """Canonical N-Quads; the receiver checks their hash."""
        canonical = await self._source.get(require_digest(request.digest, "ontology hash"))
        if len(canonical) > LARGEST_ONTOLOGY:
            raise InputError(
                "an ontology this large cannot be sent",
                where=request.digest,
                expected=f"at most {LARGEST_ONTOLOGY} bytes of canonical N-Quads",
                got=f"{len(canonical)} bytes",
                hint="publish the part that the federation uses",
            )
        return pb.OntologyBytes(canonical=canonical)

    async def list(self, _request: pb.ListOntologiesRequest, _call: Call) -> pb.OntologyList:
        """All versions, oldest first."""
        return await self._source.versions()
