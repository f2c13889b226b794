"""One try of an upload: chunks go out while the window is open, and acknowledgements open it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from lepton_core.errors import LeptonError
from lepton_core.send_window import SendWindow
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.chunks import encode_chunk
from lepton_protos.incoming import Progress
from lepton_protos.outgoing import require_complete
from lepton_protos.spooling import Piece
from lepton_protos.v1 import transfer_pb2

#: What a call gives at the end of its answers; grpc's annotations lack it.
_EOF: Any = vars(grpc.aio)["EOF"]


class Sending:
    """An upload over one open call of `Put`, from where the window begins to the end."""

    def __init__(
        self,
        call: Any,
        header: transfer_pb2.UploadHeader,
        read: Callable[[int], Awaitable[Piece]],
        window: SendWindow,
        progress: Progress,
    ) -> None:
        self._call = call
        self._header = header
        #: The chunk at an offset.
        self._read = read
        self._window = window
        self._progress = progress
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Return when the bytes are durable at the coordinator.

        Raises:
            grpc.RpcError: the call broke, or was refused.
            PeerViolation: the coordinator ended the call early.
            LeptonError: what is to be sent cannot be read.
        """
        sending = asyncio.create_task(self._send())
        complete = False
        try:
            while (status := await self._call.read()) is not _EOF:
                self._window.acknowledge(status.received, time.monotonic())
                self._moved.set()
                self._progress(status.received, self._header.size)
                complete = status.complete
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled() and isinstance(error := sending.exception(), LeptonError):
                raise error
        require_complete(complete=complete, acknowledged=self._window.acknowledged, size=self._header.size)

    async def _send(self) -> None:
        """The rest of the bytes; the first chunk carries the header, even if nothing is left."""
        try:
            start, size = self._window.acknowledged, self._header.size
            for offset in range(start, max(size, start + 1), CHUNK_BYTES):
                data = await self._read(offset)
                while not self._window.is_open:
                    self._moved.clear()
                    await self._moved.wait()
                head = transfer_pb2.UploadChunk(header=self._header if offset == start else None, offset=offset)
                chunk = encode_chunk(head, data)
                self._window.sent(offset + len(data), time.monotonic())
                await self._call.write(chunk)
            await self._call.done_writing()
        except LeptonError:
            self._call.cancel()
            raise
