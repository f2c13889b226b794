"""Real daemons and a real coordinator whose wire lies: does every daemon refuse, say why, and reveal nothing more?

`tests/protocol/test_secagg_lying_coordinator.py` asks the same of the machine alone, of many more lies. The lies are in
`tests/hostile/coordinator_lies.py`; each docstring names the check that stops this one.
"""

from __future__ import annotations

import pytest

from lepton_client.status import status
from lepton_core.views import JobState
from tests.hostile.federation import WEIGHTS, every, mean_weight

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("hostile")]

EVERYBODY = set(WEIGHTS)


def require_refused(hostile, job, *reasons):
    """Every daemon left every round for one of these reasons, revealed nothing and recorded no answer."""
    refusals = hostile.refusals(job)
    assert set(refusals) == EVERYBODY
    assert set().union(*refusals.values()) == set(reasons)
    assert hostile.heard(job, "Unmasking") == []
    assert not any(hostile.answers(owner, job) for owner in WEIGHTS)


def require_one_answer(hostile, job):
    """Every daemon has answered once, on the first model, and shares of one secret of each member are out."""
    assert sorted(hostile.heard(job, "Unmasking")) == sorted(WEIGHTS)
    assert {owner: hostile.answers(owner, job) for owner in WEIGHTS} == every(WEIGHTS, [0])
    assert hostile.revealed(job) == every(WEIGHTS, {"SELF_SEED"})


def test_an_honest_job_gives_the_mean_of_everybody_s_update(hostile) -> None:
    """What the other tests compare with: nothing is lied about."""
    job = hostile.submit("honest", rounds=2)
    view = hostile.ended(job)
    assert (view.state, view.model_version) == (JobState.FINISHED, 2), view.reason
    assert hostile.mean_of(job) == pytest.approx(mean_weight(*WEIGHTS), abs=1e-4)
    assert {owner: hostile.answers(owner, job) for owner in WEIGHTS} == every(WEIGHTS, [0, 1])
    assert hostile.refusals(job) == {}


def test_daemons_told_first_that_a_member_lives_and_then_that_it_is_lost_abort_before_they_reveal(hostile) -> None:
    """Stopped by `client._in_consistent`: a second, different survivor set on one sid ends the round."""
    job = hostile.submit("overlapping-lists")
    view = hostile.ended(job)
    assert view.state is JobState.FAILED
    require_refused(hostile, job, "DIFFERENT_REPETITION")


def test_daemons_that_have_answered_do_not_answer_on_other_survivors(hostile) -> None:
    """Stopped by `client._in_done`: only the very certificate that was answered gets the stored answer again."""
    job = hostile.submit("asked-again")
    view = hostile.ended(job)
    assert view.state is JobState.FINISHED, view.reason
    told = hostile.wire(job, "told", "SurvivorSet")
    assert sorted(len(line["survivors"]) for line in told) == [4] * 5 + [5] * 5
    require_one_answer(hostile, job)
    assert hostile.mean_of(job) == pytest.approx(mean_weight(*WEIGHTS), abs=1e-4)


def test_daemons_shown_different_survivor_sets_sign_them_and_reveal_nothing(hostile) -> None:
    """Stopped by `client_checks.require_certificate`: t signatures over the very set that this daemon was shown."""
    job = hostile.submit("equivocation")
    view = hostile.ended(job)
    assert view.state is JobState.FAILED
    assert set(hostile.heard(job, "ConsistencySignature")) == EVERYBODY
    require_refused(hostile, job, "BAD_SIGNATURE", "TOO_FEW_SIGNATURES")
    refusals = hostile.refusals(job)
    lower = {hostile.owners[member] for member in sorted(hostile.owners)[:2]}
    assert {owner for owner in WEIGHTS if refusals[owner] == {"TOO_FEW_SIGNATURES"}} == lower


