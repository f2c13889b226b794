"""Peak memory of a process that does the coordinator's part over vectors, whatever the number of members.

`python -m benchmarks.secure_round.memory` is that process. Chunks of uploads come in on its standard input, several
members' in turns, and go through the production's own parts: each is spooled to the artifact store's folder, added to
the round's running sum when it is complete, and the sum is then unmasked. The process that feeds it is the members,
and is not measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.secure_round.case import Case
from lepton_core.errors import FaultError
from lepton_core.ids import Digest, JobId, RoundNumber, digest_of
from lepton_core.ring import Words, pack, unpack
from lepton_core.secagg.agreement import Secret
from lepton_core.secagg.masks import MaskStream, add_mask, negated
from lepton_core.secagg.payload import encode_payload
from lepton_core.secagg.terms import Setup
from lepton_core.secagg.unmask import UnmaskPlan, unmask
from lepton_server.rounds.sums import RunningSums
from lepton_server.store.artifacts import FolderArtifacts

#: Members whose uploads come in at the same time.
_WINDOW = 4
_CHUNK_BYTES = 256 * 2**10
_MIB = 2**20


def measure_memory(members: int, dimension: int, threads: int) -> dict[str, float]:
    """Peak resident memory of the coordinator's process, in MiB, and what of it the imports alone take."""
    command = [sys.executable, "-m", "benchmarks.secure_round.memory"]
    command += ["--members", str(members), "--dimension", str(dimension), "--threads", str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise FaultError("the coordinator's process has no pipes")
        _send_uploads(process.stdin, _case(members, dimension, threads))
        process.stdin.close()
        told = process.stdout.read()
    if process.returncode != 0:
        raise FaultError("the coordinator's process failed", got=f"exit code {process.returncode}")
    row: dict[str, float] = json.loads(told)
    return row


def _case(members: int, dimension: int, threads: int) -> Case:
    return Case(members, dimension, 0, corruption=0.0, dropout=0.0, ring_bits=16, threads=threads)


def _key(member: int) -> Secret:
    return Secret(hashlib.sha256(f"lepton/benchmark/memory/{member}".encode()).digest())


def _value(member: int) -> int:
    """What every lane of the member's vector holds."""
    return member % 7


def _masked(member: int, case: Case) -> bytes:
    words = pack(np.full(case.dimension, _value(member), dtype=np.int64), case.ring_bits)
    add_mask(words, _key(member), 1)
    return encode_payload(words)


def _send_uploads(pipe: IO[bytes], case: Case) -> None:
    """Frames (member, length, bytes), of a window of members in turns; the payload's hash behind each last one."""
    for first in range(0, case.members, _WINDOW):
        window = range(first, min(first + _WINDOW, case.members))
        payloads = {member: _masked(member, case) for member in window}
        for start in range(0, case.terms().payload_bytes, _CHUNK_BYTES):
            for member, payload in payloads.items():
                chunk = payload[start : start + _CHUNK_BYTES]
                pipe.write(member.to_bytes(4, "big") + len(chunk).to_bytes(4, "big") + chunk)
                if start + _CHUNK_BYTES >= len(payload):
                    pipe.write(hashlib.sha256(payload).digest())


def _receive(pipe: IO[bytes], folder: Path, setup: Setup) -> Words:
    """The sum over everybody."""
    artifacts = FolderArtifacts(folder)
    sums, digests = RunningSums(artifacts), []
    while header := pipe.read(8):
        member, length = header[:4], int.from_bytes(header[4:], "big")
        slot = digest_of(member)
        artifacts.write_at(slot, artifacts.received(slot), pipe.read(length))
        if artifacts.received(slot) == setup.terms.payload_bytes:
            digest = Digest(pipe.read(32).hex())
            artifacts.finish(slot, digest, setup.terms.payload_bytes)
            sums.add(setup, digest)
            digests.append(digest)
    return sums.total(setup, digests)


def _peak_mib() -> float:
    """The process's own high-water mark; `getrusage` would tell the parent's if that was higher."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def main() -> None:
    """Be the coordinator's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--members", "--dimension", "--threads"):
        parser.add_argument(name, type=int, required=True)
    args = parser.parse_args()
    case = _case(args.members, args.dimension, args.threads)
    terms, idle = case.terms(), _peak_mib()
    setup = Setup(JobId("benchmark"), RoundNumber(1), terms, bytes(32))
    with tempfile.TemporaryDirectory() as folder:
        total = _receive(sys.stdin.buffer, Path(folder), setup)
    masks = tuple(MaskStream(0, _key(member), 1) for member in range(args.members))
    plan = UnmaskPlan(negated(masks), args.members, 0, 0)
    with ThreadPoolExecutor(args.threads) as pool:
        (words,) = unmask(total, plan, terms, run=pool.map)
    peak = _peak_mib()
    expected = sum(map(_value, range(args.members)))
    row = {
        "members": args.members,
        "vector_mib": terms.payload_bytes / _MIB,
        "peak_mib": peak,
        "imports_mib": idle,
        "above_imports_mib": peak - idle,
        "exact": bool((unpack(words, case.ring_bits, args.dimension) == expected).all()),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
