"""The inside of a worker process: answer frames from standard input until it ends.

Guarantees:
- The process ends when its parent does, even in the middle of a request: a thread waits for the end of standard input,
  and on Linux the kernel kills it with its parent.
- Nothing but frames is written to the pipe: file descriptor 1 is turned into standard error first.
- A handler's `LeptonError` travels as it is; of any other exception only its type and place do, as messages of
  libraries may hold values from records.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeAlias

from lepton_core.errors import FaultError, InputError, LeptonError
from lepton_pool.frames import Frame, read_frame, write_frame
from lepton_pool.memory import keep_freed_memory

#: Answers one kind of request.
Handler: TypeAlias = Callable[[Frame], Frame]

_PR_SET_PDEATHSIG = 1
#: What torch's allocator says, in an exception that has no type of its own.
_TORCH_NO_MEMORY = "can't allocate memory"
#: Bytes that a pipe holds: at Linux' own 64 KiB a model of a million values wakes both sides 64 times.
_PIPE_BYTES = 1 << 20


def serve(load_handlers: Callable[[], Mapping[str, Handler]]) -> None:
    """Answers requests one by one until standard input ends.

    `load_handlers` runs while the first request is already on its way, so that is where heavy imports belong.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our input
    _die_with_parent()
    keep_freed_memory()
    requests, answers = _take_pipes()
    arrived: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, arrived), daemon=True).start()
    handlers = load_handlers()
    while True:
        request = arrived.get()
        answer = _answer(handlers, request)
        try:
            write_frame(answers, answer)
        except BrokenPipeError:
            return


def _answer(handlers: Mapping[str, Handler], request: Frame) -> Frame:
    number, kind = request.values.get("number"), str(request.values.get("kind"))
    try:
        handler = handlers.get(kind)
        if handler is None:
            raise InputError("no such kind of work", where="kind", expected=", ".join(sorted(handlers)), got=kind)
        result = handler(request)
        return Frame({**result.values, "number": number, "status": "done"}, result.arrays)
    except LeptonError as error:
        return Frame({"number": number, "status": "error", "error": error.as_dict()})
    except MemoryError:
        return Frame({"number": number, "status": "error", "error": _no_memory(kind).as_dict()})
    except Exception as error:  # noqa: BLE001 (the process boundary: one bad request must not end the worker)
        if isinstance(error, RuntimeError) and _TORCH_NO_MEMORY in str(error):
            return Frame({"number": number, "status": "error", "error": _no_memory(kind).as_dict()})
        place = traceback.extract_tb(error.__traceback__)[-1]
        fault = FaultError(
            f"work of kind {kind} failed with {type(error).__name__}",
            where=f"{Path(place.filename).name}:{place.lineno}",
            reason="WORKER_EXCEPTION",
        )
        return Frame({"number": number, "status": "error", "error": fault.as_dict()})


def _no_memory(kind: str) -> FaultError:
    return FaultError(
        f"work of kind {kind} needs more memory than it may take",
        where="worker",
        hint="allow it more memory (training_memory_mib in client.toml), or give it a smaller model or batch",
        reason="MEMORY",
    )


def _receive(requests: BinaryIO, arrived: queue.SimpleQueue[Frame]) -> None:
    """Queues requests; ends the process at the end of the stream, whatever the main thread is at."""
    try:
        while (frame := read_frame(requests)) is not None:
            arrived.put(frame)
    finally:
        os._exit(0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for ourselves; what anybody else prints goes to standard error."""
    _widen(0)
    _widen(1)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _widen(pipe: int) -> None:
    """Let the pipe hold more, where the system allows it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # no pipe, or this user's pipes hold as much as they may
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
