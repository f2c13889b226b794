"""Unfinished uploads that grow now: file and hash stay at hand, so that a piece costs a write and a hash."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from lepton_core.errors import InputError
from lepton_core.ids import Digest
from lepton_protos.durable import write_all
from lepton_protos.spooling import Piece

#: Unfinished uploads whose hash is kept; of any other it is worked out from the disk at its end.
_MOST_KEPT = 1_024


class Growing:
    """One upload's file and the hash of what it holds; one thread at a time uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: The open file; -1 while nobody writes.
        self._descriptor = -1
        #: Bytes that were written in order, and their hash; None if an earlier process wrote some of them.
        self.length = 0
        self.hasher: Any = hashlib.sha256()

    def write_at(self, offset: int, data: Piece) -> None:
        """Put a piece at `offset`; what lay behind it is forgotten.

        Raises:
            InputError: it would leave a gap.
            OSError: the disk is full, or broken.
        """
        if offset != self.length:  # sent again, or begun by an earlier process
            self.close()
            self.length, self.hasher = offset, hashlib.sha256() if offset == 0 else None
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            there = os.fstat(self._descriptor).st_size
            require_no_gap(offset, there)
            if there > offset:
                os.ftruncate(self._descriptor, offset)
        write_all(self._descriptor, data, offset)
        if self.hasher is not None:
            self.hasher.update(data)
        self.length += len(data)

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class GrowingUploads:
    """The uploads at hand; what a thread has taken, no other reaches until it is kept again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Digest, Growing] = OrderedDict()

    def take(self, slot: Digest) -> Growing | None:
        """The upload that was kept, which is not kept any more."""
        with self._lock:
            return self._kept.pop(slot, None)

    def keep(self, slot: Digest, growing: Growing) -> None:
        """Keep the upload; of too many, the one that has stood still longest is let go of."""
        with self._lock:
            gone = [self._kept.pop(slot, None)]
            self._kept[slot] = growing
            if len(self._kept) > _MOST_KEPT:
                gone.append(self._kept.popitem(last=False)[1])
        for other in gone:
            if other is not None:
                other.close()


def require_no_gap(offset: int, received: int) -> None:
    """Return if a piece at `offset` follows `received` bytes, or replaces some of them.

    Raises:
        InputError: it would leave a gap.
    """
    if not 0 <= offset <= received:
        raise InputError(
            "a piece that would leave a gap",
            where="offset",
            expected=f"at most {received}",
            got=str(offset),
            hint="ask for the upload's status and go on from there",
            reason="GAP",
        )
