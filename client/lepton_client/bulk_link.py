"""A transfer's own connection, for the daemon's event loop: a thread carries the bytes, and the loop may give it up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lepton_client.patience import Patience
from lepton_protos.bulk import BulkCall, BulkConnection, BulkDialer
from lepton_protos.incoming import Progress
from lepton_protos.v1 import transfer_pb2

#: How often the event loop is told of progress, in seconds.
_TELL_S = 0.1
#: Longest that a thread takes to notice that its connection was aborted, in seconds: connecting may have to run out.
_ABORT_S = 10.0

Work = Callable[[BulkConnection, Progress], None]


class BulkRoute:
    """Of one transfer: whether it goes over connections of its own. A try of one that brings nothing is the last."""

    def __init__(self, dialer: BulkDialer | None, patience: Patience, progress: Progress) -> None:
        self._dialer = dialer
        self._patience = patience
        self._progress = progress
        self._is_given_up = False

    def is_worth(self, size: int) -> bool:
        """True if so many bytes should go over a connection of their own."""
        return self._dialer is not None and not self._is_given_up and self._dialer.is_worth(size)

    def shut(self) -> None:
        """The coordinator has no such port: ask for none for a while."""
        if self._dialer is not None:
            self._dialer.shut()

    async def carry(self, ticket: transfer_pb2.BulkTicket, work: Work) -> None:
        """Connect with this ticket and do the work in a thread; `work` is told what to report progress to.

        Raises:
            OSError: the connection cannot be made, or broke.
            SilenceError: nothing moved for too long.
            BulkRefusedError, LeptonError: what the coordinator refuses, or the work raises.
        """
        if self._dialer is None:
            raise AssertionError
        call = BulkCall(self._dialer, port=ticket.port, ticket=ticket.ticket, quiet_s=self._patience.quiet_s)
        telling = _Telling(self._progress)
        try:
            await _in_thread(lambda: call.run(lambda connection: work(connection, telling.told)), call.abort)
        except TimeoutError:
            raise self._patience.lost() from None
        finally:
            self._is_given_up = not telling.moved


class _Telling:
    """Carries progress from a thread to the event loop, now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._told_s = 0.0
        #: True once anything has moved.
        self.moved = False

    def told(self, done: int, size: int) -> None:
        """Bytes done, and in all."""
        self.moved = True
        now_s = time.monotonic()
        if done == size or now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._progress, done, size)


async def _in_thread(function: Callable[[], None], abort: Callable[[], None]) -> None:
    """Run the function in a thread of its own: a transfer takes long, and the loop's threads are few.

    Where the caller is cancelled, `abort` has to make the function end, which is waited for.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="bulk")
    running = asyncio.get_running_loop().run_in_executor(thread, function)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        abort()
        await asyncio.wait([running], timeout=_ABORT_S)
        raise
    finally:
        thread.shutdown(wait=False)
