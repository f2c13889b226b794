"""Peak memory of a process that does the coordinator's part over vectors, whatever the number of members.

`python -m benchmarks.secure_round.memory` is that process: chunks of uploads come in on its standard input, several
members' in turns; each is spooled to a file, and added when it is complete; the sum is then unmasked. It holds the sum,
one upload, and what unmasking works in. The process that feeds it is the members, and is not measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.secure_round.case import Case
from lepton_core.errors import FaultError
from lepton_core.ring import Words, pack, unpack
from lepton_core.secagg.agreement import Secret
from lepton_core.secagg.masks import MaskStream, add_mask, negated
from lepton_core.secagg.payload import encode_payload, parse_payload
from lepton_core.secagg.terms import Terms
from lepton_core.secagg.unmask import UnmaskPlan, sum_words, unmask

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
    """Frames (member, length, bytes), of a window of members in turns."""
    for first in range(0, case.members, _WINDOW):
        window = range(first, min(first + _WINDOW, case.members))
        payloads = {member: _masked(member, case) for member in window}
        for start in range(0, case.terms().payload_bytes, _CHUNK_BYTES):
            for member, payload in payloads.items():
                chunk = payload[start : start + _CHUNK_BYTES]
                pipe.write(member.to_bytes(4, "big") + len(chunk).to_bytes(4, "big") + chunk)


def _receive(pipe: IO[bytes], folder: Path, terms: Terms) -> Iterator[Words]:
    """Each upload when it is complete; its file is gone then."""
    while header := pipe.read(8):
        member, length = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
        path = folder / f"{member}.part"
        with path.open("ab") as spool:
            spool.write(pipe.read(length))
        if path.stat().st_size == terms.payload_bytes:
            payload = path.read_bytes()
            path.unlink()
            yield parse_payload(payload, terms)


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
    with tempfile.TemporaryDirectory() as folder:
        total = sum_words(_receive(sys.stdin.buffer, Path(folder), terms), terms)
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
