"""What a round must cost at least, from what a mask and a verification cost on this machine.

A member makes k + 1 masks and verifies 2k + t signatures (3(n-1) in the complete graph). The coordinator takes away
n - lost self masks and up to k pair masks a lost member, agrees on a key for each of those pairs, verifies five
signatures a member, and hashes k + 1 revealed shares of each. The rest (a member's 2k key agreements, Shamir's
arithmetic, sealing, encoding, and Python between them) is what the measured cost has above it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lepton_core.identity import IdentityKey, require_signature
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.agreement import Secret, exchange, public_key
from lepton_core.secagg.masks import add_mask
from lepton_core.secagg.sharing import share_digest

#: Signatures that the coordinator verifies of each member: advert, shares, trailer, survivors, unmasking.
_VERIFIED_OF_EACH = 5
_REPEATS = 200


@dataclass(frozen=True)
class UnitCosts:
    """Seconds on one core."""

    mask: float
    verification: float
    exchange: float
    share_digest: float

    def member_ms(self, masks: int, verifications: float) -> float:
        """The least that a member's round takes."""
        return 1e3 * (masks * self.mask + verifications * self.verification)

    def server_s(self, *, survivors: int, masks: int, members: int, holders: int) -> float:
        """The least that the coordinator's round takes, all its threads together."""
        pairs = masks - survivors
        shares = survivors * holders
        signatures = _VERIFIED_OF_EACH * members
        return masks * self.mask + pairs * self.exchange + signatures * self.verification + shares * self.share_digest


def measure_unit_costs(words: int) -> UnitCosts:
    """Medians of one mask over so many words, and of one signature's verification."""
    vector = np.zeros(words, dtype=np.uint64)
    secret = Secret(bytes(range(32)))
    key = IdentityKey.generate(SystemRandomness())
    message = bytes(64)
    signature = key.sign(message)
    private, public = secret, public_key(Secret(bytes(32)))
    return UnitCosts(
        mask=_median(lambda: add_mask(vector, secret, 1)),
        verification=_median(lambda: require_signature(key.public, signature, message, who="benchmark", what="note")),
        exchange=_median(lambda: exchange(private, public, who="benchmark")),
        share_digest=_median(lambda: share_digest(message[:32], message[32:])),
    )


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
