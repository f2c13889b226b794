"""A round that is opened and not begun: what it may change, when it is given up, and that a restart rebuilds it."""

from __future__ import annotations

from dataclasses import replace

from lepton_core.ids import Digest, RoundNumber
from lepton_core.secagg.server_phases import AwaitingAdverts, AwaitingShares
from lepton_core.session import Refusal, RoundClosed, RoundInvite, RoundOutcome
from lepton_server.jobs import events as ev
from lepton_server.jobs import machine
from lepton_server.jobs.live import Live, Steps, rebuild
from lepton_server.jobs.phases import Ended, Rounding, Waiting
from lepton_server.jobs.show import job_view
from lepton_server.store.memory import MemoryStore
from lepton_server.store.port import JobRecord
from tests.unit.server.test_job_machine import NOW, make_facts, play, rounding_phase, waiting

ONE, TWO, THREE = RoundNumber(1), RoundNumber(2), RoundNumber(3)


def with_ahead(facts):
    phase = play(facts, rounding_phase(facts), ev.RoundOpened(tuple(sorted(facts.peers))))
    assert isinstance(phase, Rounding)
    assert phase.roll.ahead is not None
    return phase


def test_opening_asks_for_keys_and_changes_nothing_of_the_running_round() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    after, effects = machine.step(facts, phase, ev.Stamped(NOW, ev.RoundOpened(phase.record.cohort)))
    invites = [effect.command for effect in effects if isinstance(effect, ev.Tell)]
    assert [(type(one), one.setup.round) for one in invites] == [(RoundInvite, TWO)] * 4
    assert not any(isinstance(effect, ev.Announce | ev.RecordRound) for effect in effects)
    assert after == replace(phase, roll=replace(phase.roll, ahead=after.roll.ahead, next_round=THREE))


def test_a_member_is_asked_for_both_rounds_what_it_has_not_answered() -> None:
    facts = make_facts()
    phase = with_ahead(facts)
    asked = machine.outstanding(facts, phase, phase.record.cohort[0])
    assert [one.setup.round for one in asked] == [ONE, TWO]


def test_a_loss_counts_in_the_round_it_names_only() -> None:
    facts = make_facts()
    phase = with_ahead(facts)
    member = phase.record.cohort[0]
    after = play(facts, phase, ev.MemberLeft(member, TWO, None))
    assert after.protocol == phase.protocol
    assert after.roll.ahead.protocol.absent.lost == {member: "connection lost"}
    assert replace(after.roll, ahead=None) == replace(phase.roll, ahead=None)


def test_a_round_ahead_that_too_few_can_join_is_lost_and_the_running_one_goes_on() -> None:
    facts = make_facts()
    phase = with_ahead(facts)
    refusal = Refusal("refused.policy", "HOURS", "policy.jobs.hours")
    for member in facts.peers:
        phase, effects = machine.step(facts, phase, ev.Stamped(NOW, ev.MemberLeft(member, TWO, refusal)))
        if phase.roll.ahead is None:
            break
    assert isinstance(phase, Rounding)
    assert phase.record.number == ONE
    (row,) = [effect.view for effect in effects if isinstance(effect, ev.RecordRound)]
    assert (row.round, row.state) == (TWO, "aborted")
    assert "TOO_FEW_MEMBERS" in row.reason


def test_a_newer_round_takes_the_place_of_one_that_has_not_begun_and_its_members_are_told() -> None:
    facts = make_facts()
    phase = with_ahead(facts)
    after, effects = machine.step(facts, phase, ev.Stamped(NOW, ev.RoundOpened(phase.record.cohort[:3])))
    assert after.roll.ahead.record.number == THREE
    closed = [one.command for one in effects if isinstance(one, ev.Tell) and isinstance(one.command, RoundClosed)]
    assert [(one.round, one.outcome) for one in closed] == [(TWO, RoundOutcome.ABORTED)] * 4
    assert {effect.key for effect in effects if isinstance(effect, ev.CancelTimer)} >= {"a-job/round/2/advert"}


def test_a_round_begins_from_the_step_its_keys_have_come_to() -> None:
    facts = make_facts()
    opened = play(facts, waiting(facts), ev.RoundOpened(tuple(sorted(facts.peers))))
    assert isinstance(opened, Waiting)
    begun = play(facts, opened, ev.RoundBegun(), time=NOW + 5)
    assert isinstance(begun, Rounding)
    assert isinstance(begun.protocol, AwaitingAdverts)
    assert begun.protocol.model is not None
    assert begun.roll.ahead is None
    assert begun.record.started == NOW + 5


def test_the_deadline_of_a_step_ahead_is_its_own() -> None:
    facts = make_facts()
    phase = with_ahead(facts)
    untouched = play(facts, phase, ev.DeadlinePassed("a-job/round/2/share"))
    assert untouched.roll.ahead == phase.roll.ahead
    ended = play(facts, phase, ev.DeadlinePassed("a-job/round/2/advert"))
    assert ended.roll.ahead is None, "nobody had advertised"


def test_a_job_that_ends_takes_the_round_ahead_with_it() -> None:
    facts = make_facts()
    ended, effects = machine.step(facts, with_ahead(facts), ev.Stamped(NOW, ev.AbortRequested("enough", "rosa")))
    assert isinstance(ended, Ended)
    assert ended.roll.ahead is None
    assert "a-job/round/2/advert" in {effect.key for effect in effects if isinstance(effect, ev.CancelTimer)}
    assert machine.outstanding(facts, ended, next(iter(facts.peers))) == ()


def test_a_restart_rebuilds_the_round_ahead_from_checkpoint_and_journal() -> None:
    facts = make_facts()
    store = MemoryStore()
    at_rest = waiting(facts)
    steps = Steps(Live(facts, at_rest, job_view(facts, at_rest)))
    with store.transaction() as tx:
        tx.put_job(JobRecord(facts.job_id, facts.job.canonical(), Digest("0" * 64), job_view(facts, at_rest)))
    for event in (
        ev.RoundOpened(tuple(sorted(facts.peers))),
        ev.RoundBegun(),
        ev.RoundOpened(tuple(sorted(facts.peers))),
        ev.MemberLeft(min(facts.peers), TWO, None),
        # The running round fails, and the job waits with the round ahead: here a checkpoint is written.
        ev.DeadlinePassed("a-job/round/1/advert"),
    ):
        steps.take(ev.Stamped(NOW, event))
    assert isinstance(steps.live.phase, Waiting)
    assert steps.live.phase.roll.ahead is not None
    with store.transaction() as tx:
        steps.write(tx, NOW)
        assert len(tx.journal(facts.job_id)) == 2, "what concerns the round ahead, and nothing of the one that is over"
        again = rebuild(tx, facts.job_id)
    assert again.phase == steps.live.phase
    begun = play(facts, again.phase, ev.RoundBegun())
    assert begun.record.number == TWO
    assert isinstance(begun.protocol, AwaitingAdverts | AwaitingShares)
