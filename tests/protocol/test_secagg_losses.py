"""Members vanish, messages come late, twice and in any order: the sum is exact, or the round ends cleanly."""

import itertools
import random

import pytest

from lepton_core.errors import AbortedError
from lepton_core.secagg import client_events as told
from lepton_core.secagg import client_phases, server, server_phases
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.graph import threshold
from lepton_core.secagg.messages import InputTrailer
from lepton_core.secagg.server_status import step_of as step_of_phase
from lepton_core.secagg.server_status import waiting_for
from lepton_core.secagg.simulate import event_of, member_event_of, run_round, step_of
from lepton_core.secagg.steps import Step
from tests.protocol.fake_link import FakeRound
from tests.protocol.seeded import SeededRandomness, make_identities, make_terms, pack_values


def vanishing(step, members):
    """A link on which these members fall silent before their message of a step."""
    return lambda member, message: [] if member in members and step_of(message).value >= step.value else [message]


@pytest.mark.parametrize("count", range(3, 9))
@pytest.mark.parametrize("step", Step)
def test_each_single_member_lost_at_each_step_leaves_an_exact_sum_or_a_clean_abort(count, step):
    need = threshold(count, 0.1)
    for victim in make_identities(count):
        fake = FakeRound(count, up=vanishing(step, {victim.member})).run()
        survives = count - 1 >= (3 if step is Step.ADVERT else need)
        if not survives:
            assert fake.result is None
            assert isinstance(fake.error, AbortedError)
            assert victim.member.hex() in str(fake.error)
            continue
        fake.assert_exact()
        in_sum = step in {Step.CONSISTENCY, Step.UNMASK}
        assert (victim.member in fake.result.survivors) is in_sum
        assert len(fake.result.survivors) == count - (0 if in_sum else 1)
        assert fake.result.plan.pair_masks == (count - 1 if step is Step.INPUT else 0)
        assert [(drop.member, drop.step) for drop in fake.dropped] == [(victim.member, step)]


@pytest.mark.parametrize("steps", list(itertools.combinations_with_replacement(Step, 2)))
def test_two_of_eight_lost_at_any_two_steps_leave_an_exact_sum_or_a_clean_abort(steps):
    first, second = make_identities(8)[2].member, make_identities(8)[5].member
    fake = FakeRound(
        8,
        up=lambda member, message: (
            vanishing(steps[0], {first})(member, message) and vanishing(steps[1], {second})(member, message)
        ),
    ).run()
    # t is 6 of 8 or 5 of 7: two losses leave enough at every step.
    fake.assert_exact()
    assert len(fake.result.survivors) == 8 - sum(step.value <= Step.INPUT.value for step in steps)


@pytest.mark.parametrize("step", Step)
def test_one_more_loss_than_the_threshold_allows_aborts_and_names_the_missing(step):
    gone = {key.member for key in make_identities(8)[:3]}
    fake = FakeRound(8, up=vanishing(step, gone)).run()
    if step is Step.ADVERT:
        fake.assert_exact()
        return
    assert fake.result is None
    assert fake.error.reason == "TOO_FEW_MEMBERS"
    assert fake.error.where == f"step {step.name}"
    assert all(member.hex() in str(fake.error) for member in gone)


@pytest.mark.parametrize("step", Step)
def test_a_member_known_to_be_lost_is_not_waited_for(step):
    victim = make_identities(5)[1].member

    def silent(member, message):
        if member == victim and step_of(message) is step:
            fake_lost.append(member)
            return []
        return [message]

    fake_lost = []
    fake = FakeRound(5, up=silent)
    while fake.queue:
        kind, member, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        elif member not in fake.lost:
            fake.tell(member, member_event_of(message))
        if fake_lost and not fake.lost:
            fake.lose(victim)
    if fake_lost and not fake.lost:
        fake.lose(victim)
    fake.run()
    fake.assert_exact()
    assert fake.deadlines == 0


@pytest.mark.parametrize("seed", range(25))
def test_messages_doubled_late_and_reordered_change_nothing(seed):
    fake = FakeRound(6, chaos=random.Random(seed)).run()
    fake.assert_exact()
    assert fake.result.survivors == tuple(fake.ids)
    assert not fake.rejected
    assert all(count == 1 for count in fake.recorded.values())
    assert all(isinstance(phase, client_phases.Done) for phase in fake.members.values())


