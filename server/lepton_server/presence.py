"""Who is connected, who was just lost, and so: who is in the next round. Not durable, since sessions are not."""

from __future__ import annotations

import hmac
from collections.abc import Set as AbstractSet

from lepton_core.ids import JobId, MemberId
from lepton_pool.terms import ASSUMED_DROPOUT, most_members
from lepton_server.jobs.phases import Ahead, Facts, Roll
from lepton_server.jobs.protocols import candidates

#: How long the next round waits for a member that was just lost, once a job: what a daemon needs to start again.
RETURN_S = 20.0


class Presence:
    """The members' sessions, as far as rounds depend on them."""

    def __init__(self) -> None:
        self._connected: set[MemberId] = set()
        #: When members were lost that are not back.
        self._lost_at: dict[MemberId, float] = {}
        #: For whom a job has waited already.
        self._waited_for: dict[JobId, set[MemberId]] = {}

    def came(self, member: MemberId) -> None:
        """The member has a session."""
        self._connected.add(member)
        if self._lost_at.pop(member, None) is not None:
            for waited_for in self._waited_for.values():
                waited_for.add(member)

    def lost(self, member: MemberId, now: float) -> None:
        """The member's session has ended."""
        self._connected.discard(member)
        self._lost_at[member] = now

    def forget(self, job: JobId) -> None:
        """The job is over."""
        self._waited_for.pop(job, None)

    def waits_until(self, job: JobId, eligible: AbstractSet[MemberId], now: float) -> float:
        """Until when the next round is held for members that were just lost; a time that is over if for nobody."""
        waited_for = self._waited_for.setdefault(job, set())
        until = 0.0
        for member in eligible - waited_for:
            lost_at = self._lost_at.get(member)
            if lost_at is None:
                continue
            if lost_at + RETURN_S > now:
                until = max(until, lost_at + RETURN_S)
            else:
                waited_for.add(member)
        return until

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