def test_a_daemon_that_is_told_that_it_has_dropped_out_reveals_nothing(hostile) -> None:
    """Stopped by `client_checks.require_survivors`: a member goes on only if it is in the set."""
    job = hostile.submit("told-dead")
    view = hostile.ended(job)
    assert view.state is JobState.FINISHED, view.reason
    victim = hostile.owners[min(hostile.owners)]
    assert hostile.refusals(job) == {victim: {"LEFT_OUT"}}
    assert victim not in hostile.heard(job, "ConsistencySignature")
    assert set(hostile.heard(job, "Unmasking")) == EVERYBODY - {victim}
    assert hostile.answers(victim, job) == []
    assert hostile.mean_of(job) == pytest.approx(mean_weight(*WEIGHTS), abs=1e-4)  # its input was in the sum


def test_daemons_refuse_a_neighbour_s_key_that_the_coordinator_has_substituted(hostile) -> None:
    """Stopped by `client_checks.require_advert`: the neighbour's own identity signs its keys."""
    job = hostile.submit("substituted-key")
    view = hostile.ended(job)
    assert (view.state, view.rounds[-1].step) == (JobState.FAILED, "share")
    require_refused(hostile, job, "BAD_SIGNATURE")
    assert hostile.heard(job, "ShareMessage") == []


def test_daemons_refuse_a_roster_with_one_identity_twice(hostile) -> None:
    """Stopped by `client_checks.require_roster`: the leaves are strictly sorted."""
    job = hostile.submit("duplicated-leaf")
    assert hostile.ended(job).state is JobState.FAILED
    require_refused(hostile, job, "BAD_ROSTER")
    assert hostile.heard(job, "ShareMessage") == []


def test_daemons_refuse_a_roster_of_four_members_that_the_coordinator_has_invented(hostile) -> None:
    """Stopped by `client_checks.require_roster`: whom the owner's accepted list does not name is no peer."""
    job = hostile.submit("invented-members")
    assert hostile.ended(job).state is JobState.FAILED
    require_refused(hostile, job, "NOT_ADMITTED")
    assert hostile.heard(job, "ShareMessage") == []


def test_daemons_take_no_part_under_a_list_of_members_that_the_coordinator_has_signed(hostile) -> None:
    """Stopped by `membership.verify`: only the federation key that the owner's policy names signs a list."""
    job = hostile.submit("invented-list")
    view = hostile.ended(job)
    assert (view.state, view.rounds) == (JobState.FAILED, ())
    answers = {line["owner"]: line["reason"] for line in hostile.wire(job, "heard", "MatchAnswer")}
    assert answers == every(WEIGHTS, "BAD_SIGNATURE")
    for owner in WEIGHTS:
        assert job not in {known["job"] for known in status(hostile.home(owner))["jobs"]}


def test_daemons_refuse_terms_with_a_lower_threshold_or_cohort_than_the_job_has(hostile) -> None:
    """Stopped by `Consent.require_round`: a daemon derives the terms from the job that it has accepted."""
    job = hostile.submit("lower-terms")
    view = hostile.ended(job)
    assert (view.state, view.rounds[-1].step) == (JobState.FAILED, "advert")
    require_refused(hostile, job, "TERMS")
    assert hostile.heard(job, "Advert") == []


@pytest.mark.parametrize("lie", ["tampered-delivery", "reflected-delivery"])
def test_sealed_shares_that_are_not_their_dealer_s_cost_the_holder_its_place_and_no_more(hostile, lie) -> None:
    """Stopped by the seal (`sharing.open_dealt`): the holder treats the dealer as absent, the others' sum is right."""
    job = hostile.submit(lie)
    view = hostile.ended(job)
    assert view.state is JobState.FINISHED, view.reason
    holder = hostile.owners[min(hostile.owners)]
    (row,) = view.rounds
    assert [(lost.owner, lost.step) for lost in row.dropped] == [(holder, "input")]
    assert set(row.survivors) == EVERYBODY - {holder}
    assert hostile.mean_of(job) == pytest.approx(mean_weight(*row.survivors), abs=1e-4)
    assert hostile.revealed(job) == every(row.survivors, {"SELF_SEED"}) | {holder: {"MASK_KEY"}}


