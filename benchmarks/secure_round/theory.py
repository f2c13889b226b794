"""What a round must cost at least, from what a mask and a verification cost on this machine.

A member makes k + 1 masks and verifies 2k + t signatures (2(n-1) + n - 1 in the complete graph). The coordinator takes
away n - lost self masks and up to k pair masks a lost member, on its threads, and verifies five signatures a member.
The rest (key agreement, shares, hashes, and Python between them) is what the measured cost has above it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lepton_core.identity import IdentityKey, require_signature
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.agreement import Secret
from lepton_core.secagg.masks import add_mask

#: Signatures that the coordinator verifies of each member: advert, shares, trailer, survivors, unmasking.
_VERIFIED_OF_EACH = 5
_REPEATS = 200


@dataclass(frozen=True)
class UnitCosts:
    """Seconds on one core."""

    mask: float
    verification: float

    def member_ms(self, masks: int, verifications: float) -> float:
        """The least that a member's round takes."""
        return 1e3 * (masks * self.mask + verifications * self.verification)

    def server_s(self, masks: int, members: int, threads: int) -> float:
        """The least that the coordinator's round takes."""
        return masks * self.mask / threads + _VERIFIED_OF_EACH * members * self.verification


def measure_unit_costs(words: int) -> UnitCosts:
    """Medians of one mask over so many words, and of one signature's verification."""
    vector = np.zeros(words, dtype=np.uint64)
    secret = Secret(bytes(range(32)))
    key = IdentityKey.generate(SystemRandomness())
    message = bytes(64)
    signature = key.sign(message)
    return UnitCosts(
        mask=_median(lambda: add_mask(vector, secret, 1)),
        verification=_median(lambda: require_signature(key.public, signature, message, who="benchmark", what="note")),
    )


def _median(work: Callable[[], None]) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
