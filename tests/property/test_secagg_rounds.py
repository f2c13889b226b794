"""Laws of secure aggregation: any lanes, any lengths, any losses, and the sum is exact or not told."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_core.errors import AbortedError
from lepton_core.lane_widths import LANE_BITS
from lepton_core.ring import unpack
from lepton_core.secagg import client_phases
from lepton_core.secagg.agreement import Secret
from lepton_core.secagg.graph import threshold
from lepton_core.secagg.masks import add_mask
from lepton_core.secagg.shamir import PRIME, reconstruct, split
from lepton_core.secagg.simulate import run_round, step_of
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import LaneGroup
from tests.property.budget import examples
from tests.protocol.fake_link import FakeRound
from tests.protocol.seeded import SeededRandomness, draw_values, make_identities, make_terms, pack_values

LANES = st.lists(
    st.builds(LaneGroup, length=st.integers(1, 70), bits=st.sampled_from(LANE_BITS)), min_size=1, max_size=3
).map(tuple)


@settings(max_examples=examples(40, 2_000))
@given(
    count=st.integers(3, 8),
    groups=LANES,
    losses=st.lists(st.tuples(st.integers(0, 7), st.sampled_from(Step)), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_a_round_with_any_losses_gives_the_exact_sum_of_its_survivors_or_none(count, groups, losses, seed):
    terms = make_terms(groups)
    identities = make_identities(count)
    rng = np.random.default_rng(seed)
    values = {key.member: draw_values(terms, count, rng) for key in identities}
    inputs = {member: pack_values(parts, terms) for member, parts in values.items()}
    drop = {identities[index].member: step for index, step in losses if index < count}
    ended = run_round(identities, inputs, terms, SeededRandomness(str(seed)), drop=drop)
    if ended.result is None:
        assert isinstance(ended.error, AbortedError)
        assert drop
        return
    survivors = ended.result.survivors
    assert set(survivors) == {
        key.member for key in identities if drop.get(key.member, Step.UNMASK).value > Step.INPUT.value
    }
    on_roster = count - sum(step is Step.ADVERT for step in drop.values())
    assert len(survivors) >= threshold(on_roster, terms.corruption)
    for index, group in enumerate(groups):
        expected = sum(values[member][index] for member in survivors)
        np.testing.assert_array_equal(unpack(ended.groups[index], group.bits, group.length), expected)


@settings(max_examples=examples(2, 200))
@given(
    count=st.integers(65, 80),
    losses=st.dictionaries(st.integers(0, 79), st.sampled_from(Step), max_size=7),
    seed=st.integers(0, 2**32),
)
def test_a_round_over_a_sparse_graph_with_any_losses_gives_the_exact_sum_of_its_survivors_or_none(count, losses, seed):
    terms = make_terms((LaneGroup(5, 21),), max_cohort=80, corruption=0.0, dropout=0.1)
    identities = make_identities(count)
    rng = np.random.default_rng(seed)
    values = {key.member: draw_values(terms, count, rng) for key in identities}
    inputs = {member: pack_values(parts, terms) for member, parts in values.items()}
    drop = {identities[index].member: step for index, step in losses.items() if index < count}
    ended = run_round(identities, inputs, terms, SeededRandomness(str(seed)), drop=drop)
    if ended.result is None:
        assert isinstance(ended.error, AbortedError)
        assert drop
        return
    in_sum = {key.member for key in identities if drop.get(key.member, Step.UNMASK).value > Step.INPUT.value}
    assert set(ended.result.survivors) == in_sum
    np.testing.assert_array_equal(
        unpack(ended.groups[0], 21, 5), sum(values[member][0] for member in ended.result.survivors)
    )


@settings(max_examples=examples(30, 2_000))
@given(
    count=st.integers(3, 7),
    seed=st.integers(0, 2**32),
    losses=st.dictionaries(st.integers(0, 6), st.sampled_from(Step), max_size=2),
)
def test_any_order_any_doubling_and_any_losses_end_with_an_exact_sum_or_a_clean_abort(count, seed, losses):
    gone = {make_identities(count)[index].member: step for index, step in losses.items() if index < count}

    def up(member, message):
        return [] if member in gone and step_of(message).value >= gone[member].value else [message]

    fake = FakeRound(count, up=up, chaos=random.Random(seed)).run()
    if fake.result is None:
        assert fake.error.reason == "TOO_FEW_MEMBERS"
    else:
        fake.assert_exact()
    assert not fake.rejected
    assert not any(isinstance(phase, client_phases.Failed) for phase in fake.members.values())
    assert all(count == 1 for count in fake.recorded.values())


@given(
    secret=st.integers(0, PRIME - 1),
    shape=st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    seed=st.integers(0, 2**32),
)
def test_any_threshold_of_shares_rebuilds_the_secret(secret, shape, seed):
    holders, t = shape
    xs = tuple(range(1, holders + 1))
    shares = split(secret, t, xs, SeededRandomness(str(seed)))
    chosen = random.Random(seed).sample(range(holders), t)
    assert reconstruct([shares[i] for i in chosen], [xs[i] for i in chosen], t) == secret


@given(start=st.integers(0, 2**40), length=st.integers(0, 300), cut=st.integers(0, 300))
def test_slices_of_a_mask_join(start, length, cut):
    key = Secret(b"k" * 32)
    whole = np.zeros(length, dtype=np.uint64)
    add_mask(whole, key, 1, start)
    cut = min(cut, length)
    parts = np.zeros(length, dtype=np.uint64)
    add_mask(parts[:cut], key, 1, start)
    add_mask(parts[cut:], key, 1, start + cut)
    np.testing.assert_array_equal(whole, parts)


@settings(max_examples=examples(15, 500))
@given(seed=st.integers(0, 2**32))
def test_masked_words_of_one_input_differ_in_every_round_and_hide_zeros(seed):
    terms = make_terms((LaneGroup(400, 16),))
    identities = make_identities(3)
    zeros = {key.member: np.zeros(terms.words, dtype=np.uint64) for key in identities}
    first = run_round(identities, zeros, terms, SeededRandomness(f"{seed} a"))
    second = run_round(identities, zeros, terms, SeededRandomness(f"{seed} b"))
    assert not np.concatenate(first.groups).any()
    digests = [*first.result.payload_digests.values(), *second.result.payload_digests.values()]
    assert len(set(digests)) == 6
