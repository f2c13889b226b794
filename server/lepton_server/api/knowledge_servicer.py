"""`KnowledgeService`: ontology versions published, read, compared, vouched for and looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from lepton_core.errors import InputError
from lepton_core.ids import require_digest
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.v1 import kg_pb2 as pb
from lepton_server.api.guard import Call
from lepton_server.api.knowledge_link import KnowledgeSource
from lepton_server.identity.roles import Role

#: A document's pieces come at least this often, and all of them within this time.
_PIECE_DEADLINE_S = 30.0
_UPLOAD_DEADLINE_S = 120.0
#: Most texts of one request, and the longest of them.
_MOST_TEXTS = 1_000
_LONGEST_TEXT = 1_000


class KnowledgeService:
    """Ontology versions by hash, wherever they are kept."""

    service = pb.DESCRIPTOR.services_by_name["KnowledgeService"]

    def __init__(self, source: KnowledgeSource) -> None:
        self._source = source

    async def publish(self, requests: AsyncIterator[pb.PublishOntologyRequest], call: Call) -> pb.OntologyVersion:
        """The version's record, once the document has come whole and is durable."""
        return await self._source.publish(_pieces(requests, call))

    async def get(self, request: pb.GetOntologyRequest, _call: Call) -> AsyncIterator[pb.OntologyBytes]:
        """Canonical N-Quads in chunks; the receiver checks their hash."""
        canonical = await self._source.get(require_digest(request.digest, "ontology hash"))
        for start in range(0, len(canonical), CHUNK_BYTES):
            yield pb.OntologyBytes(canonical=canonical[start : start + CHUNK_BYTES])

    async def list(self, _request: pb.ListOntologiesRequest, _call: Call) -> pb.OntologyList:
        """All versions, oldest first."""
        return await self._source.versions()

    async def diff(self, request: pb.DiffOntologiesRequest, _call: Call) -> pb.OntologyDiff:
        """What the new version has, lacks and says otherwise."""
        require_digest(request.old_digest, "ontology hash")
        require_digest(request.new_digest, "ontology hash")
        return await self._source.diff(request)

    async def approve(self, request: pb.ApproveOntologyRequest, call: Call) -> pb.OntologyVersion:
        """The version, with the caller among those who vouch for it."""
        require_digest(request.digest, "ontology hash")
        request.actor = _actor(request.actor, call)
        return await self._source.approve(request)

    async def deprecate(self, request: pb.DeprecateOntologyRequest, call: Call) -> pb.OntologyVersion:
        """The version, now deprecated."""
        require_digest(request.digest, "ontology hash")
        if request.replaced_by:
            require_digest(request.replaced_by, "hash of the version that replaces it")
        if not request.reason.strip():
            raise InputError("a version is deprecated for a reason", where="reason", expected="a sentence")
        request.actor = _actor(request.actor, call)
        return await self._source.deprecate(request)

    async def resolve(self, request: pb.ResolveRequest, _call: Call) -> pb.ConceptList:
        """The concepts that each text names; a text that names none is not in the answer."""
        require_digest(request.digest, "ontology hash")
        if len(request.texts) > _MOST_TEXTS or any(len(text) > _LONGEST_TEXT for text in request.texts):
            raise InputError(
                "more text than is looked up at once",
                where="texts",
                expected=f"at most {_MOST_TEXTS} texts of at most {_LONGEST_TEXT} characters",
                got=f"{len(request.texts)} texts",
            )
        return await self._source.resolve(request)

    async def closure(self, request: pb.ClosureRequest, _call: Call) -> pb.ClosureList:
        """Every narrower concept, or every broader one, with its distance."""
        require_digest(request.digest, "ontology hash")
        return await self._source.closure(request)

    async def value_set(self, request: pb.ValueSetRequest, _call: Call) -> pb.ValueList:
        """The permitted values of a coded concept."""
        require_digest(request.digest, "ontology hash")
        return await self._source.value_set(request)

    async def validate_mapping(self, request: pb.ValidateMappingRequest, _call: Call) -> pb.MappingReport:
        """What does not make sense in a mapping under that version; the mapping is not kept."""
        require_digest(request.digest, "ontology hash")
        return await self._source.validate_mapping(request)


async def _pieces(
    requests: AsyncIterator[pb.PublishOntologyRequest], call: Call
) -> AsyncIterator[pb.PublishOntologyRequest]:
    """The messages as they come, each within its deadline, the first one with who publishes."""
    first = True
    loop = asyncio.get_running_loop()
    end = loop.time() + _UPLOAD_DEADLINE_S
    while True:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + _PIECE_DEADLINE_S)):
                request = await anext(requests, None)
        except TimeoutError:
            raise InputError(
                "the document does not come",
                expected=f"a piece every {_PIECE_DEADLINE_S:g} s, and all within {_UPLOAD_DEADLINE_S:g} s",
                reason="TOO_SLOW",
            ) from None
        if request is None:
            return
        if first:
            request.actor = _actor(request.actor, call)
            first = False
        yield request


def _actor(named: str, call: Call) -> str:
    """For whom it is done: the caller, or whom the coordinator names, which has asked about the role."""
    return named[:63] if call.principal.role is Role.SERVICE and named else call.principal.name
