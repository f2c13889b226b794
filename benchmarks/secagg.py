"""Cost of one secure aggregation round, with the real machines of every member and the coordinator in one process.

`client_ms` is the median of all of a member's work of steps 0 to 4, from integer lanes in: packing, masks, every key,
signature, hash and check; `client_messages_ms` is the part that is not about the vector. `server_s` is all of the
coordinator's: its messages, the sum, and unmasking on `threads` threads; hashing uploads, which happens while they
arrive, is told apart. `..._cpu_...` is processor time, which a busy machine does not change much. Members are lost
after they dealt shares, which costs most. `memory_limit_ratio` is the keystream made a second while unmasking, over
what the cipher alone makes on as many threads, in turns: 1 is the limit. `..._over_theory` is the cost over that of
the masks and verifications alone (`secure_round/theory.py`), in processor time, of all threads together. Of a round
of more than `sample` members only so many are measured. The second row has the numbers that the protocol finds.

`--sweep` tells the cost over n, in a table and a plot; `--memory` the coordinator's memory over n.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.secure_round.case import Case
from benchmarks.secure_round.memory import measure_memory
from benchmarks.secure_round.one_round import OneRound
from benchmarks.secure_round.plot import Line, draw_plot
from benchmarks.secure_round.theory import measure_unit_costs
from lepton_core.lane_widths import words_for
from lepton_core.secagg.graph import draw_graph

Row = dict[str, float]


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
    parser.add_argument("--sample", type=int, default=200, help="members of a larger round that are measured")
    parser.add_argument("--plot", type=Path, default=Path("secagg-sweep.svg"), help="where the sweep's plot goes")
    parser.add_argument("--table", type=Path, default=Path("secagg-sweep.md"), help="where the sweep's table goes")
    parser.add_argument("--memory", action="store_true", help="the coordinator's peak memory over n, in own processes")
    parser.add_argument("--memory-members", type=int, nargs="+", default=[10, 100, 1000])


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row as asked for and one as found; or one a cohort's size."""
    if args.sweep:
        return _sweep(args)
    if args.memory:
        return {"rows": [measure_memory(members, args.dimension, args.threads) for members in args.memory_members]}
    lost = args.members // 10 if args.dropped is None else args.dropped
    asked = replace(
        _case(args, args.members, args.dimension, lost), neighbours=args.neighbours, threshold=args.threshold
    )
    found = replace(asked, neighbours=0, threshold=0, corruption=0.1)
    rows = [_measure(case, args.repeats) for case in dict.fromkeys((asked, found))]
    return {**rows[0], "rows": rows}


def _case(args: argparse.Namespace, members: int, dimension: int, lost: int) -> Case:
    return Case(
        members,
        dimension,
        lost,
        corruption=args.corruption,
        dropout=args.dropout,
        ring_bits=args.ring_bits,
        threads=args.threads,
        sample=min(members, args.sample),
    )


