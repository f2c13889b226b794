import contextlib

import pytest

from lepton_core.errors import RefusedError
from lepton_server.api import knowledge_callers
from lepton_server.api.knowledge_callers import CallerLimits, Callers


@pytest.fixture
def callers():
    return Callers(CallerLimits(requests_per_s=2.0, burst=3, at_once=2))


def ask(callers, caller="ada", now=0.0):
    with callers.asking(caller, now=now):
        pass


def test_a_caller_may_burst_and_then_keep_the_rate(callers):
    for _ in range(3):
        ask(callers)
    with pytest.raises(RefusedError) as refused:
        ask(callers, now=0.4)
    assert refused.value.reason == "RATE"
    ask(callers, now=0.9)
    with pytest.raises(RefusedError):
        ask(callers, now=0.9)
    ask(callers, "bob", now=0.9)
    for _ in range(3):
        ask(callers, now=100.0)
    with pytest.raises(RefusedError):
        ask(callers, now=100.0)


def test_a_caller_has_so_many_requests_at_once_and_no_more(callers):
    with callers.asking("ada", now=0.0):
        with callers.asking("ada", now=0.0):
            with pytest.raises(RefusedError) as refused:
                ask(callers)
            assert refused.value.reason == "CONCURRENCY"
            ask(callers, "bob")
        ask(callers, now=1.0)


def test_a_request_that_fails_gives_its_place_back(callers):
    for now in range(5):
        with contextlib.suppress(ValueError), callers.asking("ada", now=float(now)):
            raise ValueError


def test_no_flood_of_callers_takes_more_memory_or_another_s_place(callers, monkeypatch):
    monkeypatch.setattr(knowledge_callers, "_MOST_CALLERS", 3)
    with callers.asking("ada", now=0.0), callers.asking("ada", now=0.0):
        for number in range(20):
            ask(callers, f"caller-{number}")
        assert len(callers._allowances) <= 4
        with pytest.raises(RefusedError):
            ask(callers)
