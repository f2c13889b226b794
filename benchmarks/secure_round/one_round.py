"""One round with the real machines of every member and of the coordinator in one process, timed where work is done."""

from __future__ import annotations

import gc
import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from benchmarks.secure_round.case import Case
from lepton_core.errors import FaultError
from lepton_core.identity import IdentityKey
from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.ports import SystemRandomness
from lepton_core.ring import Lanes, Words, pack, unpack
from lepton_core.secagg import client, client_checks, server, sharing
from lepton_core.secagg import client_events as told
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.client_phases import Phase as MemberPhase
from lepton_core.secagg.client_phases import Uploaded
from lepton_core.secagg.messages import (
    Certificate,
    Delivery,
    InputTrailer,
    MemberMessage,
    Roster,
    ServerMessage,
)
from lepton_core.secagg.server_phases import BoundModel, Phase
from lepton_core.secagg.simulate import event_of, member_event_of
from lepton_core.secagg.terms import Setup, commit_nonce
from lepton_core.secagg.transcript import RoundResult
from lepton_core.secagg.unmask import SLICE_WORDS, unmask

_RANDOMNESS = SystemRandomness()
_NONCE = hashlib.sha256(b"lepton/benchmark/secagg").digest()
_BUFFER_BYTES = 256 * 2**10
#: Unmasking and the bare cipher take turns so often, so that a busy moment of the machine cannot hit one of them only.
_TURNS = 7


@dataclass
class Seconds:
    """What a round took. Hashing of uploads, which happens while they arrive, is no part of `messages`."""

    #: Wall and processor seconds by member: all of its work, and that of packing, masking and hashing its vector.
    clients: dict[MemberId, npt.NDArray[np.float64]] = field(default_factory=dict)
    vectors: dict[MemberId, npt.NDArray[np.float64]] = field(default_factory=dict)
    messages: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    hashing: float = 0.0
    summing: float = 0.0
    #: Processor seconds of the whole process in one turn, all threads together.
    unmasking_cpu: float = 0.0
    #: Medians of the turns.
    unmasking: float = 0.0
    cipher: float = 0.0
    #: Medians over the turns of the cipher's time over the unmasking's: wall and processor.
    ratio: float = 0.0
    ratio_cpu: float = 0.0

    @property
    def server(self) -> float:
        """All of the coordinator's work, in seconds."""
        return float(self.messages[0]) + self.summing + self.unmasking

    @property
    def server_cpu(self) -> float:
        """All of the coordinator's work, in processor seconds of all cores."""
        return float(self.messages[1]) + self.summing + self.unmasking_cpu


