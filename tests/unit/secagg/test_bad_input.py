"""What no round can be run with is refused before any secret is made, and the rule that is broken is named."""

from dataclasses import replace

import numpy as np
import pytest

from lepton_compression.update import derive_plan, encode
from lepton_core.errors import CodecError, InputError
from lepton_core.ids import JobId, RoundNumber
from lepton_core.lane_widths import LANE_BITS
from lepton_core.ring import require_range
from lepton_core.secagg import client, client_phases, server
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.lanes import pack_input, unpack_sum
from lepton_core.secagg.simulate import run_round
from lepton_core.secagg.terms import LaneGroup, Setup, commit_nonce
from tests.protocol.seeded import make_identities, make_terms

NONCE = b"n" * 32


class NoRandomness:
    """Randomness that nobody may ask: whoever does has begun to make secrets."""

    def token(self, length):
        raise AssertionError("a secret was drawn")


def refusals_of(terms, count=5):
    """How a member, the coordinator and a round in memory refuse the terms; none of them draws anything."""
    identities = make_identities(count)
    listed = {key.member: key.public for key in identities}
    setup = Setup(JobId("test"), RoundNumber(1), terms, commit_nonce(NONCE))
    admission = Admission(listed, terms.membership_digest, terms.min_cohort, terms.corruption)
    phase, _ = client.start(setup, identities[0], admission, NoRandomness())
    assert isinstance(phase, client_phases.Failed)
    with pytest.raises(InputError) as opened:
        server.start(setup, NONCE, listed)
    inputs = {key.member: np.zeros(terms.words, dtype=np.uint64) for key in identities}
    with pytest.raises(InputError) as simulated:
        run_round(identities, inputs, terms, NoRandomness())
    return [phase.error, opened.value, simulated.value]


BROKEN_RULES = {
    "lanes that the sum of so many members overflows": (
        {"lane_groups": (LaneGroup(9, 16), LaneGroup(5, 8)), "max_cohort": 256},
        "every lane holds the sum of max_cohort values of one bit",
    ),
    "a cohort of two": ({"min_cohort": 2}, "min_cohort is at least 3"),
    "no lane group": ({"lane_groups": ()}, "there is a lane group"),
    "a lane group without a value": (
        {"lane_groups": (LaneGroup(9, 16), LaneGroup(0, 16))},
        "every lane group holds a value",
    ),
    "a model without a parameter": ({"model_length": 0}, "the model has a parameter"),
    "a vector longer than any": ({"lane_groups": (LaneGroup(2**34 + 1, 16),)}, "the vector has 1 to"),
    "a threshold without neighbours": ({"threshold": 4}, "neighbours and threshold are both given or both left out"),
    "a threshold above the neighbours": ({"neighbours": 8, "threshold": 9}, "the threshold is no larger"),
    "colluders in the majority": ({"corruption": 0.5}, "corruption is in [0, 0.5)"),
    "a share of colluders that is no number": ({"corruption": float("nan")}, "corruption is in [0, 0.5)"),
    "everybody dropping out": ({"dropout": 1.0}, "dropout is in [0, 1)"),
    "a dropout that is no number": ({"dropout": float("nan")}, "dropout is in [0, 1)"),
    "a graph that can be ground": ({"security_bits": 79}, "security_bits is 80 to 256"),
    "a digest cut short": ({"job_digest": b"j" * 31}, "digests have 32 bytes"),
    "a deadline that never comes": ({"step_deadline_s": float("inf")}, "the step deadline is positive"),
}


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_terms_are_refused_before_any_secret_is_made_with(name):
    changes, rule = BROKEN_RULES[name]
    terms = replace(make_terms(), **changes)
    if name == "a vector longer than any":
        with pytest.raises(InputError) as refused:
            terms.require_sound()
        assert rule in refused.value.expected
        return
    for error in refusals_of(terms):
        assert isinstance(error, InputError)
        assert rule in error.expected


@pytest.mark.parametrize("bits", [b for b in range(1, 65) if b not in LANE_BITS])
def test_lanes_that_do_not_divide_a_word_into_equal_parts_are_refused_before_any_secret_is_made(bits):
    terms = make_terms((LaneGroup(9, bits),))
    with pytest.raises(InputError) as refused:
        terms.require_sound()
    assert f"lanes have one of {LANE_BITS} bits" in refused.value.expected
    setup = Setup(JobId("test"), RoundNumber(1), terms, commit_nonce(NONCE))
    key = make_identities(1)[0]
    admission = Admission({key.member: key.public}, terms.membership_digest, 3, 0.1)
    phase, _ = client.start(setup, key, admission, NoRandomness())
    assert phase.error.expected == refused.value.expected


