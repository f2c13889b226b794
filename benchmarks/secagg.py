"""Cost of one secure aggregation round, with the real machines of every member and the coordinator in one process.

`client_ms` is the median of all of a member's work of steps 0 to 4, from integer lanes in: packing, masks, every key,
signature, hash and check. `server_s` is all of the coordinator's: its messages, the sum, and unmasking on `threads`
threads; hashing uploads, which happens while they arrive, is told apart. `..._cpu_...` is processor time, which a busy
machine does not change much. Members are lost after they dealt shares, which costs most. `memory_limit_ratio` is the
keystream made a second while unmasking, over what the cipher alone makes on as many threads at once; 1 is the limit.
The second row has the numbers that the protocol finds for itself.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from lepton_core.errors import FaultError
from lepton_core.identity import IdentityKey
from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.ports import SystemRandomness
from lepton_core.ring import Lanes, Words, pack, unpack, words_for
from lepton_core.secagg import client, server
from lepton_core.secagg import client_events as told
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.client_phases import Phase as MemberPhase
from lepton_core.secagg.graph import draw_graph
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
from lepton_core.secagg.terms import LaneGroup, Setup, Terms, commit_nonce
from lepton_core.secagg.transcript import RoundResult
from lepton_core.secagg.unmask import unmask

_RANDOMNESS = SystemRandomness()
_NONCE = hashlib.sha256(b"lepton/benchmark/secagg").digest()
_BUFFER_BYTES = 256 * 2**10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the round, and assumptions of its graph."""
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=1_000_000, help="values a vector")
    parser.add_argument("--neighbours", type=int, default=0, help="k above 64 members; 0: as found")
    parser.add_argument("--threshold", type=int, default=0, help="t above 64 members; 0: as found")
    parser.add_argument("--dropped", type=int, default=None, help="members lost before their input; default 10 %%")
    parser.add_argument("--dropout", type=float, default=0.1, help="assumed share of members that drop out")
    parser.add_argument("--corruption", type=float, default=0.1, help="assumed share of members that collude")
    parser.add_argument("--ring-bits", type=int, default=16, help="bits a lane")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads that unmask")
    parser.add_argument("--repeats", type=int, default=1, help="rounds, of which the medians count")
    parser.add_argument("--sweep", action="store_true", help="cost over n, k as found, 5 %% lost; a table and a plot")
    parser.add_argument("--sweep-members", type=int, nargs="+", default=[10, 30, 64, 100, 300, 1000, 3000, 10_000])
    parser.add_argument("--sweep-dimension", type=int, default=100_000)
    parser.add_argument("--plot", type=Path, default=Path("secagg-sweep.svg"), help="where the sweep's plot goes")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row as asked for and one as found; or one a cohort's size."""
    if args.sweep:
        return _sweep(args)
    lost = args.members // 10 if args.dropped is None else args.dropped
    asked = _measure(_Case(args.members, args.dimension, lost, args.corruption, args, args.neighbours, args.threshold))
    found = _measure(_Case(args.members, args.dimension, lost, 0.1, args))
    return {**asked, "rows": [asked, found]}