@pytest.mark.parametrize("seed", range(10))
def test_a_coordinator_rebuilt_from_its_journal_at_any_event_goes_on_the_same(seed):
    fake = FakeRound(5, chaos=random.Random(seed), up=vanishing(Step.INPUT, {make_identities(5)[0].member})).run()
    phase = fake.first_phase
    for event in fake.journal:
        phase, _ = server.step(phase, event)
    assert phase == fake.phase
    assert repr(phase) == repr(fake.phase)


def test_a_lost_message_is_told_again_as_outstanding():
    once = set()

    def lossy(member, message):
        key = (member, type(message))
        if key in once:
            return [message]
        once.add(key)
        return []

    fake = FakeRound(5, down=lossy)
    for _ in range(20):
        while fake.queue:
            kind, member, message = fake.queue.pop(0)
            if kind == "up":
                fake.hear(event_of(message))
            else:
                fake.tell(member, member_event_of(message))
        for member in fake.ids:
            again = server.outstanding(fake.phase, member)
            if again is not None:
                fake.tell(member, member_event_of(again))
    fake.assert_exact()
    assert fake.deadlines == 0


def test_the_status_names_the_step_and_whom_it_waits_for():
    fake = FakeRound(5, up=vanishing(Step.SHARE, {make_identities(5)[3].member}))
    assert (step_of_phase(fake.phase), waiting_for(fake.phase)) == (Step.ADVERT, tuple(fake.ids))
    fake.hear(heard.MemberLost(fake.ids[0], "stream gone"))
    assert waiting_for(fake.phase) == tuple(fake.ids[1:])
    while fake.queue:
        kind, member, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        else:
            fake.tell(member, member_event_of(message))
    assert (step_of_phase(fake.phase), waiting_for(fake.phase)) == (Step.SHARE, (fake.ids[3],))
    fake.run()
    assert (step_of_phase(fake.phase), waiting_for(fake.phase)) == (Step.UNMASK, ())


def test_the_setup_is_awaited_until_the_advert_and_answered_the_same():
    fake = FakeRound(5, up=lambda member, message: [])
    member = fake.ids[0]
    assert server.awaits_advert(fake.phase, member)
    advert = fake.members[member].advert
    assert fake.tell(member, told.SetupReceived(fake.setup)) == (told.Send(advert),)
    fake.hear(heard.AdvertReceived(advert))
    assert not server.awaits_advert(fake.phase, member)


def test_an_upload_after_the_freeze_is_refused_and_not_in_the_sum():
    late = []

    def hold(member, message):
        if isinstance(message, InputTrailer) and member == make_identities(5)[4].member:
            late.append(message)
            return []
        return [message]

    fake = FakeRound(5, up=hold)
    while not isinstance(fake.phase, server_phases.AwaitingSignatures):
        if not fake.queue:
            fake.hear(heard.DeadlinePassed(Step.INPUT))
            continue
        kind, member, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        else:
            fake.tell(member, member_event_of(message))
    effects = fake.hear(heard.InputReceived(late[0]))
    assert [effect.error.reason for effect in effects] == ["LATE"]
    fake.run()
    fake.assert_exact()
    assert fake.ids[4] not in fake.result.survivors


def test_a_member_given_up_for_lost_counts_when_its_message_comes_in_time():
    fake = FakeRound(5)
    fake.hear(heard.MemberLost(fake.ids[0], "stream gone"))
    fake.run()
    fake.assert_exact()
    assert fake.ids[0] in fake.result.survivors


def test_a_member_that_came_back_is_waited_for_again():
    fake = FakeRound(5)
    back = fake.ids[0]
    fake.hear(heard.MemberLost(back, "stream gone"))
    fake.up = lambda member, message: [] if member == back else [message]
    while fake.queue:
        kind, member, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        else:
            fake.tell(member, member_event_of(message))
    assert isinstance(fake.phase, server_phases.AwaitingShares)
    assert waiting_for(fake.phase) == (back,)


def test_the_round_in_memory_gives_the_exact_sum_of_the_survivors():
    terms, identities = make_terms(), make_identities(5)
    fake = FakeRound(5, terms=terms)
    inputs = {member: pack_values(values, terms) for member, values in fake.values.items()}
    ended = run_round(identities, inputs, terms, SeededRandomness("simulate"), drop={identities[3].member: Step.INPUT})
    assert ended.error is None
    assert ended.result.plan.pair_masks == 4
    survivors = ended.result.survivors
    assert identities[3].member not in survivors
    expected = sum(inputs[member] for member in survivors)
    start = 0
    for words in ended.groups:
        assert (words == expected[start : start + len(words)]).all()
        start += len(words)
