"""The job machine's turns that no simulation reaches by chance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lepton_core.errors import FaultError, PeerViolation
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId, MemberId, OwnerName, RoundNumber
from lepton_core.secagg import server_events as pe
from lepton_core.secagg.messages import Advert, ConsistencySignature
from lepton_core.secagg.steps import Step
from lepton_core.session import MatchRequest, Refusal, RoundInvite, RoundReport
from lepton_core.views import JobState
from lepton_pool.terms import derive_terms
from lepton_protos.convert import report_to_bytes
from lepton_server.jobs import events as ev
from lepton_server.jobs import machine, relay, rounding
from lepton_server.jobs.draft import Draft
from lepton_server.jobs.journal import decode_checkpoint, decode_event, encode_checkpoint, encode_event
from lepton_server.jobs.live import Live, Steps
from lepton_server.jobs.phases import Ended, Facts, Matching, Peer, Phase, Rounding, Waiting
from lepton_server.jobs.show import _owners, job_view
from tests.simulation.federation import SeededRandomness, make_job

NOW = 1_800_000_000.0


def make_facts(members: int = 4) -> Facts:
    keys = [IdentityKey.generate(SeededRandomness(f"machine-{index}")) for index in range(members)]
    job = make_job(rounds=3, members=members, min_cohort=3)
    return Facts(
        job_id=JobId("a-job"),
        job=job,
        terms=derive_terms(job, bytes(32)),
        membership=b"{}",
        peers={key.member: Peer(OwnerName(f"owner-{index}"), key.public) for index, key in enumerate(keys)},
        secret=b"s" * 32,
        researcher=OwnerName("rosa"),
        submitted=NOW,
        bytes_per_parameter=2.0,
    )


def play(facts: Facts, phase: Phase, *events: ev.MachineEvent, time: float = NOW) -> Phase:
    for event in events:
        phase, _ = machine.step(facts, phase, ev.Stamped(time, event))
    return phase


def waiting(facts: Facts) -> Waiting:
    phase = play(
        facts,
        machine.start(facts)[0],
        ev.InitialModelReady(facts.job_id, Digest("0" * 64)),
        *(ev.MatchAnswered(member, None) for member in facts.peers),
    )
    assert isinstance(phase, Waiting)
    return phase


def rounding_phase(facts: Facts) -> Rounding:
    phase = play(facts, waiting(facts), ev.RoundOpened(tuple(sorted(facts.peers))), ev.RoundBegun())
    assert isinstance(phase, Rounding)
    return phase


def test_every_listed_owner_is_asked_until_it_has_answered() -> None:
    facts = make_facts()
    phase, effects = machine.start(facts)
    told = {effect.member for effect in effects if isinstance(effect, ev.Tell)}
    assert told == set(facts.peers)
    first, *others = facts.peers
    phase = play(facts, phase, ev.MatchAnswered(first, None))
    assert machine.outstanding(facts, phase, first) == ()
    for member in others:
        assert isinstance(machine.outstanding(facts, phase, member)[0], MatchRequest)


def test_a_power_of_ten_that_an_owner_tells_is_shown_and_survives_a_checkpoint() -> None:
    facts = make_facts()
    told, silent, *_ = facts.peers
    phase = play(facts, waiting(facts))
    phase = replace(phase, roll=replace(phase.roll, coverage={told: "100+"}))
    _, read = decode_checkpoint(encode_checkpoint(facts, phase))
    assert read == phase
    shown = {match.owner: match.coverage for match in _owners(facts, phase)}
    assert shown[facts.owner(told)] == "100+"
    assert shown[facts.owner(silent)] == ""
    phase = play(facts, machine.start(facts)[0], ev.MatchAnswered(told, None, "10+"))
    assert phase.roll.coverage == {told: "10+"}


def test_a_second_different_answer_of_an_owner_changes_nothing() -> None:
    facts = make_facts()
    member = next(iter(facts.peers))
    refusal = Refusal("refused.policy", "MODEL", "policy.jobs.models")
    phase = play(facts, machine.start(facts)[0], ev.MatchAnswered(member, refusal), ev.MatchAnswered(member, None))
    assert phase.roll.answers == {member: refusal}


def test_a_job_that_too_few_owners_can_serve_fails_and_names_every_refusal() -> None:
    facts = make_facts()
    refusal = Refusal("refused.match", "MISSING_CONCEPT", "https://example.org/x")
    members = tuple(facts.peers)
    phase = play(
        facts,
        machine.start(facts)[0],
        ev.InitialModelReady(facts.job_id, Digest("0" * 64)),
        *(ev.MatchAnswered(member, refusal) for member in members[:2]),
        *(ev.MatchAnswered(member, None) for member in members[2:]),
    )
    assert isinstance(phase, Ended)
    assert phase.state is JobState.FAILED
    assert phase.reason.count("MISSING_CONCEPT") == 2
    assert "2 of at least 3" in phase.reason


def test_a_job_starts_at_the_deadline_without_an_owner_that_is_silent() -> None:
    facts = make_facts()
    members = tuple(facts.peers)
    phase = play(
        facts,
        machine.start(facts)[0],
        ev.InitialModelReady(facts.job_id, Digest("0" * 64)),
        *(ev.MatchAnswered(member, None) for member in members[:3]),
    )
    assert isinstance(phase, Matching)
    assert isinstance(play(facts, phase, ev.DeadlinePassed("a-job/match"), time=NOW + 31), Waiting)


def test_an_initial_model_that_cannot_be_made_fails_the_job() -> None:
    facts = make_facts()
    phase = play(facts, machine.start(facts)[0], ev.InitialModelFailed(facts.job_id, FaultError("disk full")))
    assert isinstance(phase, Ended)
    assert "disk full" in phase.reason


def test_a_dealer_that_is_blamed_is_left_out_of_later_rounds() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    guilty = phase.record.cohort[0]
    error = PeerViolation("shares that rebuild another secret", reason="BAD_DEALER")
    draft = Draft(facts, phase.roll, NOW)
    after, effects = rounding._settle(draft, phase, (pe.Aborted(error, guilty),), Step.UNMASK)
    assert guilty not in after.roll.willing
    assert any(isinstance(effect, ev.Announce) and "left out" in effect.event.message for effect in effects)


def test_members_that_may_have_answered_are_not_asked_again_on_that_model_version() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    draft = Draft(facts, phase.roll, NOW)
    error = FaultError("too few shares", reason="TOO_FEW_MEMBERS")
    after, _ = rounding._settle(draft, phase, (pe.Aborted(error),), Step.UNMASK)
    assert after.roll.eligible == frozenset()
    assert isinstance(after, Ended), "nobody is left to retry with, and the job says so"
    assert "answered" in after.reason


def test_a_round_lost_before_unmasking_is_retried_with_a_new_number() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    draft = Draft(facts, phase.roll, NOW)
    error = FaultError("too few", reason="TOO_FEW_MEMBERS")
    after, _ = rounding._settle(draft, phase, (pe.Aborted(error),), Step.SHARE)
    assert isinstance(after, Waiting)
    assert after.roll.eligible == frozenset(facts.peers)
    assert after.roll.next_round == 2


def test_a_round_that_some_left_by_a_refusal_is_retried_and_says_who_left_and_why() -> None:
    facts = make_facts()
    phase: Phase = rounding_phase(facts)
    first, *others = sorted(facts.peers)
    phase = play(facts, phase, *(ev.MemberLeft(member, RoundNumber(1), None) for member in others))
    restarted = ev.MemberLeft(first, RoundNumber(1), Refusal("aborted", "SECRETS_LOST", ""))
    phase, effects = machine.step(facts, phase, ev.Stamped(NOW, restarted))
    assert isinstance(phase, Waiting)
    assert phase.roll.eligible == frozenset(facts.peers)
    (view,) = [effect.view for effect in effects if isinstance(effect, ev.RecordRound)]
    assert view.state == "aborted"
    assert {lost.owner: lost.reason for lost in view.dropped} == {
        facts.owner(first): "refused: SECRETS_LOST",
        **dict.fromkeys(map(facts.owner, others), "connection lost"),
    }
    closed = [effect.member for effect in effects if isinstance(effect, ev.Tell)]
    assert sorted(closed) == sorted(facts.peers), "each is told once that the round is over"


def test_a_round_that_everybody_refuses_ends_the_job_at_once() -> None:
    facts = make_facts()
    refusal = Refusal("fault", "DIVERGED", "")
    phase = play(
        facts, rounding_phase(facts), *(ev.MemberLeft(member, RoundNumber(1), refusal) for member in facts.peers)
    )
    assert isinstance(phase, Ended)
    assert phase.reason.startswith("round 1: nothing usable was contributed")
    assert phase.reason.count("DIVERGED") == len(facts.peers)


def test_an_old_rounds_message_and_a_strangers_are_ignored() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    stranger = MemberId(bytes(16))
    assert play(facts, phase, ev.MemberLeft(stranger, RoundNumber(1), None)).record == phase.record
    member = phase.record.cohort[0]
    assert play(facts, phase, ev.MemberLeft(member, RoundNumber(9), None)).record == phase.record


def test_a_flood_of_bad_messages_is_told_of_a_few_times_and_kept_nowhere() -> None:
    facts = make_facts()
    phase: Phase = rounding_phase(facts)
    member = next(iter(facts.peers))
    bad = Advert(member, facts.peers[member].identity, *(bytes([index]) * 32 for index in range(4)), bytes(64))
    told = 0
    for _ in range(50):
        phase, effects = machine.step(facts, phase, ev.Stamped(NOW, ev.RoundMessage(member, RoundNumber(1), bad, 300)))
        told += sum(isinstance(effect, ev.Reject) for effect in effects)
    assert told == relay.MOST_REJECTED
    assert effects == ()
    # The others go on: the member is waited for until the deadline like one that says nothing.
    assert isinstance(phase, Rounding)
    assert phase.record.rejected == {member: relay.MOST_REJECTED}


def test_what_changes_nothing_waits_in_no_journal() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    member = next(iter(facts.peers))
    stale = Advert(member, facts.peers[member].identity, *(bytes([index]) * 32 for index in range(4)), bytes(64))
    steps = Steps(Live(facts, phase, job_view(facts, phase)))
    for number in range(2, 100):
        steps.take(ev.Stamped(NOW, ev.RoundMessage(member, RoundNumber(number), stale, 300)))
        steps.take(ev.Stamped(NOW, ev.MatchAnswered(member, None)))
    assert steps.live.unwritten == ()
    assert steps.live.phase == phase


def test_a_member_that_refuses_again_and_again_is_remembered_once() -> None:
    facts = make_facts()
    member = next(iter(facts.peers))
    left = [ev.MemberLeft(member, RoundNumber(1), Refusal("aborted", f"REASON_{index}", "")) for index in range(30)]
    phase = play(facts, rounding_phase(facts), *left)
    assert isinstance(phase, Rounding)
    assert phase.record.refusals == ((member, Refusal("aborted", "REASON_29", "")),)


def test_an_aborted_job_tells_its_members_and_answers_nobody_any_more() -> None:
    facts = make_facts()
    phase = rounding_phase(facts)
    member = phase.record.cohort[0]
    assert isinstance(machine.outstanding(facts, phase, member)[0], RoundInvite)
    ended, effects = machine.step(facts, phase, ev.Stamped(NOW, ev.AbortRequested("enough", "rosa")))
    assert isinstance(ended, Ended)
    assert ended.state is JobState.ABORTED
    assert machine.outstanding(facts, ended, member) == ()
    told = {effect.member for effect in effects if isinstance(effect, ev.Tell)}
    assert told == set(facts.peers)


def test_a_checkpoint_and_every_journaled_event_come_back_as_they_were() -> None:
    facts = make_facts()
    phase = waiting(facts)
    member = next(iter(facts.peers))
    roll = replace(phase.roll, answered=frozenset({member}), optimizer=Digest("2" * 64), aborted_in_row=2)
    phase = replace(phase, roll=roll)
    assert decode_checkpoint(encode_checkpoint(facts, phase)) == (facts, phase)
    assert decode_checkpoint(encode_checkpoint(facts, None)) == (facts, None)
    events: tuple[ev.MachineEvent, ...] = (
        ev.MatchAnswered(member, Refusal("refused.match", "X", "")),
        ev.RoundOpened((member,)),
        ev.MemberLeft(member, RoundNumber(3), None),
        ev.DeadlinePassed("a-job/round/1/input"),
        ev.AbortRequested("why", "rosa"),
        ev.RoundBegun(),
        ev.TotalKept(RoundNumber(1), Digest("5" * 64)),
        ev.AggregateDone(facts.job_id, RoundNumber(1), Digest("3" * 64), Digest("4" * 64), Digest("6" * 64), True, 4),
    )
    for event in events:
        stamped = ev.Stamped(NOW, event)
        assert decode_event(encode_event(facts.job_id, stamped)) == stamped


def test_a_journal_entry_of_another_version_is_a_fault_that_says_so() -> None:
    with pytest.raises(FaultError, match="cannot be read"):
        decode_event(b'{"time": 1, "kind": "Unheard", "fields": {}}')


def test_the_jobs_secret_is_not_shown() -> None:
    assert "secret" not in repr(make_facts())


def test_a_report_that_was_encoded_already_is_journaled_as_the_same_bytes() -> None:
    facts = make_facts()
    member = next(iter(facts.peers))
    signature = ConsistencySignature(member, b"s" * 64)
    encoded = report_to_bytes(RoundReport(facts.job_id, RoundNumber(2), signature))
    fresh = ev.RoundMessage(member, RoundNumber(2), signature, len(encoded))
    ready = replace(fresh, report=encoded)
    entry = encode_event(facts.job_id, ev.Stamped(NOW, fresh))
    assert encode_event(facts.job_id, ev.Stamped(NOW, ready)) == entry
    assert decode_event(entry) == ev.Stamped(NOW, ready) == ev.Stamped(NOW, fresh)
