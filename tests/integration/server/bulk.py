"""Tickets for bulk connections, and connections that show them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lepton_protos.bulk import BulkConnection, BulkDialer
from lepton_protos.v1 import transfer_pb2 as pb
from lepton_protos.v1 import transfer_pb2_grpc
from tests.integration.server.running import DEADLINE_S, Party, calling


async def ticket_up(party: Party, digest: str, size: int, **where: object) -> pb.BulkTicket:
    request = pb.UploadStatusRequest(header=pb.UploadHeader(digest=digest, size=size, **where))
    async with calling(party) as channel:
        return await transfer_pb2_grpc.TransferStub(channel).UploadTicket(request, timeout=DEADLINE_S)


async def ticket_down(party: Party, digest: str, offset: int = 0) -> pb.BulkTicket:
    request = pb.DownloadRequest(digest=digest, offset=offset)
    async with calling(party) as channel:
        return await transfer_pb2_grpc.TransferStub(channel).DownloadTicket(request, timeout=DEADLINE_S)


@contextlib.contextmanager
def connected(party: Party, ticket: pb.BulkTicket) -> Iterator[BulkConnection]:
    """A connection that has shown this ticket."""
    connection = BulkDialer(party.endpoint).dial(ticket.port)
    connection.allow_silence(DEADLINE_S)
    try:
        connection.open_with(ticket.ticket)
        yield connection
    finally:
        connection.close()
