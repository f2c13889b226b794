"""Rounds above 64 members: each knows its neighbours only, and the sum is exact, or the round ends cleanly.

The cohorts are as small, and the assumptions as mild, as sparse graphs allow: 66 members with 14 neighbours and
threshold 8 at dropout 0.1, 4 neighbours and threshold 3 at dropout 0.03.
"""

from dataclasses import replace

import numpy as np
import pytest

from lepton_core.errors import AbortedError
from lepton_core.ids import ModelVersion
from lepton_core.secagg import client_phases, server, server_phases
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.messages import Certificate, Delivery, InputTrailer, Roster, ShareMessage, SurvivorSet
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.sharing import CIPHERTEXT_BYTES
from lepton_core.secagg.simulate import run_round, step_of
from lepton_core.secagg.steps import Step
from lepton_core.secagg.survivors import symmetric_core
from lepton_core.secagg.terms import LaneGroup
from tests.protocol.fake_link import MODEL_DIGEST, NONCE, FakeRound
from tests.protocol.seeded import SeededRandomness, draw_values, make_identities, make_terms, pack_values

COUNT = 66
MILD = {"max_cohort": COUNT, "corruption": 0.0}
SPARSE = make_terms(dropout=0.1, **MILD)
SPARSER = make_terms(dropout=0.03, **MILD)


def silent(step, *members):
    """A link on which these members fall silent before their message of a step."""
    return lambda member, message: [] if member in members and step_of(message).value >= step.value else [message]


def graph_of(fake):
    """The graph that the round drew, from a copy of the round that is run until it has one."""
    phase = fake.first_phase
    for event in fake.journal:
        phase, _ = server.step(phase, event)
        if isinstance(phase, server_phases.AwaitingShares):
            return phase.cohort.graph
    raise AssertionError("the round never froze its roster")


@pytest.fixture(scope="module")
def whole():
    """A round in which nobody is lost."""
    return FakeRound(COUNT, terms=SPARSER).run()


def test_a_round_of_a_sparse_graph_is_exact_and_costs_each_member_its_neighbours_only(whole):
    whole.assert_exact()
    graph = graph_of(whole)
    assert (graph.degree, graph.threshold, graph.quorum) == (4, 3, 3)
    assert all(isinstance(phase, client_phases.Done) for phase in whole.members.values())
    assert (whole.deadlines, whole.rejected, whole.dropped) == (0, [], [])
    for member, message in whole.sent:
        around = graph.neighbours(member)
        match message:
            case Roster():
                assert len(message.leaves) == COUNT
                assert tuple(advert.member for advert in message.adverts) == around
            case Delivery():
                assert tuple(dealt.dealer for dealt in message.dealt) == around
            case Certificate():
                # As many signatures as it needs, of its neighbours, its own not counted.
                assert tuple(entry.member for entry in message.signatures) == around[: graph.quorum]
            case SurvivorSet():
                assert len(message.survivors) == COUNT
    assert len(whole.result.transcript.signatures) == COUNT


@pytest.mark.parametrize("step", Step)
def test_members_lost_at_any_step_leave_the_exact_sum(step):
    gone = [key.member for key in make_identities(COUNT)][::30]
    fake = FakeRound(COUNT, terms=SPARSE, up=silent(step, *gone)).run()
    fake.assert_exact()
    in_sum = step in {Step.CONSISTENCY, Step.UNMASK}
    assert len(fake.result.survivors) == COUNT - (0 if in_sum else len(gone))
    assert [(drop.member, drop.step) for drop in fake.dropped] == [(member, step) for member in gone]
    if step is Step.INPUT:
        graph = graph_of(fake)
        pairs = {(a, b) for a in gone for b in graph.neighbours(a) if b not in gone}
        assert fake.result.plan.pair_masks == len(pairs)
        assert fake.result.plan.mask_keys_reconstructed == len(gone)


