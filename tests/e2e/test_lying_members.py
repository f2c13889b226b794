"""A real coordinator and real daemons, one of which lies: is the liar named, the sum right, and nobody's process lost?

`tests/protocol/test_secagg_lying_members.py` asks the same of the machine alone, of many more lies. The lies are in
`tests/hostile/member_lies.py`; each docstring names the check that stops this one.
"""

from __future__ import annotations

import shutil

import pytest

from lepton_core.views import JobState
from tests.hostile.federation import HONEST, LIAR, WEIGHTS, every, mean_weight

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("hostile")]

#: A hidden layer with which a masked input is too long for a message, and is uploaded by itself.
UPLOADED = 9_000


def require_sum_of(hostile, job, *owners):
    """The job finished, and its model is that of these owners' updates."""
    view = hostile.ended(job)
    assert view.state is JobState.FINISHED, view.reason
    (row,) = view.rounds
    assert set(row.survivors) == set(owners)
    assert hostile.mean_of(job) == pytest.approx(mean_weight(*owners), abs=1e-4)
    return row


def rejected(hostile, job, words):
    """Whose messages the job's watchers were told to be refused in these words."""
    return [event.owner for event in hostile.events(job, "rejected") if words in event.message]


def logged(hostile, job, reason):
    """True if the coordinator's log says, since the job was submitted, that the liar's report was refused for this."""
    liar = next(member for member, owner in hostile.owners.items() if owner == LIAR)
    lines = hostile.log("coordinator")[hostile.logged_before[job] :].splitlines()
    return any(reason in line and liar in line and "a member's report was refused" in line for line in lines)


def test_a_second_advert_of_one_identity_is_refused_and_the_first_counts(hostile) -> None:
    """Stopped by `server._repeated`: one advert a setup."""
    job = hostile.submit("second-advert")
    require_sum_of(hostile, job, *WEIGHTS)
    assert rejected(hostile, job, "a second, different message") == [LIAR]
    assert hostile.heard(job, "Advert").count(LIAR) == 2


def test_a_member_that_floods_a_round_is_heard_eight_times_and_no_more(hostile) -> None:
    """Stopped by `relay.may_speak`: each rejection has its rows in journal and audit."""
    job = hostile.submit("flood")
    row = require_sum_of(hostile, job, *HONEST)
    assert hostile.heard(job, "Advert").count(LIAR) == 41
    assert rejected(hostile, job, "") == [LIAR] * 8
    assert [lost.owner for lost in row.dropped] == [LIAR]


def test_two_daemons_of_one_identity_are_one_member_and_the_older_one_ends(hostile) -> None:
    """Stopped by `Sessions.open`: one live session a member."""
    copy = hostile.home(LIAR).with_name(f"{LIAR}-copy")
    shutil.copytree(hostile.home(LIAR), copy)
    older = hostile.processes._running[LIAR]
    hostile.start(LIAR, copy)
    hostile.wait_until(lambda: older.process.poll() is not None, "the older daemon's end", besides=(LIAR,))
    assert "NEWER_SESSION" in hostile.log(LIAR)
    assert "Traceback" not in hostile.log(LIAR)
    job = hostile.submit("honest")
    view = hostile.ended(job, besides=(LIAR,))
    assert view.state is JobState.FINISHED, view.reason
    assert sorted(view.rounds[0].cohort) == sorted(WEIGHTS)
    assert hostile.mean_of(job) == pytest.approx(mean_weight(*WEIGHTS), abs=1e-4)
    hostile.kill(copy.name)
    opened = hostile.log(LIAR).count("session open")
    hostile.start(LIAR)
    hostile.wait_until(lambda: hostile.log(LIAR).count("session open") > opened, "the first daemon's return")


def test_a_dealer_of_wrong_secrets_is_named_and_left_out(hostile) -> None:
    """Stopped by `recovery.derive_plan`: what t shares rebuild must be the seed or the key that was advertised."""
    job = hostile.submit("bad-dealer")
    view = hostile.ended(job)
    assert (view.state, view.model_version) == (JobState.FAILED, 0)
    assert "rebuild another secret than it advertised" in view.reason
    left_out = [event for event in hostile.events(job, "refused") if "left out" in event.message]
    assert [event.owner for event in left_out] == [LIAR]
    assert {match.owner: match.reason for match in view.owners if match.state == "cannot"} == {LIAR: "BAD_DEALER"}
    assert {owner: hostile.answers(owner, job) for owner in HONEST} == every(HONEST, [0])


def test_a_tampered_share_names_its_holder_and_the_sum_is_right_without_it(hostile) -> None:
    """Stopped by `server_checks.require_unmasking`: each share must be the one its dealer signed."""
    job = hostile.submit("tampered-share")
    row = require_sum_of(hostile, job, *WEIGHTS)
    assert rejected(hostile, job, "a share that is not the one its dealer signed") == [LIAR]
    assert [(lost.owner, lost.step) for lost in row.dropped] == [(LIAR, "unmask")]


@pytest.mark.parametrize("hidden", [0, UPLOADED])
def test_an_input_of_the_wrong_length_is_refused_and_the_sum_is_that_of_the_others(hostile, hidden) -> None:
    """Stopped by `uploads.require_upload` before a byte of it is kept, and within a message by `require_inline`."""
    job = hostile.submit("wrong-length", hidden=hidden)
    row = require_sum_of(hostile, job, *HONEST)
    assert [(lost.owner, lost.step) for lost in row.dropped] == [(LIAR, "input")]
    # Of an upload the liar is told at once, and its daemon leaves; what comes within a message is told in the log.
    assert row.dropped[0].reason == "refused: WRONG_LENGTH" if hidden else logged(hostile, job, "WRONG_LENGTH")


@pytest.mark.parametrize("hidden", [0, UPLOADED])
def test_an_input_that_is_not_as_long_as_its_trailer_says_is_refused(hostile, hidden) -> None:
    """Stopped by `uploads.require_payload`, and within a message by `require_inline`."""
    job = hostile.submit("wrong-length-told", hidden=hidden)
    require_sum_of(hostile, job, *HONEST)
    assert logged(hostile, job, "WRONG_LENGTH")
    assert hostile.heard(job, "InputTrailer").count(LIAR) == 1


@pytest.mark.parametrize("hidden", [0, UPLOADED])
def test_of_two_different_inputs_of_one_member_the_first_alone_is_in_the_sum(hostile, hidden) -> None:
    """Stopped by `TransferService._require_first`: what was not taken cannot be named; else by `server._repeated`."""
    job = hostile.submit("doubled-upload", hidden=hidden)
    require_sum_of(hostile, job, *WEIGHTS)
    assert hostile.heard(job, "InputTrailer").count(LIAR) == 2
    if hidden:
        assert "second upload: SECOND_INPUT" in hostile.log(LIAR)
        assert logged(hostile, job, "NO_PAYLOAD")
    else:
        assert rejected(hostile, job, "a second, different message") == [LIAR]


@pytest.mark.parametrize("hidden", [0, UPLOADED])
def test_an_input_after_the_freeze_is_refused_and_its_mask_stays_on(hostile, hidden) -> None:
    """Stopped by `server._repeated`; its sender's seed is nobody's to reveal, as it was a lost member's key."""
    job = hostile.submit("upload-after-freeze", hidden=hidden)
    row = require_sum_of(hostile, job, *HONEST)
    assert row.pair_masks_reconstructed == len(HONEST)
    assert rejected(hostile, job, "a step that is over") == [LIAR]
    assert hostile.revealed(job) == every(HONEST, {"SELF_SEED"}) | {LIAR: {"MASK_KEY"}}
