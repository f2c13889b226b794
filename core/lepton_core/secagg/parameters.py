"""The numbers k and t of a sparse graph: how many neighbours a member has, and how many holders rebuild a secret.

Source: Bell, Bonawitz, Gascón, Lepoint, Raykova 2020 (SecAgg+), section 3 (conditions 1 and 2 of a good graph) and
section 4 (the threshold against a malicious server). Of n members, A = floor(corruption n) collude with the
coordinator, D = floor(dropout n) drop out, S = n - D stay. A neighbourhood is k members drawn without replacement, so
counts in it are hypergeometric. Both sides compute these numbers alone; neither tells them to the other.

Probabilities are compared as logarithms of 64-bit floats. Should two machines ever round a comparison differently,
they find different graphs and the round is refused: nothing is revealed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lepton_core.errors import InputError

#: eta: a round loses some secret, and ends without a sum, with chance at most 2^-20; it says nothing about privacy.
CORRECTNESS_BITS = 20

Logs = npt.NDArray[np.float64]


class Adversary(Enum):
    """What the coordinator is held capable of."""

    #: It may lie: no two survivor sets can each find t holders that answer. What every round uses.
    MALICIOUS = "malicious"
    #: It follows the protocol and looks at what it sees; for comparison with published parameters.
    CURIOUS = "curious"


@dataclass(frozen=True)
class Assumptions:
    """What a graph must withstand."""

    members: int
    #: gamma: share of members that collude with the coordinator, in [0, 0.5).
    corruption: float
    #: delta: share of members that drop out, in [0, 1).
    dropout: float
    #: sigma: privacy fails with chance at most 2^-sigma.
    security_bits: int
    adversary: Adversary = Adversary.MALICIOUS

    @property
    def corrupted(self) -> int:
        """A."""
        return count_of(self.corruption, self.members)

    @property
    def lost(self) -> int:
        """D."""
        return count_of(self.dropout, self.members)

    @property
    def staying(self) -> int:
        """S = n - D = ceil((1 - delta) n)."""
        return self.members - self.lost


@dataclass(frozen=True)
class Parameters:
    """Even k neighbours a member, and t of its k + 1 holders that rebuild a secret."""

    neighbours: int
    threshold: int


def count_of(share: float, members: int) -> int:
    """floor(share n), with the share as the decimal number that is written: 0.29 of 100 is 29."""
    return math.floor(Fraction(str(float(share))) * members)


def find_parameters(assumed: Assumptions) -> Parameters:
    """The smallest even k < n - 1 with a threshold that is high enough to be safe and low enough to be met.

    Raises:
        InputError: no k serves; tells the nearest assumptions that some k serves.
    """
    found = search(assumed)
    if found is None:
        raise InputError(
            "no sparse graph withstands these assumptions",
            where=f"{assumed.members} members",
            expected="corruption + 2 dropout well below 1, and enough members",
            got=f"corruption {assumed.corruption}, dropout {assumed.dropout}, {assumed.security_bits} bits",
            hint=_nearest(assumed),
            reason="INFEASIBLE",
        )
    return found


def require_parameters(given: Parameters, assumed: Assumptions) -> None:
    """Refuse a k and t that were not found but given, unless they keep every condition.

    Raises:
        InputError: names the condition, and the nearest numbers that keep it.
    """
    k, t, n = given.neighbours, given.threshold, assumed.members
    if k % 2 or not 2 <= k < n - 1:
        expected = f"an even number of neighbours from 2 to {n - 2}"
    elif not is_connected(assumed, k):
        expected = "enough neighbours that the survivors stay connected"
    else:
        low, high = threshold_range(assumed, k)
        if low <= t <= high:
            return
        expected = f"a threshold of {low} to {high} with {k} neighbours"
        if low > high:
            expected = f"a threshold, of which there is none with {k} neighbours: {low} is safe, {high} can be met"
    found = search(assumed)
    raise InputError(
        "a number of neighbours and a threshold that the assumptions do not allow",
        where=f"{n} members",
        expected=expected,
        got=f"{k} neighbours, threshold {t}",
        hint=f"{found.neighbours} neighbours and threshold {found.threshold} would do" if found else _nearest(assumed),
        reason="INFEASIBLE",
    )


@lru_cache(maxsize=256)
def search(assumed: Assumptions) -> Parameters | None:
    """`find_parameters`, None if there are none. Cached: every member of a simulated round asks the same."""
    n = assumed.members
    for k in range(2, n - 1, 2):
        if _is_hopeless(assumed, k):
            break
        if is_connected(assumed, k):
            low, high = threshold_range(assumed, k)
            if low <= high:
                return Parameters(k, low)
    return None


def is_connected(assumed: Assumptions, k: int) -> bool:
    """True if honest survivors fall apart into two groups with chance at most 2^-(sigma + 1).

    By the union over pairs that are not adjacent: n (n-k-1) / 2 * C(n-k, A+D-k) / C(n, A+D).
    """
    n, away = assumed.members, assumed.corrupted + assumed.lost
    if k > away:
        return True
    log = math.log(n * (n - k - 1) / 2) + _log_choose(n - k, away - k) - _log_choose(n, away)
    return log <= -(assumed.security_bits + 1) * math.log(2)


def threshold_range(assumed: Assumptions, k: int) -> tuple[int, int]:
    """The lowest threshold that is safe and the highest that is met, with k neighbours; none if low > high.

    Safe: with t1 = min{x: P[Hyp(n, A, k) > x] <= 2^-(sigma+1) / n} corrupted neighbours at most,
    t = floor((k + 1 + t1) / 2) + 1, so that 2t > k + 1 + t1: two groups of t holders (the dealer is one) share an
    honest one. Met: max{t: P[Hyp(n, S, k) < t] <= 2^-eta / n}.
    """
    n = assumed.members
    corrupted = _log_pmf(n, assumed.corrupted, k)
    above = np.logaddexp.accumulate(corrupted[::-1])[::-1]  # log P[X >= x], x = 0 .. k
    unsafe = above > -(assumed.security_bits + 1) * math.log(2) - math.log(n)
    t1 = int(np.count_nonzero(unsafe)) - 1  # the largest x that is not improbable enough
    low = (k + 1 + t1) // 2 + 1 if assumed.adversary is Adversary.MALICIOUS else t1 + 1
    below = np.logaddexp.accumulate(_log_pmf(n, assumed.staying, k))  # log P[Y <= y], y = 0 .. k
    missed = below > -CORRECTNESS_BITS * math.log(2) - math.log(n)
    high = int(np.count_nonzero(~missed))  # P[Y < t] = P[Y <= t - 1]
    return low, high


def _is_hopeless(assumed: Assumptions, k: int) -> bool:
    """True if neither k nor any larger number of neighbours has a threshold against a lying coordinator.

    A hypergeometric median lies beside its mean, so t1 >= floor(kA/n) and the highest threshold <= ceil(kS/n); both
    conditions together then need k (n + A - 2S) < n.
    """
    n = assumed.members
    lying = assumed.adversary is Adversary.MALICIOUS
    return lying and k * (n + assumed.corrupted - 2 * assumed.staying) >= n


def _log_pmf(n: int, marked: int, drawn: int) -> Logs:
    """Log P[Hyp(n, marked, drawn) = x] for x = 0 .. drawn."""
    log_factorial = _log_factorials(n)
    low, high = max(0, drawn - (n - marked)), min(marked, drawn)
    x = np.arange(low, high + 1)
    of_marked = log_factorial[marked] - log_factorial[x] - log_factorial[marked - x]
    others = n - marked
    of_others = log_factorial[others] - log_factorial[drawn - x] - log_factorial[others - drawn + x]
    logs = np.full(drawn + 1, -np.inf)
    logs[low : high + 1] = of_marked + of_others - _log_choose(n, drawn)
    return logs


@lru_cache(maxsize=16)
def _log_factorials(n: int) -> Logs:
    """Log 0! .. log n!; computed once a cohort's size, since the search asks for all of them at every k."""
    logs = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    logs.flags.writeable = False
    return logs


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _nearest(assumed: Assumptions) -> str:
    """What to change: one assumption at a time, in whole percents, until a graph is found."""
    changes = []
    for name in ("corruption", "dropout"):
        share = getattr(assumed, name)
        low, high = -1, math.ceil(100 * share)  # percents: of `low` a graph is known (-1: none yet), of `high` none is
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if search(_with(assumed, name, middle / 100)) is None else (middle, high)
        if low >= 0:
            changes.append(f"{name} {low / 100} instead of {share}")
    return " or ".join(changes) if changes else "invite more members, or at most 64"


def _with(assumed: Assumptions, name: str, share: float) -> Assumptions:
    return replace(assumed, corruption=share) if name == "corruption" else replace(assumed, dropout=share)