def test_a_member_signs_no_survivor_set_for_which_its_graph_was_not_made():
    """Two fewer than dropout 0.03 of 66 allows: the graph might fall apart, so member and coordinator both refuse."""
    fake = FakeRound(COUNT, terms=SPARSER)
    member = fake.ids[0]

    def down(receiver, message):
        if receiver == member and isinstance(message, SurvivorSet):
            return [SurvivorSet(tuple(other for other in message.survivors if other not in fake.ids[-2:]))]
        return [message]

    fake.down = down
    fake.run()
    assert fake.error_of(member).reason == "TOO_FEW_SURVIVORS"
    assert fake.error_of(member).expected == "at least 65"

    lost = FakeRound(COUNT, terms=SPARSER, up=silent(Step.INPUT, *make_members(2))).run()
    assert lost.result is None
    assert isinstance(lost.error, AbortedError)
    assert lost.error.expected == "at least 65"


def make_members(count):
    return [key.member for key in make_identities(COUNT)][:count]


def forged_certificate(change):
    """A round in which one member's certificate is changed."""
    fake = FakeRound(COUNT, terms=SPARSER)
    victim = fake.ids[7]
    fake.down = lambda member, message: [
        change(fake, victim, message) if member == victim and isinstance(message, Certificate) else message
    ]
    fake.run()
    return fake, victim


def without_one_but_its_own(fake, victim, certificate):
    own = fake.phase.signatures[victim]
    entries = (*certificate.signatures[1:], own)
    return Certificate(tuple(sorted(entries, key=lambda entry: entry.member)))


