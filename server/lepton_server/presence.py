"""Who is connected, who was just lost, and so: who is in the next round. Not durable, since sessions are not."""

from __future__ import annotations

import hmac
from collections.abc import Set as AbstractSet

from lepton_core.ids import JobId, MemberId
from lepton_pool.terms import ASSUMED_DROPOUT, most_members
from lepton_server.jobs.phases import Ahead, Facts, Roll
from lepton_server.jobs.protocols import candidates

#: How long a job waits, over all its rounds, for one member that is lost and may come back: what its daemon needs to
#: start again, once or a few times.
RETURN_S = 20.0


class Presence:
    """The members' sessions, as far as rounds depend on them."""

    def __init__(self) -> None:
        self._connected: set[MemberId] = set()
        #: When members were lost that are not back.
        self._lost_at: dict[MemberId, float] = {}
        #: Seconds for which a job has waited for a member that came back.
        self._waited_s: dict[JobId, dict[MemberId, float]] = {}

    def came(self, member: MemberId, now: float) -> None:
        """The member has a session."""
        self._connected.add(member)
        lost_at = self._lost_at.pop(member, None)
        if lost_at is not None:
            for waited_s in self._waited_s.values():
                waited_s[member] = waited_s.get(member, 0.0) + (now - lost_at)

    def lost(self, member: MemberId, now: float) -> None:
        """The member's session has ended."""
        self._connected.discard(member)
        self._lost_at[member] = now

    def forget(self, job: JobId) -> None:
        """The job is over."""
        self._waited_s.pop(job, None)

    def waits_until(self, job: JobId, eligible: AbstractSet[MemberId], now: float) -> float:
        """Until when the next round is held for members that were just lost; a time that is over if for nobody."""
        waited_s = self._waited_s.setdefault(job, {})
        lost = [(member, self._lost_at[member]) for member in eligible if member in self._lost_at]
        ends = [lost_at + RETURN_S - waited_s.get(member, 0.0) for member, lost_at in lost]
        return max((end for end in ends if end > now), default=0.0)

    def cohort(self, facts: Facts, roll: Roll, able: AbstractSet[MemberId]) -> tuple[MemberId, ...]:
        """The members of a round that is opened now, sorted; empty while too few of those able are connected."""
        ready = [member for member in able if member in self._connected]
        if len(ready) < facts.job.aggregation.min_cohort:
            return ()
        nonce = facts.nonce(roll.next_round)
        drawn = sorted(ready, key=lambda member: hmac.digest(nonce, member, "sha256"))
        return tuple(sorted(drawn[: most_members(facts.job)]))

    def serves(self, roll: Roll, ahead: Ahead, cohort: tuple[MemberId, ...]) -> bool:
        """True if the round ahead has about as many members as one that would be opened now, and none that may not."""
        able = [member for member in candidates(ahead.protocol) if member in self._connected]
        return roll.eligible.issuperset(able) and len(able) >= (1.0 - ASSUMED_DROPOUT) * len(cohort)
