"""Running sums of masked inputs: exactly the inputs named, whatever came, was held, spilt or added before."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_core.errors import CodecError, NotFoundError
from lepton_core.ids import Digest, JobId, RoundNumber, digest_of
from lepton_core.secagg.terms import LaneGroup, Setup
from lepton_server.rounds import sums
from lepton_server.rounds.sums import RunningSums
from lepton_server.store.artifacts import MemoryArtifacts
from tests.protocol.seeded import make_terms

TERMS = make_terms((LaneGroup(16, 16),))
SETUP = Setup(JobId("job"), RoundNumber(1), TERMS, bytes(32))
NEXT = Setup(JobId("job"), RoundNumber(2), TERMS, bytes(32))
INPUTS = [np.random.default_rng(seed).integers(0, 2**64, TERMS.words, dtype=np.uint64) for seed in range(5)]
PAYLOADS = [words.astype("<u8").tobytes() for words in INPUTS]
DIGESTS = [digest_of(payload) for payload in PAYLOADS]


@pytest.fixture
def artifacts() -> MemoryArtifacts:
    return MemoryArtifacts()


def expected(*places: int) -> np.ndarray:
    total = np.zeros(TERMS.words, dtype=np.uint64)
    for place in places:
        total += INPUTS[place]
    return total


def test_a_total_is_over_the_inputs_named_whether_held_uploaded_added_or_not(artifacts) -> None:
    running = RunningSums(artifacts)
    running.hold(SETUP, DIGESTS[0], PAYLOADS[0])
    running.hold(SETUP, DIGESTS[1], PAYLOADS[1])
    for place in (2, 3, 4):
        artifacts.put(PAYLOADS[place])
    for place in (0, 2, 4, 2):
        running.add(SETUP, DIGESTS[place])
    np.testing.assert_array_equal(
        running.total(SETUP, [DIGESTS[place] for place in (0, 1, 2, 3)]), expected(0, 1, 2, 3)
    )


def test_an_input_that_came_and_is_not_in_the_sum_is_taken_off_to_the_last_word(artifacts) -> None:
    running = RunningSums(artifacts)
    for place in range(4):
        running.hold(SETUP, DIGESTS[place], PAYLOADS[place])
        running.add(SETUP, DIGESTS[place])
    np.testing.assert_array_equal(running.total(SETUP, [DIGESTS[3], DIGESTS[1]]), expected(1, 3))


def test_a_total_asked_for_twice_is_the_same(artifacts) -> None:
    running = RunningSums(artifacts)
    for place in range(3):
        running.hold(SETUP, DIGESTS[place], PAYLOADS[place])
    for _ in range(2):
        np.testing.assert_array_equal(running.total(SETUP, DIGESTS[:3]), expected(0, 1, 2))


def test_a_restarted_coordinator_adds_from_the_store(artifacts) -> None:
    for payload in PAYLOADS:
        artifacts.put(payload)
    np.testing.assert_array_equal(RunningSums(artifacts).total(SETUP, DIGESTS), expected(0, 1, 2, 3, 4))


def test_accepted_inputs_are_put_into_the_store_when_their_messages_are_and_others_are_not(artifacts) -> None:
    running = RunningSums(artifacts)
    running.hold(SETUP, DIGESTS[0], PAYLOADS[0])
    running.hold(SETUP, DIGESTS[1], PAYLOADS[1])
    running.spill(SETUP.job, [DIGESTS[0]])
    assert artifacts.has(DIGESTS[0])
    assert not artifacts.has(DIGESTS[1]), "its trailer was refused"
    assert running.holds(SETUP, DIGESTS[1])
    np.testing.assert_array_equal(running.total(SETUP, DIGESTS[:2]), expected(0, 1))


def test_beyond_a_window_of_memory_accepted_inputs_go_to_the_store_and_refused_ones_nowhere(
    artifacts, monkeypatch
) -> None:
    monkeypatch.setattr(sums, "WINDOW_BYTES", 3 * len(PAYLOADS[0]))
    running = RunningSums(artifacts)
    for place in range(4):
        running.hold(SETUP, DIGESTS[place], PAYLOADS[place])
    running.settle(SETUP.job, DIGESTS[:2])
    assert [running.holds(SETUP, digest) for digest in DIGESTS[:4]] == [True, True, False, False]
    assert not any(artifacts.has(digest) for digest in DIGESTS), "within the window nothing is stored"
    for place in (2, 3):
        running.hold(SETUP, DIGESTS[place], PAYLOADS[place])
    running.settle(SETUP.job, DIGESTS[:3])
    assert [artifacts.has(digest) for digest in DIGESTS[:4]] == [False] * 4, "the fourth was refused: three fit"
    running.hold(SETUP, DIGESTS[3], PAYLOADS[3])
    running.settle(SETUP.job, DIGESTS[:4])
    assert all(artifacts.has(digest) for digest in DIGESTS[:4])
    np.testing.assert_array_equal(running.total(SETUP, DIGESTS[:4]), expected(0, 1, 2, 3))


def test_rounds_are_summed_apart_and_older_ones_forgotten(artifacts) -> None:
    running = RunningSums(artifacts)
    running.hold(SETUP, DIGESTS[0], PAYLOADS[0])
    running.hold(NEXT, DIGESTS[1], PAYLOADS[1])
    running.forget(SETUP.job, RoundNumber(2))
    assert not running.holds(SETUP, DIGESTS[0])
    np.testing.assert_array_equal(running.total(NEXT, [DIGESTS[1]]), expected(1))


def test_words_that_are_nowhere_or_of_another_length_are_an_error_and_change_nothing(artifacts) -> None:
    running = RunningSums(artifacts)
    running.hold(SETUP, DIGESTS[0], PAYLOADS[0])
    with pytest.raises(NotFoundError):
        running.add(SETUP, Digest("0" * 64))
    short = artifacts.put(PAYLOADS[1][:-8])
    with pytest.raises(CodecError, match="length"):
        running.add(SETUP, short)
    np.testing.assert_array_equal(running.total(SETUP, DIGESTS[:1]), expected(0))
