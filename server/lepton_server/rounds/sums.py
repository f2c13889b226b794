"""The running sums of masked inputs: each is added when it has come whole, so that memory does not grow with members.

A sum here is a saving of time, never the truth: `total` names the inputs it is over, adds what is missing and takes
off what is too much. Uploaded words are read from the artifact store; words that came within a message are held until
the survivors are frozen, or put into the store when a window of them is full; those of refused inputs are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from lepton_core.errors import CodecError
from lepton_core.ids import Digest, JobId, RoundNumber
from lepton_core.ring import Words
from lepton_core.secagg.terms import Setup
from lepton_server.store.port import Artifacts

#: Most bytes of inputs held in memory, over all rounds; what comes then goes to the store at once.
WINDOW_BYTES = 64 * 2**20


@dataclass
class _Sum:
    """One round's sum so far."""

    total: Words
    added: set[Digest] = field(default_factory=set)
    #: Words that came within a message and are not in the store.
    held: dict[Digest, bytes] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class RunningSums:
    """One sum a round. `add` may be called in any thread; the rest in the coordinator's."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._sums: dict[tuple[JobId, RoundNumber], _Sum] = {}
        self._held_bytes = 0

    def hold(self, setup: Setup, digest: Digest, payload: bytes) -> None:
        """Words that came within a message; their length and hash are right."""
        running = self._of(setup)
        if digest not in running.held:
            running.held[digest] = payload
            self._held_bytes += len(payload)

    def holds(self, setup: Setup, digest: Digest) -> bool:
        """True if the words wait in memory."""
        running = self._sums.get((setup.job, setup.round))
        return running is not None and digest in running.held

    def add(self, setup: Setup, digest: Digest) -> None:
        """Add an accepted input; a second time changes nothing.

        Raises:
            NotFoundError, FaultError: its words cannot be read.
            CodecError: words of another length.
        """
        running = self._of(setup)
        with running.lock:
            self._add(running, setup, digest)

    def total(self, setup: Setup, digests: Iterable[Digest]) -> Words:
        """The sum modulo 2^64 over exactly these inputs, shape (terms.words,), uint64.

        Raises:
            NotFoundError, FaultError, CodecError: as `add`.
        """
        running, wanted = self._of(setup), set(digests)
        with running.lock:
            for digest in wanted - running.added:
                self._add(running, setup, digest)
            for digest in running.added - wanted:
                np.subtract(running.total, self._words(running, setup, digest), out=running.total)
            running.added &= wanted
            return running.total

    def spill(self, job: JobId, accepted: Iterable[Digest]) -> None:
        """Put accepted inputs of a job into the store, because the messages that name them are about to be durable."""
        wanted = set(accepted)
        for running in self._of_job(job):
            for digest in running.held.keys() & wanted:
                self._artifacts.put(running.held[digest])
                self._drop(running, digest)

    def settle(self, job: JobId, accepted: Iterable[Digest]) -> None:
        """Of a job's inputs hold no more than the accepted ones, and those in the store where the window is full."""
        wanted = set(accepted)
        for running in self._of_job(job):
            for digest in running.held.keys() - wanted:
                self._drop(running, digest)
        if self._held_bytes > WINDOW_BYTES:
            self.spill(job, wanted)

    def forget(self, job: JobId, before: RoundNumber | None = None) -> None:
        """Drop the sums of a job, of rounds before this one or (None) of all."""
        for key in [key for key in self._sums if key[0] == job and (before is None or key[1] < before)]:
            self._held_bytes -= sum(map(len, self._sums.pop(key).held.values()))

    def _of_job(self, job: JobId) -> list[_Sum]:
        return [running for (owner, _), running in self._sums.items() if owner == job]

    def _drop(self, running: _Sum, digest: Digest) -> None:
        self._held_bytes -= len(running.held.pop(digest))

    def _of(self, setup: Setup) -> _Sum:
        key = setup.job, setup.round
        if key not in self._sums:
            self._sums[key] = _Sum(np.zeros(setup.terms.words, dtype=np.uint64))
        return self._sums[key]

    def _add(self, running: _Sum, setup: Setup, digest: Digest) -> None:
        if digest not in running.added:
            np.add(running.total, self._words(running, setup, digest), out=running.total)
            running.added.add(digest)

    def _words(self, running: _Sum, setup: Setup, digest: Digest) -> Words:
        payload = running.held.get(digest)
        words = np.frombuffer(self._artifacts.get(digest) if payload is None else payload, dtype="<u8")
        if len(words) != setup.terms.words:
            raise CodecError("a masked input of another length", expected=str(setup.terms.words), got=str(len(words)))
        return words.astype(np.uint64, copy=False)