def _sweep(args: argparse.Namespace) -> dict[str, object]:
    rows = []
    for members in args.sweep_members:
        rows.append(_measure(_case(args, members, args.sweep_dimension, members // 20), args.repeats))
        print(json.dumps(rows[-1]), file=sys.stderr)
    args.plot.write_text(
        draw_plot(f"Processor milliseconds a round of n members, {args.sweep_dimension} values", _lines(rows))
    )
    args.table.write_text(_table(rows))
    return {"rows": rows, "plot": str(args.plot), "table": str(args.table)}


def _lines(rows: Sequence[Row]) -> list[Line]:
    def line(name: str, key: str, colour: str, unit: float = 1.0, *, dashed: bool = False) -> Line:
        return Line(name, [(row["members"], unit * row[key]) for row in rows], colour, dashed)

    return [
        line("a member", "client_cpu_ms", "#0a6"),
        line("a member, theory", "client_theory_ms", "#0a6", dashed=True),
        line("the coordinator", "server_cpu_s", "#06c", 1e3),
        line("the coordinator, theory", "server_theory_s", "#06c", 1e3, dashed=True),
    ]


def _table(rows: Sequence[Row]) -> str:
    """The sweep as a Markdown table."""
    columns: Mapping[str, tuple[str, str]] = {
        "n": ("members", ".0f"),
        "k": ("neighbours", ".0f"),
        "t": ("threshold", ".0f"),
        "member, ms": ("client_cpu_ms", ".1f"),
        "verifications": ("member_verifications", ".0f"),
        "over theory": ("client_over_theory", ".2f"),
        "coordinator, s": ("server_cpu_s", ".3f"),
        "masks taken away": ("masks_removed", ".0f"),
        "over theory ": ("server_over_theory", ".2f"),
    }
    lines = ["| " + " | ".join(title.strip() for title in columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(format(row[key], form) for key, form in columns.values()) + " |" for row in rows]
    return "\n".join([*lines, ""])


def _measure(case: Case, repeats: int) -> Row:
    rounds = [OneRound(case) for _ in range(max(1, repeats))]
    for one in rounds:
        one.run()
    last, seconds = rounds[-1], [one.seconds for one in rounds]
    plan, survivors = last.ended.plan, last.ended.survivors
    graph = draw_graph(b"r", b"n", last.ids, last.terms)
    keystream = len(plan.streams) * 8 * words_for(case.dimension, case.ring_bits)
    unmasking = statistics.median(one.unmasking for one in seconds)
    of_survivors = [(one.seconds, member) for one in rounds for member in one.ended.survivors if member in one.measured]
    clients = np.median([took.clients[member] for took, member in of_survivors], axis=0).tolist()
    vectors = np.median([took.vectors[member] for took, member in of_survivors], axis=0).tolist()
    messages = np.median([one.messages for one in seconds], axis=0).tolist()
    verifications = statistics.median(last.verified[member] for member in survivors)
    unit = measure_unit_costs(last.terms.words)
    client_theory = unit.member_ms((graph.degree or case.members - 1) + 1, verifications)
    server_theory = unit.server_s(
        survivors=len(survivors),
        masks=len(plan.streams),
        members=case.members,
        holders=(graph.degree or case.members - 1) + 1,
    )
    server_cpu = statistics.median(one.server_cpu for one in seconds)
    return {
        "members": case.members,
        "neighbours": graph.degree or case.members - 1,
        "threshold": graph.threshold,
        "client_ms": 1e3 * clients[0],
        "client_cpu_ms": 1e3 * clients[1],
        "client_messages_ms": 1e3 * (clients[0] - vectors[0]),
        "client_messages_cpu_ms": 1e3 * (clients[1] - vectors[1]),
        "client_theory_ms": client_theory,
        "client_over_theory": 1e3 * clients[1] / client_theory,
        "server_s": statistics.median(one.server for one in seconds),
        "server_cpu_s": server_cpu,
        "bytes_per_parameter": last.terms.payload_bytes / case.dimension,
        "exact": all(one.exact for one in rounds),
        "keystream_gb_s": keystream / unmasking / 1e9,
        "memory_limit_ratio": statistics.median(one.ratio for one in seconds),
        "memory_limit_cpu_ratio": statistics.median(one.ratio_cpu for one in seconds),
        "cipher_gb_s": keystream / statistics.median(one.cipher for one in seconds) / 1e9,
        "server_messages_s": messages[0],
        "server_messages_cpu_s": messages[1],
        "server_sum_s": statistics.median(one.summing for one in seconds),
        "server_unmask_s": unmasking,
        "server_theory_s": server_theory,
        "server_over_theory": server_cpu / server_theory,
        "upload_hash_s": statistics.median(one.hashing for one in seconds),
        "masks_removed": len(plan.streams),
        "member_verifications": verifications,
        "members_measured": len(last.measured),
    }
