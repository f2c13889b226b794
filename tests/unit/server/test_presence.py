"""Whom the next round waits for, and for how long."""

from __future__ import annotations

from lepton_core.ids import JobId, MemberId
from lepton_server.presence import RETURN_S, Presence

JOB, OTHER = JobId("job"), JobId("other")
A, B = MemberId(b"a" * 16), MemberId(b"b" * 16)
BOTH = frozenset({A, B})


def test_nobody_is_waited_for_who_was_never_lost() -> None:
    presence = Presence()
    presence.came(A, 0.0)
    assert presence.waits_until(JOB, BOTH, 1.0) == 0.0


def test_the_last_of_those_that_may_come_back_is_waited_for() -> None:
    presence = Presence()
    presence.lost(A, 100.0)
    presence.lost(B, 105.0)
    assert presence.waits_until(JOB, BOTH, 106.0) == 105.0 + RETURN_S
    assert presence.waits_until(JOB, frozenset({A}), 106.0) == 100.0 + RETURN_S


def test_a_member_that_stays_away_is_waited_for_once() -> None:
    presence = Presence()
    presence.lost(A, 100.0)
    assert presence.waits_until(JOB, BOTH, 100.0 + RETURN_S) == 0.0
    assert presence.waits_until(JOB, BOTH, 500.0) == 0.0


def test_a_member_that_comes_and_goes_costs_a_job_no_more_time_than_one_that_stays_away() -> None:
    presence = Presence()
    now, waited = 0.0, 0.0
    for _ in range(50):
        presence.lost(A, now)
        until = presence.waits_until(JOB, BOTH, now)
        back = now + 3.0
        waited += max(0.0, min(until, back) - now)
        presence.came(A, back)
        now = back + 1.0
    assert waited == RETURN_S


def test_each_job_has_its_own_patience() -> None:
    presence = Presence()
    presence.lost(A, 0.0)
    presence.waits_until(JOB, BOTH, 0.0)
    presence.came(A, RETURN_S)
    presence.lost(A, 100.0)
    assert presence.waits_until(JOB, BOTH, 100.0) == 0.0
    assert presence.waits_until(OTHER, BOTH, 100.0) == 100.0 + RETURN_S
