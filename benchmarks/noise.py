"""Seconds to draw exact discrete Gaussian noise on one core, by its standard deviation."""

from __future__ import annotations

import argparse
import time

from lepton_client.train.noise import SecretStream
from lepton_core.privacy.discrete_gaussian import sample_discrete_gaussian


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many and how wide."""
    parser.add_argument("--samples", type=int, default=10**6, help="samples a row")
    parser.add_argument(
        "--deviations", type=int, nargs="+", default=[1, 4, 64, 2**12, 2**18, 2**24], help="standard deviations"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timings, of which the best counts")


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row a standard deviation, and the slowest."""
    stream = SecretStream()
    rows = []
    for deviation in args.deviations:
        seconds = []
        samples = sample_discrete_gaussian(deviation**2, args.samples, stream.words)
        for _ in range(args.repeats):
            start = time.perf_counter()
            sample_discrete_gaussian(deviation**2, args.samples, stream.words)
            seconds.append(time.perf_counter() - start)
        rows.append(
            {
                "standard_deviation": deviation,
                "seconds": min(seconds),
                "variance_ratio": float(samples.var()) / deviation**2,
            }
        )
    return {"rows": rows, "samples": args.samples, "seconds_max": max(float(row["seconds"]) for row in rows)}
