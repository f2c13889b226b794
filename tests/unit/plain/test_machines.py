"""A round in the plain ends with the signed updates of those that sent one, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lepton_core.errors import CodecError, ConflictError
from lepton_core.identity import IdentityKey
from lepton_core.ids import JobId, ModelVersion, RoundNumber
from lepton_core.plain import client, server
from lepton_core.secagg import client_events as ce
from lepton_core.secagg import server_events as se
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.messages import Delivery, InputTrailer, Roster, SurvivorSet
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import LaneGroup, Setup, commit_nonce
from tests.protocol.seeded import make_identities, make_terms

KEYS = make_identities(5)
IDENTITIES = {key.member: key.public for key in KEYS}
TERMS = make_terms((LaneGroup(7, 32), LaneGroup(1, 32)))
SETUP = Setup(JobId("job-1"), RoundNumber(1), TERMS, commit_nonce(bytes(32)))
MODEL = BoundModel(ModelVersion(0), b"d" * 32)
DELIVERY = Delivery((), MODEL.version, MODEL.digest)
ADMISSION = Admission(IDENTITIES, TERMS.membership_digest, min_cohort=3, corruption=0.1)
WORDS = np.arange(TERMS.words, dtype=np.uint64)


def begun() -> server.Phase:
    phase, effects = server.start(SETUP, IDENTITIES)
    assert effects == ()
    phase, effects = server.step(phase, se.ModelBound(MODEL))
    assert effects == (*(se.Send(key.member, DELIVERY) for key in KEYS), se.SetDeadline(Step.INPUT))
    return phase


def trained(key: IdentityKey, words=WORDS) -> tuple[client.Phase, InputTrailer]:
    phase, effects = client.start(SETUP, key, ADMISSION)
    assert effects == ()
    phase, effects = client.step(phase, ce.DeliveryReceived(DELIVERY))
    assert isinstance(effects[0], ce.Train)
    assert (effects[0].model_version, effects[0].model_digest) == (MODEL.version, MODEL.digest)
    phase, effects = client.step(phase, ce.InputReady(words))
    assert isinstance(effects[0], ce.Upload)
    assert np.array_equal(effects[0].words, words)
    return phase, effects[0].trailer


def take(phase: server.Phase, *keys: IdentityKey) -> tuple[server.Phase, tuple[server.Effect, ...]]:
    effects: tuple[server.Effect, ...] = ()
    for key in keys:
        phase, effects = server.step(phase, se.InputReceived(trained(key)[1]))
    return phase, effects


def test_a_round_ends_with_everybodys_update_as_soon_as_all_are_there() -> None:
    phase, effects = take(begun(), *KEYS[:-1])
    assert effects == ()
    assert server.waiting_for(phase) == (KEYS[-1].member,)
    phase, effects = take(phase, KEYS[-1])
    assert isinstance(phase, server.Closed)
    assert [type(effect) for effect in effects] == [server.Finished]
    assert phase.result.survivors == tuple(key.member for key in KEYS)
    assert set(phase.result.payload_digests.values()) == {trained(KEYS[0])[1].payload_digest}


def test_a_lost_member_is_not_waited_for_but_counts_if_it_answers_all_the_same() -> None:
    for comes_back in (False, True):
        phase, _ = take(begun(), *KEYS[:3])
        phase, effects = server.step(phase, se.MemberLost(KEYS[3].member, "connection lost"))
        assert effects == ()
        if comes_back:
            phase, effects = take(phase, KEYS[3])
            assert effects == ()
        phase, effects = take(phase, KEYS[4])
        assert isinstance(phase, server.Closed)
        gone = [effect.member for effect in effects if isinstance(effect, se.Dropped)]
        assert gone == ([] if comes_back else [KEYS[3].member])
        assert len(phase.result.survivors) == 4 + comes_back


def test_at_the_deadline_those_that_answered_are_enough_or_the_round_is_lost() -> None:
    for answered in range(6):
        phase, _ = take(begun(), *KEYS[:answered])
        phase, effects = server.step(phase, se.DeadlinePassed(Step.INPUT))
        last = effects[-1] if effects else None
        if answered == 5:
            assert last is None
        elif answered >= 3:
            assert isinstance(last, server.Finished)
            assert last.result.survivors == tuple(key.member for key in KEYS[:answered])
        else:
            assert isinstance(last, se.Aborted)
            assert last.error.reason == "TOO_FEW_INPUTS"
        assert server.step(phase, se.MemberLost(KEYS[0].member, "late")) == (phase, ())


def test_a_round_that_can_no_longer_reach_the_minimum_cohort_ends_at_once() -> None:
    phase = begun()
    for key in KEYS[:2]:
        phase, effects = server.step(phase, se.MemberLost(key.member, "connection lost"))
        assert effects == ()
    phase, effects = server.step(phase, se.MemberLost(KEYS[2].member, "connection lost"))
    assert isinstance(phase, server.Failed)
    assert isinstance(effects[-1], se.Aborted)


def test_members_lost_before_the_model_is_known_are_not_asked() -> None:
    phase, _ = server.start(SETUP, IDENTITIES)
    phase, _ = server.step(phase, se.MemberLost(KEYS[0].member, "connection lost"))
    phase, effects = server.step(phase, se.ModelBound(MODEL))
    assert [effect.member for effect in effects if isinstance(effect, se.Send)] == [key.member for key in KEYS[1:]]


@pytest.mark.parametrize("change", ["signature", "payload_digest", "payload_bytes", "member", "paired"])
def test_an_update_that_its_member_did_not_sign_for_this_round_is_rejected(change: str) -> None:
    _, trailer = trained(KEYS[0])
    values = {
        "signature": bytes(64),
        "payload_digest": bytes(32),
        "payload_bytes": 8,
        "member": KEYS[1].member,
        "paired": (KEYS[1].member,),
    }
    before = begun()
    phase, effects = server.step(before, se.InputReceived(replace(trailer, **{change: values[change]})))
    assert phase == before
    assert [type(effect) for effect in effects] == [se.Rejected]


def test_an_update_for_another_model_or_round_is_rejected() -> None:
    other_model, _ = server.start(SETUP, IDENTITIES)
    other_model, _ = server.step(other_model, se.ModelBound(BoundModel(ModelVersion(1), b"e" * 32)))
    other_round, _ = server.start(replace(SETUP, round=RoundNumber(2)), IDENTITIES)
    other_round, _ = server.step(other_round, se.ModelBound(MODEL))
    for phase in (other_model, other_round):
        _, effects = server.step(phase, se.InputReceived(trained(KEYS[0])[1]))
        assert [type(effect) for effect in effects] == [se.Rejected]


def test_the_first_update_counts_and_a_stranger_has_none() -> None:
    phase, _ = take(begun(), KEYS[0])
    assert server.step(phase, se.InputReceived(trained(KEYS[0])[1])) == (phase, ())
    stranger = make_identities(1, "stranger")[0]
    outsider = replace(ADMISSION, members={**IDENTITIES, stranger.member: stranger.public})
    invited, _ = client.start(SETUP, stranger, outsider)
    ready, _ = client.step(invited, ce.DeliveryReceived(DELIVERY))
    _, effects = client.step(ready, ce.InputReady(WORDS))
    assert isinstance(effects[0], ce.Upload)
    for trailer in (trained(KEYS[0], WORDS + np.uint64(1))[1], effects[0].trailer):
        after, told = server.step(phase, se.InputReceived(trailer))
        assert after == phase
        assert [type(effect) for effect in told] == [se.Rejected]


def test_what_a_member_should_be_told_is_told_as_often_as_it_asks() -> None:
    opened, _ = server.start(SETUP, IDENTITIES)
    assert server.outstanding(opened, KEYS[0].member) is None
    assert server.awaits_start(opened, KEYS[0].member)
    phase, _ = take(begun(), KEYS[0])
    assert server.outstanding(phase, KEYS[0].member) is None
    assert not server.awaits_start(phase, KEYS[0].member)
    assert server.outstanding(phase, KEYS[1].member) == DELIVERY
    assert server.awaits_start(phase, KEYS[1].member)


def test_a_member_sends_the_same_bytes_again_when_its_trailer_was_lost() -> None:
    phase, trailer = trained(KEYS[0])
    assert client.step(phase, ce.DeliveryReceived(DELIVERY)) == (phase, ())
    phase, effects = client.step(phase, ce.UploadDone())
    assert effects == ()
    again, effects = client.step(phase, ce.DeliveryReceived(DELIVERY))
    assert again == phase
    assert isinstance(effects[0], ce.Upload)
    assert effects[0].trailer == trailer
    assert client.step(phase, ce.SetupReceived(SETUP)) == (phase, ())


@pytest.mark.parametrize(
    "event",
    [
        ce.SetupReceived(replace(SETUP, round=RoundNumber(2))),
        ce.DeliveryReceived(Delivery((), ModelVersion(0), b"e" * 32)),
        ce.RosterReceived(Roster((), bytes(32), ())),
        ce.SurvivorsReceived(SurvivorSet(())),
        ce.Stop("the owner says so"),
    ],
)
def test_a_member_leaves_a_round_that_changes_under_it(event: ce.Event) -> None:
    phase, _ = trained(KEYS[0])
    phase, effects = client.step(phase, event)
    assert isinstance(phase, client.Failed)
    assert [type(effect) for effect in effects] == [ce.Aborted]
    assert client.step(phase, ce.DeliveryReceived(DELIVERY)) == (phase, ())


def test_terms_below_the_owners_policy_are_refused_as_in_a_secure_round() -> None:
    for admission in (
        replace(ADMISSION, min_cohort=4),
        replace(ADMISSION, corruption=0.3),
        replace(ADMISSION, membership_digest=bytes(32)),
        replace(ADMISSION, members={}),
    ):
        phase, effects = client.start(SETUP, KEYS[0], admission)
        assert isinstance(phase, client.Failed)
        assert [type(effect) for effect in effects] == [ce.Aborted]


def test_the_callers_own_misuse_is_raised_and_changes_nothing() -> None:
    invited, _ = client.start(SETUP, KEYS[0], ADMISSION)
    for event in (ce.InputReady(WORDS), ce.UploadDone(), ce.AnswerRecorded()):
        with pytest.raises(ConflictError):
            client.step(invited, event)
    ready, _ = client.step(invited, ce.DeliveryReceived(DELIVERY))
    with pytest.raises(CodecError):
        client.step(ready, ce.InputReady(WORDS[:-1]))