def test_daemons_do_not_train_on_a_model_of_the_coordinator_s_own_making(hostile) -> None:
    """Stopped by `models.Models.model`: a daemon computes the model itself, the first from the job's public seed."""
    job = hostile.submit("other-model")
    assert hostile.ended(job).state is JobState.FAILED
    require_refused(hostile, job, "MODEL_CHAIN")
    assert hostile.heard(job, "InputTrailer") == []


def test_daemons_told_another_sum_than_the_others_do_not_go_on_with_them(hostile) -> None:
    """Stopped by `models.Models.model`: the next model must be what the sum that a daemon was told gives."""
    job = hostile.submit("other-sum", rounds=2)
    view = hostile.ended(job)
    assert (view.state, view.model_version) == (JobState.FAILED, 1)
    lower = [hostile.owners[member] for member in sorted(hostile.owners)[:2]]
    assert hostile.refusals(job) == every(lower, {"MODEL_CHAIN"})
    require_one_answer(hostile, job)


@pytest.mark.parametrize("lie", ["two-attempts", "other-number"])
def test_daemons_answer_once_on_a_model_that_the_coordinator_asks_about_in_two_rounds(hostile, lie) -> None:
    """Stopped by `client._pair` for the same version, and by `Consent.require_model` for the same model renumbered."""
    job = hostile.submit(lie, rounds=2)
    view = hostile.ended(job)
    assert (view.state, view.model_version) == (JobState.FAILED, 0)
    assert [(row.state, row.step, row.model_version) for row in view.rounds] == [
        ("aborted", "unmask", 0),
        ("aborted", "input", 0),
    ]
    assert hostile.refusals(job) == every(WEIGHTS, {"ALREADY_ANSWERED"})
    assert [line["round"] for line in hostile.wire(job, "heard", "InputTrailer")] == [1] * 5
    require_one_answer(hostile, job)


def test_daemons_asked_on_one_model_in_two_rounds_at_once_answer_in_one_of_them(hostile) -> None:
    """Stopped by `Participant._commanded`: the model of a newer round ends the older one and erases its secrets."""
    job = hostile.submit("two-at-once", rounds=2)
    view = hostile.ended(job)
    assert (view.state, view.model_version) == (JobState.FAILED, 0)
    inputs = [line["round"] for line in hostile.wire(job, "heard", "InputTrailer")]
    assert sorted(inputs) == [1] * 5 + [2] * 5
    assert {line["round"] for line in hostile.wire(job, "told", "Certificate")} == {1, 2}
    assert {line["round"] for line in hostile.wire(job, "heard", "Unmasking")} == {2}
    require_one_answer(hostile, job)


def test_a_daemon_killed_after_its_answer_answers_neither_a_replay_of_its_round_nor_a_second_attempt(hostile) -> None:
    """Stopped by `client_checks.require_roster`: the old roster lacks its new keys; then by the answers on its disk."""
    victim = next(iter(WEIGHTS))
    job = hostile.submit("replay")
    hostile.wait_until(lambda: set(hostile.heard(job, "Unmasking")) == EVERYBODY, "everybody's answer")
    before = len(hostile.wire(job, "heard"))
    hostile.kill(victim)
    hostile.start(victim)
    view = hostile.ended(job)
    assert (view.state, view.model_version) == (JobState.FAILED, 0)
    told = [line["kind"] for line in hostile.wire(job, "told") if line["owner"] == victim and line["round"] == 1]
    for kind in ("RoundInvite", "Roster", "Delivery", "SurvivorSet", "Certificate"):
        assert told.count(kind) >= 2
    since = [line for line in hostile.wire(job, "heard")[before:] if line["owner"] == victim and line["round"] == 1]
    assert [line["kind"] for line in since][:2] == ["Advert", "RoundRefusal"]  # the old keys died with the process
    assert {line["kind"] for line in since} == {"Advert", "RoundRefusal"}
    others = every(EVERYBODY - {victim}, {"ALREADY_ANSWERED"})
    assert hostile.refusals(job) == others | {victim: {"OWN_KEY_ALTERED", "ALREADY_ANSWERED"}}
    require_one_answer(hostile, job)
