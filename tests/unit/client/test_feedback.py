"""An owner adds what it has not sent to its next update: once, after its round has counted, and only with everybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_client.effects import Effect, Match, Train
from lepton_client.residuals import FileResiduals, Slot
from lepton_core.canonical import canonical_json
from lepton_core.ids import ModelVersion, RoundNumber
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.secagg.messages import Delivery
from lepton_core.session import (
    JobClosed,
    MatchAnswer,
    MatchRequest,
    RoundClosed,
    RoundCommand,
    RoundInvite,
    RoundOutcome,
    RoundRefusal,
    RoundReport,
)
from lepton_pool.plain import parse_plain
from tests.property.budget import examples
from tests.unit.client.owners import JOB_ID, PLAN, Federation, Owner, make_job, make_policy, model_digest, reports

ALLOWED = {"allow_unprotected": True, "allow_plain_updates": True, "allow_error_feedback": True}
COMPLETED, ABORTED, LEFT_OUT = RoundOutcome.COMPLETED, RoundOutcome.ABORTED, RoundOutcome.LEFT_OUT


def feeding_job(**aggregation: Any) -> Job:
    keys = {"min_cohort": 4, "max_cohort": 4, "secure": False, "codec": "topk", "update_norm": 1.0} | aggregation
    private = {"mode": "none", "noise_multiplier": None}
    return make_job(training={"rounds": 40}, privacy=private, aggregation=keys)


def feeding(job: Job | None = None, **jobs: Any) -> Federation:
    """Four owners that allow error feedback."""
    federation = Federation(job=job or feeding_job())
    population = {"name": "patients", "mapping": "m.yaml", "declared_rows": 100, "epsilon": 8.0, "delta": 1e-3}
    policy = make_policy(
        federation.key, jobs=ALLOWED | jobs, populations=[population | {"modes": ["none", "record-local"]}]
    )
    for owner in federation.owners.values():
        owner.policy = policy
    return federation


def update_of(number: int) -> Vector:
    return (0.2 * np.random.default_rng(number).standard_normal(4)).astype(np.float32)


def begin(federation: Federation, owner: Owner, number: int, version: int) -> tuple[Effect, ...]:
    """Invite the owner and show it the model."""
    round_ = RoundNumber(number)
    told = owner.participant.handle(RoundInvite(federation.setup(number)))
    if any(isinstance(effect, Match) for effect in told):  # a process that has just started
        owner.participant.matched(JOB_ID, PLAN)
    delivery = Delivery(dealt=(), model_version=ModelVersion(version), model_digest=model_digest(version))
    return owner.participant.handle(RoundCommand(JOB_ID, round_, delivery))


def send(federation: Federation, owner: Owner, number: int, version: int) -> bytes:
    """The payload that the owner sends in this round; it trains on update `number` if it is asked to train."""
    effects = begin(federation, owner, number, version)
    if any(isinstance(effect, Train) for effect in effects):
        effects = owner.participant.trained(JOB_ID, RoundNumber(number), update_of(number), 100)
    (payload,) = (report.payload for report in reports(effects) if isinstance(report, RoundReport))
    return payload


def close(owner: Owner, number: int, outcome: RoundOutcome) -> None:
    owner.participant.handle(RoundClosed(JOB_ID, RoundNumber(number), outcome, ""))


def decoded(federation: Federation, payload: bytes) -> Vector:
    return parse_plain(federation.job, payload)[0]


def settled(owner: Owner) -> Vector | None:
    mark = owner.residuals.mark(JOB_ID, Slot.SETTLED)
    return owner.residuals.read(JOB_ID, Slot.SETTLED).residual if mark is not None else None


# Rounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["topk", "sign"])
def test_what_a_round_left_out_is_in_the_next_update_once_the_round_has_counted(codec: str) -> None:
    federation = feeding(feeding_job(codec=codec))
    federation.match_all()
    owner = federation.first()
    first = decoded(federation, send(federation, owner, 1, 0))
    assert settled(owner) is None
    close(owner, 1, COMPLETED)
    left = settled(owner)
    assert left == pytest.approx(update_of(1) - first, abs=1e-7)
    assert np.abs(left).max() > 0.01
    second = decoded(federation, send(federation, owner, 2, 1))
    close(owner, 2, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(1) + update_of(2) - first - second, abs=1e-6)


@pytest.mark.parametrize("outcome", [ABORTED, LEFT_OUT])
def test_a_round_that_did_not_count_leaves_the_residual_as_it_was(outcome: RoundOutcome) -> None:
    federation = feeding()
    federation.match_all()
    owner = federation.first()
    first = decoded(federation, send(federation, owner, 1, 0))
    close(owner, 1, COMPLETED)
    before = settled(owner)
    send(federation, owner, 2, 1)
    close(owner, 2, outcome)
    assert owner.residuals.mark(JOB_ID, Slot.PENDING) is None
    assert np.array_equal(settled(owner), before)
    third = decoded(federation, send(federation, owner, 3, 1))
    close(owner, 3, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(1) + update_of(3) - first - third, abs=1e-6)


def test_what_may_be_left_out_is_durable_before_a_byte_leaves() -> None:
    federation = feeding()
    federation.match_all()
    owner = federation.first()
    begin(federation, owner, 1, 0)
    assert owner.residuals.mark(JOB_ID, Slot.PENDING) is None
    effects = owner.participant.trained(JOB_ID, RoundNumber(1), update_of(1), 100)
    (payload,) = (report.payload for report in reports(effects))
    kept = owner.residuals.read(JOB_ID, Slot.PENDING)
    assert kept.words.tobytes() == payload
    assert kept.residual == pytest.approx(update_of(1) - decoded(federation, payload), abs=1e-7)


def test_a_disk_that_keeps_nothing_ends_the_round_before_a_byte_leaves(tmp_path: Path) -> None:
    federation = feeding()
    owner = federation.first()
    owner.residuals = FileResiduals(tmp_path / "residuals", ())
    owner.restart()
    federation.match_all()
    begin(federation, owner, 1, 0)
    (tmp_path / "residuals").rmdir()
    (answer,) = reports(owner.participant.trained(JOB_ID, RoundNumber(1), update_of(1), 100))
    assert isinstance(answer, RoundRefusal)
    assert answer.refusal.code == "fault"


# Restarts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def restarting(tmp_path: Path):
    """A federation whose first owner keeps its residuals in files, and what kills and restarts that owner."""
    federation = feeding()
    federation.match_all()
    owner = federation.first()

    def restart() -> None:
        owner.residuals = FileResiduals(tmp_path / "residuals", [JOB_ID])
        owner.restart()

    restart()
    return federation, owner, restart


def test_a_restarted_owner_sends_the_same_bytes_in_the_same_round_and_trains_for_none(restarting) -> None:
    federation, owner, restart = restarting
    sent = send(federation, owner, 1, 0)
    restart()
    effects = begin(federation, owner, 1, 0)
    assert not any(isinstance(effect, Train) for effect in effects)
    assert [report.payload for report in reports(effects)] == [sent]
    close(owner, 1, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(1) - decoded(federation, sent), abs=1e-7)


def test_word_that_a_round_counted_is_taken_by_a_process_that_knows_nothing_of_it(restarting) -> None:
    federation, owner, restart = restarting
    sent = send(federation, owner, 1, 0)
    restart()
    close(owner, 1, COMPLETED)
    close(owner, 1, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(1) - decoded(federation, sent), abs=1e-7)


def test_without_word_the_next_model_tells_that_the_round_counted(restarting) -> None:
    federation, owner, restart = restarting
    first = decoded(federation, send(federation, owner, 1, 0))
    restart()
    second = decoded(federation, send(federation, owner, 2, 1))
    close(owner, 2, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(1) + update_of(2) - first - second, abs=1e-6)


def test_without_word_another_round_on_the_same_model_tells_that_it_did_not(restarting) -> None:
    federation, owner, restart = restarting
    send(federation, owner, 1, 0)
    restart()
    second = decoded(federation, send(federation, owner, 2, 0))
    close(owner, 2, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(2) - second, abs=1e-7)


@pytest.mark.parametrize("version", [0, 3])
def test_a_residual_that_does_not_lead_to_the_model_is_never_added_to_it(restarting, version: int) -> None:
    federation, owner, restart = restarting
    send(federation, owner, 1, 0)
    close(owner, 1, COMPLETED)
    restart()  # over a folder from a backup, or before a coordinator from one
    second = decoded(federation, send(federation, owner, 2, version))
    close(owner, 2, COMPLETED)
    assert settled(owner) == pytest.approx(update_of(2) - second, abs=1e-7)


def test_a_damaged_residual_ends_the_round_and_only_stable_words_leave(restarting, tmp_path: Path) -> None:
    federation, owner, restart = restarting
    send(federation, owner, 1, 0)
    path = tmp_path / "residuals" / f"{JOB_ID}.pending"
    path.write_bytes(path.read_bytes()[:30])
    restart()
    (answer,) = reports(begin(federation, owner, 2, 0))
    assert (answer.refusal.code, answer.refusal.reason) == ("input", "RESIDUAL_UNREADABLE")
    assert answer.refusal.subject == ""


@pytest.mark.parametrize("state", ["finished", "aborted"])
def test_a_job_that_is_over_leaves_nothing_at_the_site(restarting, tmp_path: Path, state: str) -> None:
    federation, owner, _ = restarting
    send(federation, owner, 1, 0)
    close(owner, 1, COMPLETED)
    send(federation, owner, 2, 1)
    assert len(list((tmp_path / "residuals").iterdir())) == 2
    owner.participant.handle(JobClosed(JOB_ID, state, ""))
    assert not list((tmp_path / "residuals").iterdir())


ENDS = st.sampled_from([COMPLETED, ABORTED, LEFT_OUT, None])


@settings(max_examples=examples(30, 1000))
@given(
    script=st.lists(st.tuples(ENDS, st.booleans(), st.booleans()), min_size=1, max_size=12),
    codec=st.sampled_from(["topk", "sign"]),
    norm=st.sampled_from([0.05, 1.0]),
)
def test_a_residual_is_the_sum_of_updates_less_the_sum_of_what_was_decoded(script, codec: str, norm: float) -> None:
    """Whatever rounds end in, told of it or not, and whenever the process is killed; also where all are clipped."""
    federation = feeding(feeding_job(codec=codec, update_norm=norm))
    federation.match_all()
    owner, version, balance = federation.first(), 0, np.zeros(4)
    for number, (end, told, killed) in enumerate([*script, (COMPLETED, True, False)], 1):
        payload = send(federation, owner, number, version)
        if killed:
            owner.restart()
            assert send(federation, owner, number, version) == payload
        counted = end is COMPLETED
        if counted:
            update = update_of(number).astype(np.float64)
            balance += update * min(1.0, norm / np.linalg.norm(update)) - decoded(federation, payload)
            version += 1
        if told and end is not None:
            close(owner, number, end)
    assert settled(owner) == pytest.approx(balance, abs=1e-5)


# Refusals ---------------------------------------------------------------------------------------------------------


def refusal_of(federation: Federation, request: MatchRequest | None = None):
    (answer,) = reports(federation.first().match(request or federation.request))
    assert isinstance(answer, MatchAnswer)
    return answer.refusal


def test_error_feedback_is_allowed_by_name() -> None:
    refusal = refusal_of(feeding(allow_error_feedback=False))
    assert (refusal.code, refusal.reason) == ("refused.policy", "ERROR_FEEDBACK")
    assert refusal.subject == "policy.jobs.allow_error_feedback"
    assert refusal_of(feeding()) is None


@pytest.mark.parametrize("cohort", [3, 5])
def test_a_job_whose_rounds_have_not_all_members_is_refused(cohort: int) -> None:
    refusal = refusal_of(feeding(feeding_job(min_cohort=cohort, max_cohort=cohort)))
    assert (refusal.reason, refusal.subject) == ("PARTIAL_PARTICIPATION", "job.aggregation.max_cohort")
    assert refusal_of(feeding(feeding_job(codec="eden", min_cohort=3, max_cohort=3))) is None


def test_a_member_that_the_owner_no_longer_accepts_ends_the_rounds_of_a_job_that_feeds_back() -> None:
    federation = feeding()
    federation.match_all()
    owner = federation.first()
    pinned = [key.public.hex() for key in federation.identities[:3]]
    peers = {"members": pinned, "minimum_cohort": 3}
    document = owner.policy.model_dump(mode="json", exclude_none=True)
    owner.policy = type(owner.policy).model_validate(document | {"peers": peers})
    (answer,) = reports(owner.participant.handle(RoundInvite(federation.setup(1))))
    assert answer.refusal.reason == "PARTIAL_PARTICIPATION"


@pytest.mark.parametrize(
    "change",
    [
        {"aggregation": {"secure": True}},
        {"aggregation": {"min_cohort": 3}},
        {"privacy": {"mode": "record-local", "noise_multiplier": 4.0}},
    ],
)
def test_an_owner_takes_no_job_that_no_researcher_can_write(change: dict[str, dict[str, Any]]) -> None:
    federation = feeding()
    document = json.loads(federation.job.canonical())
    for section, keys in change.items():
        document[section] |= keys
    forged = MatchRequest(JOB_ID, canonical_json(document), federation.signed.to_json())
    refusal = refusal_of(federation, forged)
    assert refusal.code == "settings"
    assert refusal_of(federation) is None