def with_a_member_far_away(fake, victim, certificate):
    around = graph_of(fake).neighbours(victim)
    far = next(member for member in fake.ids if member not in around and member != victim)
    entries = (*certificate.signatures[1:], fake.phase.signatures[far])
    return Certificate(tuple(sorted(entries, key=lambda entry: entry.member)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [(without_one_but_its_own, "TOO_FEW_SIGNATURES"), (with_a_member_far_away, "BAD_SIGNER")],
)
def test_in_a_sparse_graph_only_neighbours_count_and_a_member_does_not_count_itself(change, reason):
    fake, victim = forged_certificate(change)
    assert fake.error_of(victim).reason == reason
    assert not any(isinstance(e, heard.UnmaskingReceived) and e.unmasking.member == victim for e in fake.journal)
    fake.assert_exact()


def test_a_graph_of_the_coordinator_s_choice_is_refused():
    fake = FakeRound(COUNT, terms=SPARSER)
    victim = fake.ids[7]

    def down(member, message):
        if member != victim or not isinstance(message, Roster):
            return [message]
        own = {advert.member for advert in message.adverts}
        stranger = next(m for m in fake.ids if m not in own and m != victim)
        adverts = (*message.adverts[1:], fake.phase.cohort.adverts[stranger])
        return [replace(message, adverts=tuple(sorted(adverts, key=lambda advert: advert.member)))]

    fake.down = down
    fake.run()
    assert fake.error_of(victim).reason == "WRONG_NEIGHBOURS"


@pytest.mark.parametrize("quiet", [(8, 12), (9,), (8, 9, 11, 12)])
def test_a_round_whose_secrets_could_not_all_be_rebuilt_ends_before_anything_is_revealed(whole, quiet):
    """Threshold 3 of 4 neighbours: one that does not sign can be spared, two beside one survivor cannot."""
    graph = graph_of(whole)
    fake = FakeRound(COUNT, terms=SPARSER, up=silent(Step.CONSISTENCY, *(graph.circle[place] for place in quiet))).run()
    if len(quiet) == 1:
        fake.assert_exact()
        return
    assert fake.result is None
    assert fake.error.reason == "UNRECOVERABLE"
    assert graph.circle[10].hex() in fake.error.where
    assert not any(isinstance(message, Certificate) for _, message in fake.sent)


def test_a_dealer_that_seals_rubbish_for_one_neighbour_costs_one_input_and_the_sum_stays_exact():
    def up(member, message):
        if member != dealer or not isinstance(message, ShareMessage):
            return [message]
        bad = replace(message.sealed[0], ciphertext=b"\0" * CIPHERTEXT_BYTES)
        return [replace(message, sealed=(bad, *message.sealed[1:]))]

    dealer = make_members(1)[0]
    fake = FakeRound(COUNT, terms=SPARSE, up=up).run()
    fake.assert_exact()
    assert len(fake.result.survivors) == COUNT - 1
    assert fake.result.plan.mask_keys_reconstructed == 1


def test_a_round_with_given_numbers_uses_them():
    terms = make_terms(dropout=0.03, neighbours=6, threshold=5, **MILD)
    fake = FakeRound(COUNT, terms=terms).run()
    fake.assert_exact()
    graph = graph_of(fake)
    assert (graph.degree, graph.threshold) == (6, 5)


def test_a_round_whose_given_numbers_do_not_hold_for_the_members_that_came_ends_cleanly():
    """20 neighbours and threshold 11 hold for 102 members with dropout 0.1, and for 101 they do not."""
    terms = make_terms(dropout=0.1, max_cohort=102, corruption=0.0, neighbours=20, threshold=11)
    fake = FakeRound(102, terms=terms, up=silent(Step.ADVERT, make_identities(102)[5].member)).run()
    assert fake.result is None
    assert fake.error.reason == "INFEASIBLE"
    assert "neighbours and threshold" in fake.error.hint
    assert isinstance(fake.phase, server_phases.Failed)
    assert [drop.step for drop in fake.dropped] == [Step.ADVERT]


def test_a_large_round_that_no_sparse_graph_serves_is_exact_over_the_complete_one():
    terms = make_terms((LaneGroup(4, 32),), max_cohort=65, corruption=0.36, dropout=0.3)
    identities = make_identities(65)
    rng = np.random.default_rng(3)
    values = {key.member: draw_values(terms, 65, rng) for key in identities}
    inputs = {member: pack_values(parts, terms) for member, parts in values.items()}
    ended = run_round(identities, inputs, terms, SeededRandomness("complete"), drop={identities[0].member: Step.INPUT})
    assert ended.result.plan.pair_masks == 64
    assert (ended.groups[0] == sum(inputs[member] for member in ended.result.survivors)).all()


def test_a_coordinator_rebuilt_from_its_journal_in_a_sparse_round_goes_on_the_same(whole):
    phase, _ = server.start(
        whole.setup,
        NONCE,
        {key.member: key.public for key in whole.identities},
        BoundModel(ModelVersion(4), MODEL_DIGEST),
    )
    for event in whole.journal:
        phase, _ = server.step(phase, event)
    assert phase == whole.phase


def test_leaving_a_sum_costs_no_more_than_the_disagreements():
    """3,000 on a circle with four neighbours each, every third of whom lacks all: the settled core is the rest."""
    size = 3000
    around = {member: tuple((member + hop) % size for hop in (-2, -1, 1, 2)) for member in range(size)}
    paired = {member: frozenset(() if member % 3 == 0 else around[member]) for member in range(size)}
    assert symmetric_core(paired, around) == tuple(member for member in range(size) if member % 3)


def test_a_lost_member_whose_late_input_comes_after_the_freeze_is_refused_in_a_sparse_round():
    late = []
    victim = make_members(1)[0]

    def hold(member, message):
        if isinstance(message, InputTrailer) and member == victim:
            late.append(message)
            return []
        return [message]

    fake = FakeRound(COUNT, terms=SPARSE, up=hold)
    heard_late = []
    fake.down = lambda member, message: (
        (
            heard_late.extend(fake.hear(heard.InputReceived(late[0])))
            if isinstance(message, Certificate) and not heard_late
            else None
        )
        or [message]
    )
    fake.run()
    assert [effect.error.reason for effect in heard_late] == ["LATE"]
    fake.assert_exact()