@pytest.mark.parametrize("threshold", [19, 23, 33])
def test_a_threshold_that_the_graph_does_not_allow_is_refused_with_the_nearest_that_it_does(threshold):
    """32 neighbours of 100, 5 % colluding and 10 % lost: 20 holders are the fewest that are safe, 22 the most met."""
    terms = make_terms(max_cohort=100, min_cohort=100, corruption=0.05, dropout=0.1, neighbours=32, threshold=threshold)
    for error in refusals_of(terms, count=100):
        if threshold > 32:
            assert "the threshold is no larger" in error.expected
            continue
        assert error.expected == "a threshold of 20 to 22 with 32 neighbours"
        assert error.hint == "28 neighbours and threshold 18 would do"
        assert error.reason == "INFEASIBLE"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_members_are_refused_before_any_secret_is_made(count):
    terms = make_terms()
    identities = make_identities(count)
    inputs = {key.member: np.zeros(terms.words, dtype=np.uint64) for key in identities}
    with pytest.raises(InputError) as refused:
        run_round(identities, inputs, terms, NoRandomness())
    assert refused.value.reason == "COHORT_SIZE"
    assert refused.value.expected.startswith("3 to ")


def vectors(first=0, second=0, *, dtype=np.int64):
    """An input of the usual terms: nine values in lanes of 16 bits, five in lanes of 21, for 64 members at most."""
    return [np.full(9, first, dtype=dtype), np.full(5, second, dtype=dtype)]


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        (-1, 0, "0 to 1023, so that the sum of 64 members fits a lane of 16 bits"),
        (1024, 0, "0 to 1023, so that the sum of 64 members fits a lane of 16 bits"),
        (0, 32_768, "0 to 32767, so that the sum of 64 members fits a lane of 21 bits"),
        (0, -(2**63), "0 to 32767, so that the sum of 64 members fits a lane of 21 bits"),
    ],
)
def test_a_vector_with_values_out_of_range_is_refused_and_no_value_is_told(first, second, rule):
    with pytest.raises(CodecError, match="values out of range") as refused:
        pack_input(vectors(first, second), make_terms())
    assert refused.value.expected == rule
    assert refused.value.got in {"9 values outside", "5 values outside"}


def test_values_at_both_ends_of_their_range_come_back_as_the_sum_of_all_members():
    terms = make_terms()
    largest = vectors(1023, 32_767)
    words = pack_input(largest, terms)
    cut = terms.lane_groups[0].words
    total = unpack_sum([64 * words[:cut], 64 * words[cut:]], terms)
    assert [part.tolist() for part in total] == [[64 * 1023] * 9, [64 * 32_767] * 5]
    assert not pack_input(vectors(), terms).any()


@pytest.mark.parametrize(
    "wrong",
    [
        vectors()[:1],
        vectors()[::-1],
        [*vectors(), np.zeros(1, dtype=np.int64)],
        [np.zeros(8, dtype=np.int64), np.zeros(5, dtype=np.int64)],
        [np.zeros((9, 1), dtype=np.int64), np.zeros(5, dtype=np.int64)],
    ],
)
def test_an_input_that_does_not_fit_the_terms_is_refused(wrong):
    with pytest.raises(CodecError, match="does not fit the terms"):
        pack_input(wrong, make_terms())
    with pytest.raises(CodecError):
        unpack_sum([np.zeros(3, dtype=np.uint64)], make_terms())


@pytest.mark.parametrize("dtype", [np.float64, np.uint64, np.int32])
def test_values_that_were_not_rounded_to_lanes_are_refused(dtype):
    with pytest.raises(CodecError) as refused:
        require_range(np.zeros(4, dtype=dtype), 16, 3)
    assert refused.value.expected == "values rounded to int64"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_before_quantisation_and_before_anything_is_drawn(bad):
    update = np.zeros(40, dtype=np.float32)
    update[7] = bad
    plan = derive_plan(model_length=40, kept_fraction=1.0, profile="default", update_norm=1.0, members_max=5)
    with pytest.raises(CodecError) as refused:
        encode(update, plan, bytes(32), NoRandomness())
    assert refused.value.expected == "finite values"
    assert refused.value.got == "1 NaN or Inf"


def test_a_round_in_memory_refuses_words_of_another_length_before_any_secret_is_made():
    terms = make_terms()
    identities = make_identities(3)
    inputs = {key.member: np.zeros(terms.words, dtype=np.uint64) for key in identities}
    inputs[identities[1].member] = np.zeros(terms.words + 1, dtype=np.uint64)
    with pytest.raises(CodecError, match="do not fit the terms"):
        run_round(identities, inputs, terms, NoRandomness())
