"""Unfinished uploads that grow now: file and hash stay at hand, so that a piece costs a write and a hash."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Any

from lepton_core.errors import ConflictError, InputError
from lepton_core.ids import Digest
from lepton_protos.durable import write_all
from lepton_protos.spooling import Piece

#: Unfinished uploads whose hash is kept; of any other it is worked out from the disk at its end.
_MOST_KEPT = 1_024
#: Longest that a slot is waited for: a piece, or a whole upload at its end, is written, synced or hashed meanwhile.
_LONGEST_HOLD_S = 120.0


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


@dataclass
class Held:
    """A slot that the caller has to itself, and what grows there; None if nothing does, or it is to be let go of."""

    growing: Growing | None


class GrowingUploads:
    """The uploads at hand. One thread at a time holds a slot, so that what is hashed is what is written."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._kept: OrderedDict[Digest, Growing] = OrderedDict()
        self._held: set[Digest] = set()

    @contextmanager
    def holding(self, slot: Digest) -> Iterator[Held]:
        """Have the slot to oneself; what `growing` is at the end is kept, and closed where an error ended it.

        Raises:
            ConflictError: another holds it for longer than any disk takes for a piece.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: slot not in self._held, timeout=_LONGEST_HOLD_S):
                raise ConflictError("another stream goes on with this upload", where=slot, reason="NEWER_UPLOAD")
            self._held.add(slot)
            held = Held(self._kept.pop(slot, None))
        try:
            yield held
        except BaseException:
            if held.growing is not None:
                held.growing.close()
            held.growing = None
            raise
        finally:
            self._keep(slot, held.growing)

    def _keep(self, slot: Digest, growing: Growing | None) -> None:
        """Let others hold the slot; of too many that are kept, the one that has stood still longest is let go of."""
        gone: Growing | None = None
        with self._changed:
            self._held.discard(slot)
            if growing is not None:
                self._kept[slot] = growing
                if len(self._kept) > _MOST_KEPT:
                    gone = self._kept.popitem(last=False)[1]
            self._changed.notify_all()
        if gone is not None:
            gone.close()


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