def _sweep(args: argparse.Namespace) -> dict[str, object]:
    rows = [
        _measure(_Case(members, args.sweep_dimension, members // 20, args.corruption, args))
        for members in args.sweep_members
    ]
    lines = {
        "a member": [(row["members"], row["client_ms"]) for row in rows],
        "the coordinator": [(row["members"], 1e3 * row["server_s"]) for row in rows],
        "the coordinator, a member": [(row["members"], 1e3 * row["server_s"] / row["members"]) for row in rows],
    }
    args.plot.write_text(_draw_plot(f"Milliseconds a round of n members, {args.sweep_dimension} values", lines))
    return {"rows": rows, "plot": str(args.plot)}


@dataclass(frozen=True)
class _Case:
    members: int
    dimension: int
    lost: int
    corruption: float
    args: argparse.Namespace
    neighbours: int = 0
    threshold: int = 0

    def terms(self) -> Terms:
        digest = bytes(32)
        return Terms(
            job_digest=digest,
            ontology_digest=digest,
            membership_digest=digest,
            compiler_version="1",
            codec_version="1",
            layout_digest=digest,
            model_length=self.dimension,
            lane_groups=(LaneGroup(self.dimension, self.args.ring_bits),),
            min_cohort=3,
            max_cohort=self.members,
            corruption=self.corruption,
            dropout=self.args.dropout,
            security_bits=80,
            step_deadline_s=60.0,
            neighbours=self.neighbours,
            threshold=self.threshold,
        )


@dataclass
class _Seconds:
    """What a round took. Hashing of uploads is no part of `messages`."""

    #: Wall and processor seconds by member.
    clients: dict[MemberId, npt.NDArray[np.float64]] = field(default_factory=dict)
    messages: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    hashing: float = 0.0
    summing: float = 0.0
    unmasking: float = 0.0
    cipher: float = 0.0

    @property
    def server(self) -> float:
        return float(self.messages[0]) + self.summing + self.unmasking


def _measure(case: _Case) -> dict[str, float]:
    rounds = [_Round(case) for _ in range(max(1, case.args.repeats))]
    for one in rounds:
        one.run()
    last, seconds = rounds[-1], [one.seconds for one in rounds]
    plan = last.ended.plan
    graph = draw_graph(b"r", b"n", last.ids, last.terms)
    keystream = len(plan.streams) * 8 * words_for(case.dimension, case.args.ring_bits)
    unmasking = statistics.median(one.unmasking for one in seconds)
    keystream_gb_s = keystream / unmasking / 1e9
    cipher_gb_s = keystream / statistics.median(one.cipher for one in seconds) / 1e9
    survivors = last.ended.survivors
    clients = np.median(
        [one.seconds.clients[member] for one in rounds for member in one.ended.survivors], axis=0
    ).tolist()
    messages = np.median([one.messages for one in seconds], axis=0).tolist()
    return {
        "members": case.members,
        "neighbours": graph.degree or case.members - 1,
        "threshold": graph.threshold,
        "client_ms": 1e3 * clients[0],
        "client_cpu_ms": 1e3 * clients[1],
        "server_s": statistics.median(one.server for one in seconds),
        "bytes_per_parameter": last.terms.payload_bytes / case.dimension,
        "exact": all(one.exact for one in rounds),
        "keystream_gb_s": keystream_gb_s,
        "memory_limit_ratio": keystream_gb_s / cipher_gb_s,
        "cipher_gb_s": cipher_gb_s,
        "server_messages_s": messages[0],
        "server_messages_cpu_s": messages[1],
        "server_sum_s": statistics.median(one.summing for one in seconds),
        "server_unmask_s": unmasking,
        "upload_hash_s": statistics.median(one.hashing for one in seconds),
        "masks_removed": len(plan.streams),
        "member_verifications": statistics.median(last.verified[member] for member in survivors),
    }


class _Round:
    """One round, timed where its work is done."""

    def __init__(self, case: _Case) -> None:
        self.case, self.terms = case, case.terms()
        keys = (IdentityKey.generate(_RANDOMNESS) for _ in range(case.members))
        self.identities = sorted(keys, key=lambda key: key.member)
        self.ids = [key.member for key in self.identities]
        self.seconds = _Seconds()
        self.verified = dict.fromkeys(self.ids, 0)
        self.exact = False
        self.ended: RoundResult
        self._lost = set(self.ids[:: max(1, case.members // case.lost)][: case.lost]) if case.lost else set()
        self._members: dict[MemberId, MemberPhase] = {}
        self._events: deque[heard.Event] = deque()
        self._largest = (2**case.args.ring_bits - 1) // case.members
        self._expected = np.zeros(case.dimension, dtype=np.int64)
        self._total = np.zeros(self.terms.words, dtype=np.uint64)

    def run(self) -> None:
        """Set `exact`, `ended` and `seconds`."""
        setup = Setup(JobId("benchmark"), RoundNumber(1), self.terms, commit_nonce(_NONCE))
        listed = {key.member: key.public for key in self.identities}
        admission = Admission(listed, self.terms.membership_digest, self.terms.min_cohort, self.terms.corruption)
        for key in self.identities:
            started = _now()
            phase, effects = client.start(setup, key, admission, _RANDOMNESS)
            self.seconds.clients[key.member] = _now() - started
            self._members[key.member] = phase
            self._perform(key.member, effects)
        self._serve(*server.start(setup, _NONCE, listed, BoundModel(ModelVersion(0), bytes(32))))
        groups = self._unmask()
        lanes = unpack(groups[0], self.case.args.ring_bits, self.case.dimension)
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
                    case heard.Aborted(error):
                        raise error
                    case heard.Rejected(_, error):
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
        started = _now()
        self._members[member], effects = client.step(self._members[member], event)
        self.seconds.clients[member] += _now() - started
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
        words = pack(values, self.case.args.ring_bits)
        self.seconds.clients[member] += _now() - started
        self._step(member, told.InputReady(words))

    def _draw(self, member: MemberId) -> Lanes:
        rng = np.random.default_rng(int.from_bytes(member, "big"))
        return rng.integers(0, self._largest + 1, size=self.case.dimension, dtype=np.int64)

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

    def _say(self, message: MemberMessage) -> None:
        self._events.append(event_of(message))

    def _unmask(self) -> list[Words]:
        with ThreadPoolExecutor(self.case.args.threads) as pool:
            list(pool.map(abs, range(self.case.args.threads)))  # threads start once, not once a round
            started = time.perf_counter()
            groups = unmask(self._total, self.ended.plan, self.terms, run=pool.map)
            self.seconds.unmasking = time.perf_counter() - started
            share = 8 * self.terms.words * len(self.ended.plan.streams) // self.case.args.threads
            started = time.perf_counter()
            list(pool.map(_make_keystream, [share] * self.case.args.threads))
            self.seconds.cipher = time.perf_counter() - started
        return groups


def _now() -> npt.NDArray[np.float64]:
    """Wall and this thread's processor time, seconds: on a busy machine only the second says what the work costs."""
    return np.array([time.perf_counter(), time.thread_time()])


def _make_keystream(length: int) -> None:
    """What the cipher alone needs for so many bytes."""
    encryptor = Cipher(AES256(bytes(32)), CTR(bytes(16))).encryptor()
    zeros, buffer = bytes(_BUFFER_BYTES), bytearray(_BUFFER_BYTES)
    for start in range(0, length, _BUFFER_BYTES):
        size = min(_BUFFER_BYTES, length - start)
        encryptor.update_into(memoryview(zeros)[:size], memoryview(buffer)[:size])


def _draw_plot(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG with two logarithmic axes, a tick a power of ten."""
    points = np.log10([point for line in lines.values() for point in line])
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    width, height, edge = 640, 400, 60

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (np.log10([x, y]) - low) / np.maximum(high - low, 1)
        return round(edge + across * (width - 2 * edge), 1), round(height - edge - up * (height - 2 * edge), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 140} {height}" font-size="12">',
        f'<text x="{edge}" y="30" font-size="14">{title}</text>',
    ]
    for power in range(int(low[0]), int(high[0]) + 1):
        x, y = place(10.0**power, 10.0 ** low[1])
        parts.append(f'<path d="M{x} {y}V{edge}" stroke="#ddd"/><text x="{x - 8}" y="{y + 20}">{10**power}</text>')
    for power in range(int(low[1]), int(high[1]) + 1):
        x, y = place(10.0 ** low[0], 10.0**power)
        parts.append(f'<path d="M{x} {y}H{width - edge}" stroke="#ddd"/><text x="8" y="{y + 4}">{10.0**power:g}</text>')
    for colour, (name, line) in zip(("#0b6", "#06c", "#c40"), lines.items(), strict=False):
        places = [place(*point) for point in line]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{places[-1][0] + 8}" y="{places[-1][1] + 4}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
