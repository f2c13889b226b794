"""The serving process of the transfer benchmark: production's servicer, folder and sums, and a bare stream beside them.

`python -m benchmarks.transfer_server FOLDER`: writes an endpoint's files to FOLDER/client when calls are answered, and
runs until its standard input ends. What stands in for the coordinator is its word on who may upload what: everybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import ssl
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio

from lepton_core.ids import Digest, JobId, MemberId, OwnerName, RoundNumber, digest_of
from lepton_core.ports import SystemClock
from lepton_pool.memory import keep_freed_memory
from lepton_protos.channel import (
    CHUNK_BYTES,
    SERVER_OPTIONS,
    Endpoint,
    load_endpoint,
    save_endpoint,
    server_credentials,
)
from lepton_protos.chunks import split_chunk
from lepton_protos.durable import write_all
from lepton_protos.spooling import MOST_WAITING
from lepton_protos.v1 import transfer_pb2 as pb
from lepton_server.api.bulk_port import BulkPort
from lepton_server.api.guard import Call
from lepton_server.api.tls import tls_context
from lepton_server.api.transfer_servicer import Chunk, TransferService
from lepton_server.identity.ca import KeyPair, Subject, fingerprint_of, make_ca
from lepton_server.identity.principals import Principal
from lepton_server.identity.roles import Role
from lepton_server.rounds.sums import RunningSums
from lepton_server.store.artifacts import FolderArtifacts

#: What the bare stream sends down, chunk by chunk and again from the start; larger than any cache.
_BARE = os.urandom(32 * CHUNK_BYTES)
_DAY_S = 86_400.0


class _Everybody:
    """Lets everybody upload and download."""

    def may_upload(self, member: MemberId, job: JobId, number: RoundNumber, size: int) -> None:
        """Yes."""

    def may_download(self, *whose: object) -> None:
        """Yes."""

    def require_current(self, principal: Principal, *, now: float) -> None:
        """Yes."""


class _Here:
    """Calls functions at once."""

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """The function's result."""
        return function(*args)


class Bench:
    """The production servicer and, by raw bytes, the bare stream and the sums."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = FolderArtifacts(folder / "artifacts")
        everybody: Any = _Everybody()
        here: Any = _Here()
        self.principal = _principal(folder)
        self.bulk = BulkPort("127.0.0.1:0", _tls(folder), self.artifacts, everybody, SystemClock())
        self.service = TransferService(everybody, here, self.artifacts, self.bulk)
        self.sums = RunningSums(self.artifacts)
        self.setup: Any = None

    def handlers(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """What is served."""
        made: Any = grpc.method_handlers_generic_handler
        return [
            made(
                "lepton.v1.Transfer",
                {
                    "Put": grpc.stream_stream_rpc_method_handler(
                        self._put, lambda raw: split_chunk(pb.UploadChunk, raw), pb.UploadStatus.SerializeToString
                    ),
                    "Download": grpc.unary_stream_rpc_method_handler(self._download, pb.DownloadRequest.FromString),
                    "UploadTicket": grpc.unary_unary_rpc_method_handler(
                        self._upload_ticket, pb.UploadStatusRequest.FromString, pb.BulkTicket.SerializeToString
                    ),
                    "DownloadTicket": grpc.unary_unary_rpc_method_handler(
                        self._download_ticket, pb.DownloadRequest.FromString, pb.BulkTicket.SerializeToString
                    ),
                    "Status": grpc.unary_unary_rpc_method_handler(
                        self._status, pb.UploadStatusRequest.FromString, pb.UploadStatus.SerializeToString
                    ),
                },
            ),
            made(
                "bench.Bare",
                {
                    "Up": grpc.stream_unary_rpc_method_handler(self._bare_up),
                    "Kept": grpc.stream_unary_rpc_method_handler(self._bare_kept),
                    "Down": grpc.unary_stream_rpc_method_handler(self._bare_down),
                    "Add": grpc.unary_unary_rpc_method_handler(self._add),
                    "Total": grpc.unary_unary_rpc_method_handler(self._total),
                    "Memory": grpc.unary_unary_rpc_method_handler(_memory),
                    "Processor": grpc.unary_unary_rpc_method_handler(_processor),
                },
            ),
        ]

    async def _put(self, chunks: AsyncIterator[Chunk], _: Any) -> AsyncIterator[pb.UploadStatus]:
        async for status in self.service.put(chunks, self._call()):
            yield status

    async def _status(self, request: pb.UploadStatusRequest, _: Any) -> pb.UploadStatus:
        return await self.service.status(request, self._call())

    async def _download(self, request: pb.DownloadRequest, _: Any) -> AsyncIterator[bytes]:
        async for chunk in self.service.download(request, self._call()):
            yield chunk

    async def _upload_ticket(self, request: pb.UploadStatusRequest, _: Any) -> pb.BulkTicket:
        return await self.service.upload_ticket(request, self._call())

    async def _download_ticket(self, request: pb.DownloadRequest, _: Any) -> pb.BulkTicket:
        return await self.service.download_ticket(request, self._call())

    def _call(self) -> Call:
        return Call(self.principal, "/lepton.v1.Transfer/Put")

    async def _bare_up(self, chunks: AsyncIterator[bytes], _: Any) -> bytes:
        total = 0
        async for chunk in chunks:
            total += len(chunk)
        return str(total).encode()

    async def _bare_kept(self, chunks: AsyncIterator[bytes], _: Any) -> bytes:
        """The bare stream, each chunk hashed and written in a thread while the next ones come."""
        hasher, waiting, end = hashlib.sha256(), deque[asyncio.Future[None]](), 0
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryFile(dir=self.folder) as file, ThreadPoolExecutor(1) as thread:

            def keep(chunk: bytes, offset: int) -> None:
                write_all(file.fileno(), chunk, offset)
                hasher.update(chunk)

            async for chunk in chunks:
                if len(waiting) == MOST_WAITING:
                    await waiting.popleft()
                waiting.append(loop.run_in_executor(thread, keep, chunk, end))
                end += len(chunk)
            await asyncio.gather(*waiting)
        return hasher.digest()

    async def _bare_down(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            start = number % 32 * CHUNK_BYTES
            yield _BARE[start : start + CHUNK_BYTES]

    async def _add(self, request: bytes, _: Any) -> bytes:
        """Add an uploaded input to the round's sum; `words digest`."""
        words, digest = request.decode().split()
        if self.setup is None:
            self.setup = SimpleNamespace(job="job", round=1, terms=SimpleNamespace(words=int(words)))
        await asyncio.to_thread(self.sums.add, self.setup, Digest(digest))
        return b""

    async def _total(self, request: bytes, _: Any) -> bytes:
        total = self.sums.total(self.setup, [Digest(digest) for digest in request.decode().split()])
        return digest_of(total.tobytes()).encode()


