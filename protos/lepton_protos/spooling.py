"""A transfer on its way to where it is kept: written in order by a thread while more comes in, synced now and then."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

Piece = bytes | memoryview

#: Bytes after which what came is synced in the background, so that the end has not all of it to wait for.
SYNC_BYTES = 16 * 2**20
#: Chunks of one transfer that have come and are not written yet, at most; flow control holds the sender back then.
MOST_WAITING = 4
#: Chunks that a thread writes for one transfer before it serves another.
_IN_ONE_GO = 8
#: Written chunks that the event loop is told of at once while more wait; waking it costs as much as hashing 64 KiB.
_AT_ONCE = 4
#: So long a thread waits for the next chunk: on a fast line, less than what handing it to another costs.
_LINGER_S = 0.005


class BackgroundSync:
    """Has a transfer synced now and then by a thread of its own, while the caller's thread takes in more.

    Leaving the block waits for what is under way.

    Raises:
        FaultError: the disk refused, told at the next piece or at the end.
    """

    def __init__(self, sync: Callable[[], None] | None, start: int) -> None:
        self._sync = sync
        self._synced = start
        self._thread: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if kind is None and self._syncing is not None:
            self._syncing.result()

    def came(self, end: int) -> None:
        """The transfer is written up to here."""
        if self._sync is None or end - self._synced < SYNC_BYTES:
            return
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._synced = end
        self._syncing = self._thread.submit(self._sync)


class Spooling:
    """Writes a transfer's chunks, those that wait in one go; one thread writes for a transfer at a time, one may sync.

    `write(offset, piece)` and `sync()` are called in threads.
    """

    def __init__(self, write: Callable[[int, Piece], None], sync: Callable[[], None] | None, start: int) -> None:
        self._write_at = write
        self._sync = sync
        #: Where the next chunk begins.
        self.end = start
        #: Up to where the transfer is written.
        self.written = start
        self._synced = start
        #: Chunks in order; None behind the last.
        self._waiting: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        #: Chunks that came, and that are written.
        self._taken = self._done = 0
        #: Of those written, the ones that the event loop was told of.
        self._told = 0
        self._writing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        #: Set when `written` has grown, or the transfer has ended.
        self._moved = asyncio.Event()
        self._room = asyncio.Event()

    async def take(self, data: Piece) -> None:
        """Have the next chunk written; waits while too many are, so that flow control holds the sender back.

        Raises:
            FaultError: one before could not be written.
        """
        while self._taken - self._done >= MOST_WAITING and self._writing is not None and not self._writing.done():
            self._room.clear()
            await self._room.wait()
        if self._writing is None or self._writing.done():
            if self._writing is not None:
                self._writing.result()
            self._writing = asyncio.create_task(self._write())
        self._waiting.put(data)
        self._taken += 1
        self.end += len(data)
        if self._sync is None or self.end - self._synced < SYNC_BYTES:
            return
        if self._syncing is None or self._syncing.done():
            if self._syncing is not None:
                self._syncing.result()
            self._synced = self.end
            self._syncing = asyncio.create_task(asyncio.to_thread(self._sync))

    async def progress(self, until: asyncio.Task[None]) -> AsyncIterator[int]:
        """How far the transfer is written, whenever it has come further, until this task is done."""
        told = -1
        while not until.done():
            if told != self.written:
                told = self.written
                yield told
            else:
                self._moved.clear()
                await self._moved.wait()

    def wake(self) -> None:
        """Have `progress` look whether its task is done."""
        self._moved.set()

    async def ended(self) -> None:
        """Wait until nothing is under way, however it ends."""
        self._waiting.put(None)
        under_way = [task for task in (self._writing, self._syncing) if task is not None]
        if under_way:
            await asyncio.wait(under_way)

    def require_written(self) -> None:
        """Return if all chunks were written and all syncs succeeded.

        Raises:
            FaultError: not.
        """
        for task in (self._writing, self._syncing):
            if task is not None:
                task.result()

    async def _write(self) -> None:
        try:
            while not self._waiting.empty():
                await asyncio.to_thread(self._write_some, asyncio.get_running_loop())
        finally:
            self._room.set()

    def _write_some(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write what waits and what comes at once; then let another transfer have the thread."""
        with contextlib.suppress(queue.Empty):
            for _ in range(_IN_ONE_GO):
                piece = self._waiting.get(timeout=_LINGER_S)
                if piece is None:  # nothing more comes
                    return
                self._write_at(self.written, piece)
                self.written += len(piece)
                self._done += 1
                del piece  # its memory is free as soon as it is written
                if self._waiting.empty() or self._done - self._told >= _AT_ONCE:
                    self._told = self._done
                    loop.call_soon_threadsafe(self._advanced)

    def _advanced(self) -> None:
        self._moved.set()
        self._room.set()