class OneRound:
    """Made by a case; `run` sets what the other attributes hold.

    Vectors stream: each is drawn when its member masks it and added when it is uploaded, and none is kept.
    Of a large round a sample of members is measured, and the others verify no signatures, which is most of their work
    and changes no byte of what they send; what the coordinator receives and does is whole.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.terms = case, case.terms()
        keys = (IdentityKey.generate(_RANDOMNESS) for _ in range(case.members))
        self.identities = sorted(keys, key=lambda key: key.member)
        self.ids = [key.member for key in self.identities]
        self.seconds = Seconds()
        #: Signatures that each member verified.
        self.verified = dict.fromkeys(self.ids, 0)
        self.exact = False
        self.ended: RoundResult
        every = max(1, case.members // case.sample) if case.sample else 1
        #: Members that do all of their work, and are measured.
        self.measured = set(self.ids[min(1, every - 1) :: every]) if case.sample else set(self.ids)
        self._lost = set(self.ids[:: max(1, case.members // case.lost)][: case.lost]) if case.lost else set()
        self._members: dict[MemberId, MemberPhase] = {}
        self._events: deque[heard.Event] = deque()
        self._expected = np.zeros(case.dimension, dtype=np.int64)
        self._total = np.zeros(self.terms.words, dtype=np.uint64)

    @property
    def unmasking_threads(self) -> int:
        """Cores that unmasking uses: one a slice of the vector, and no more than asked for."""
        return min(self.case.threads, -(-self.terms.words // SLICE_WORDS))

    def run(self) -> None:
        """Run the round to its end.

        Raises:
            LeptonError: a message was refused, or the round ended without a sum; none does unless the code is wrong.
        """
        # The collector would walk again and again through what all members hold: no process of a real round holds that.
        gc.disable()
        try:
            self._run()
        finally:
            gc.enable()

    def _run(self) -> None:
        setup = Setup(JobId("benchmark"), RoundNumber(1), self.terms, commit_nonce(_NONCE))
        listed = {key.member: key.public for key in self.identities}
        admission = Admission(listed, self.terms.membership_digest, self.terms.min_cohort, self.terms.corruption)
        phase, effects_out = server.start(setup, _NONCE, listed, BoundModel(ModelVersion(0), bytes(32)))
        for key in self.identities:
            started = _now()
            began, effects = client.start(setup, key, admission, _RANDOMNESS)
            self.seconds.clients[key.member] = _now() - started
            self.seconds.vectors[key.member] = np.zeros(2)
            self._members[key.member] = began
            self._perform(key.member, effects)
        self._serve(phase, effects_out)
        groups = self._unmask()
        lanes = unpack(groups[0], self.case.ring_bits, self.case.dimension)
        self.exact = bool(np.array_equal(lanes, self._expected))

    def _serve(self, phase: Phase, effects: Sequence[heard.Effect]) -> None:
        """Feed the coordinator until the round is over."""
        while True:
            for effect in effects:
                match effect:
                    case heard.Send(member, message):
                        self._tell(member, message)
                    case heard.Finished(result):
                        self.ended = result
                        return
                    case heard.Aborted(error) | heard.Rejected(_, error):
                        raise error
                    case heard.SetDeadline() | heard.Dropped():
                        pass
            if not self._events:
                raise FaultError("the round came to a standstill", where=type(phase).__name__)
            event = self._events.popleft()
            started = _now()
            phase, effects = server.step(phase, event)
            self.seconds.messages += _now() - started

    def _tell(self, member: MemberId, message: ServerMessage) -> None:
        match message:
            case Roster():
                self.verified[member] += len(message.adverts)
            case Delivery():
                self.verified[member] += len(message.dealt)
            case Certificate():
                self.verified[member] += len([one for one in message.signatures if one.member != member])
        self._step(member, member_event_of(message))

    def _step(self, member: MemberId, event: told.Event) -> None:
        with nullcontext() if member in self.measured else _signatures_believed():
            started = _now()
            self._members[member], effects = client.step(self._members[member], event)
            took = _now() - started
        self.seconds.clients[member] += took
        if isinstance(event, told.InputReady):
            self.seconds.vectors[member] += took
        self._perform(member, effects)

    def _perform(self, member: MemberId, effects: Sequence[told.Effect]) -> None:
        for effect in effects:
            match effect:
                case told.Send(message):
                    self._say(message)
                case told.Train():
                    self._input(member)
                case told.Upload(words, trailer):
                    self._upload(words, trailer)
                    self._step(member, told.UploadDone())
                    self._forget_words(member)
                case told.RecordAnswer():
                    self._step(member, told.AnswerRecorded())
                case told.Aborted(error):
                    raise error
                case told.Finished():
                    self._members.pop(member)  # what it holds is not needed any more

    def _input(self, member: MemberId) -> None:
        if member in self._lost:
            self._members.pop(member)
            self._events.append(heard.MemberLost(member, "lost by the benchmark"))
            return
        values = self._draw(member)
        self._expected += values
        started = _now()
        words = pack(values, self.case.ring_bits)
        took = _now() - started
        self.seconds.clients[member] += took
        self.seconds.vectors[member] += took
        self._step(member, told.InputReady(words))

    def _draw(self, member: MemberId) -> Lanes:
        rng = np.random.default_rng(int.from_bytes(member, "big"))
        return rng.integers(0, self.case.largest + 1, size=self.case.dimension, dtype=np.int64)

    def _upload(self, words: Words, trailer: InputTrailer) -> None:
        """Everybody whose input comes is in the sum, so it can be added at once."""
        started = time.perf_counter()
        digest = hashlib.sha256(words.data).digest()
        hashed = time.perf_counter()
        if digest != trailer.payload_digest:
            raise FaultError("an upload differs from its trailer")
        np.add(self._total, words, out=self._total)
        self.seconds.hashing += hashed - started
        self.seconds.summing += time.perf_counter() - hashed
        self._say(trailer)

    def _forget_words(self, member: MemberId) -> None:
        """A member keeps its upload in case it is asked for again, which in memory it never is."""
        phase = self._members[member]
        if isinstance(phase, Uploaded):
            self._members[member] = replace(phase, upload=replace(phase.upload, words=np.zeros(0, dtype=np.uint64)))

    def _say(self, message: MemberMessage) -> None:
        self._events.append(event_of(message))

    def _unmask(self) -> list[Words]:
        threads = self.unmasking_threads
        share = 8 * self.terms.words * len(self.ended.plan.streams) // threads
        turns = []
        groups: list[Words] = []
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(abs, range(threads)))  # threads start once, not once a round
            for _ in range(_TURNS):
                started = _clocks()
                groups = unmask(self._total, self.ended.plan, self.terms, run=pool.map)
                unmasked = _clocks()
                list(pool.map(make_keystream, [share] * threads))
                turns.append((unmasked - started, _clocks() - unmasked))
        unmasking, cipher = np.median(turns, axis=0)
        self.seconds.unmasking, self.seconds.unmasking_cpu = unmasking.tolist()
        self.seconds.cipher = float(cipher[0])
        ratios = np.median([alone / whole for whole, alone in turns], axis=0)
        self.seconds.ratio, self.seconds.ratio_cpu = ratios.tolist()
        return groups


@contextmanager
def _signatures_believed() -> Iterator[None]:
    """Verify no member's signature meanwhile."""
    with ExitStack() as stack:
        for module in (client_checks, sharing):
            stack.enter_context(patch.object(module, "require_signature", _believe))
        yield


def _believe(*_arguments: bytes, **_names: str) -> None:
    """In the place of `require_signature`."""


def make_keystream(length: int) -> None:
    """What the cipher alone needs for so many bytes."""
    encryptor = Cipher(AES256(bytes(32)), CTR(bytes(16))).encryptor()
    zeros, buffer = bytes(_BUFFER_BYTES), bytearray(_BUFFER_BYTES)
    for start in range(0, length, _BUFFER_BYTES):
        size = min(_BUFFER_BYTES, length - start)
        encryptor.update_into(memoryview(zeros)[:size], memoryview(buffer)[:size])


def _clocks() -> npt.NDArray[np.float64]:
    """Wall and the whole process's processor time, all threads together; seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def _now() -> npt.NDArray[np.float64]:
    """Wall and this thread's processor time, seconds: on a busy machine only the second says what the work costs."""
    return np.array([time.perf_counter(), time.thread_time()])