async def _memory(request: bytes, _: Any) -> bytes:
    del request
    return str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode()


async def _processor(request: bytes, _: Any) -> bytes:
    del request
    return str(time.process_time()).encode()


def _principal(folder: Path) -> Principal:
    return Principal(
        name=OwnerName("bench"),
        role=Role.OWNER,
        member=MemberId(bytes(16)),
        fingerprint=fingerprint_of(load_endpoint(folder / "client").certificate),
        serial="",
        issued=0.0,
        expires=0.0,
    )


def _tls(folder: Path) -> ssl.SSLContext:
    mine = load_endpoint(folder / "server")
    certificate, key = folder / "server" / "cert.pem", folder / "server" / "key.pem"
    return tls_context(certificate, key, ca_certificate=mine.ca_certificate, least=ssl.TLSVersion.TLSv1_3)


def _make_credentials(folder: Path) -> None:
    """Keys and certificates of both sides, which a server that comes back shows again."""
    authority, now = make_ca(now=time.time()), time.time()
    for name, subject, hosts in (
        ("server", Subject("coordinator", "bench"), ["127.0.0.1"]),
        ("client", Subject("owner", "bench"), []),
    ):
        keys = KeyPair.generate()
        issued = authority.issue(keys.public, subject, now=now, valid_s=_DAY_S, hosts=hosts)
        endpoint = Endpoint("127.0.0.1:0", authority.certificate, issued.certificate, keys.to_pem())
        save_endpoint(folder / name, endpoint)


async def serve(folder: Path) -> None:
    """Serve until standard input ends."""
    keep_freed_memory()
    if not (folder / "server").exists():
        _make_credentials(folder)
    mine = load_endpoint(folder / "server")
    server = grpc.aio.server(options=SERVER_OPTIONS)
    bench = Bench(folder)
    server.add_generic_rpc_handlers(bench.handlers())
    credentials = server_credentials(certificate=mine.certificate, key=mine.key, ca_certificate=mine.ca_certificate)
    port = server.add_secure_port(mine.address, credentials)
    await server.start()
    bench.bulk.start()
    address = f"127.0.0.1:{port}"
    save_endpoint(folder / "server", replace(mine, address=address))
    save_endpoint(folder / "client", replace(load_endpoint(folder / "client"), address=address))
    (folder / "ready").touch()
    await asyncio.to_thread(sys.stdin.read)
    bench.bulk.stop()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
