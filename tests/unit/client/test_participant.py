"""Does an owner keep its promises: through whole rounds, repetitions, restarts and a coordinator that cheats?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_client.effects import Follow, Forget, ForgetJob, Match, SendReport, Train, Upload
from lepton_core.errors import DataError, FaultError, MatchRefusal
from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import Replaced
from lepton_core.privacy.ledger import ChargeState, spent_events
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    DealtShares,
    Delivery,
    InputTrailer,
    Leaf,
    Roster,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.session import (
    JobClosed,
    MatchAnswer,
    MatchRequest,
    Published,
    RoundClosed,
    RoundCommand,
    RoundInvite,
    RoundOutcome,
    RoundRefusal,
    RoundReport,
)
from lepton_pool.promise import round_event, rounds_event
from tests.property.budget import examples
from tests.unit.client.owners import (
    JOB_ID,
    PLAN,
    VOCABULARY,
    Federation,
    Round,
    make_job,
    make_list,
    make_policy,
    make_updates,
    model_digest,
    reports,
)

ONE = RoundNumber(1)


def refusal_to(federation: Federation, outcome=PLAN, request: MatchRequest | None = None):
    (report,) = reports(federation.first().match(request or federation.request, outcome))
    assert isinstance(report, MatchAnswer)
    return report.refusal


# A whole round ----------------------------------------------------------------------------------------------------


def test_four_owners_give_the_mean_of_their_updates_and_nothing_else() -> None:
    federation = Federation()
    federation.match_all()
    updates = make_updates(federation)
    done = federation.round(1, 0, updates)
    assert done.refusals == {}
    assert done.rejected == []
    assert len(done.result.survivors) == 4
    seed = next(iter(done.trains.values())).codec_seed
    assert done.mean(seed) == pytest.approx(np.mean(list(updates.values()), axis=0), abs=2e-3)


@pytest.mark.parametrize("step", [Advert, ShareMessage, InputTrailer, ConsistencySignature, Unmasking])
def test_one_of_four_lost_at_any_step_leaves_the_exact_sum_of_the_survivors(step: type) -> None:
    federation = Federation()
    federation.match_all()
    lost = federation.identities[1].member
    updates = make_updates(federation)
    done = federation.round(1, 0, updates, lose={lost: step})
    assert done.result is not None
    survived = step in (ConsistencySignature, Unmasking)
    assert (lost in done.result.survivors) is survived
    seed = next(train for member, train in done.trains.items() if member != lost).codec_seed
    expected = np.mean([updates[member] for member in done.result.survivors], axis=0)
    assert done.mean(seed) == pytest.approx(expected, abs=2e-3)


def test_each_round_is_reserved_then_spent_and_answered_once_a_model_version() -> None:
    federation = Federation()
    federation.match_all()
    for number in (1, 2):
        federation.round(number, number - 1, make_updates(federation))
    owner = federation.first()
    assert [(entry.state.name, entry.charge.round, entry.rounds) for entry in owner.ledger.entries] == [
        ("RESERVED", 1, 3),
        ("SPENT", 1, 1),
        ("SPENT", 2, 1),
    ]
    assert {entry.charge.plan for entry in owner.ledger.entries} == {PLAN}
    assert owner.records.answered(JOB_ID) == {0, 1}


def test_training_is_asked_with_public_numbers_only() -> None:
    federation = Federation()
    federation.match_all()
    done = federation.round(1, 0, make_updates(federation))
    train = done.trains[federation.first().identity.member]
    assert train.expected_batch == 100 * 0.25
    assert train.model_digest == model_digest(0).hex()
    assert train.model_version == 0


#: Its masked words are too long to travel within a message.
LARGE = make_job(model={"kind": "mlp", "hidden": [20_000]})


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_charge_is_durable_before_training_is_asked_and_spent_before_the_words_leave(size: str) -> None:
    federation = Federation() if size == "small" else Federation(job=LARGE, jobs={"models": ["mlp"]})
    federation.match_all()
    seen: dict[str, int] = {}
    owner = federation.first()
    participant = owner.participant
    handle, trained = participant.handle, participant.trained

    def watched_handle(command):
        effects = handle(command)
        if any(isinstance(effect, Train) for effect in effects):
            seen["reserved"] = sum(entry.state is ChargeState.RESERVED for entry in owner.ledger.entries)
            seen["spent early"] = sum(entry.state is ChargeState.SPENT for entry in owner.ledger.entries)
        return effects

    def watched_trained(*arguments):
        effects = trained(*arguments)
        uploads = [effect for effect in effects if isinstance(effect, Upload)]
        assert len(uploads) == (size == "large")
        assert len(uploads) + sum(bool(report.payload) for report in reports(effects)) == 1
        seen["spent"] = sum(entry.state is ChargeState.SPENT for entry in owner.ledger.entries)
        return effects

    participant.handle, participant.trained = watched_handle, watched_trained
    federation.round(1, 0, make_updates(federation))
    assert seen == {"reserved": 1, "spent early": 0, "spent": 1}


# Matching ---------------------------------------------------------------------------------------------------------


def test_a_request_is_answered_after_the_data_were_checked_and_again_the_same() -> None:
    federation = Federation()
    owner = federation.first()
    effects = owner.participant.handle(federation.request)
    assert [type(effect) for effect in effects] == [Match]
    assert owner.participant.handle(federation.request) == ()
    answer = (SendReport(MatchAnswer(JOB_ID, None)),)
    assert owner.participant.matched(JOB_ID, PLAN) == answer
    assert owner.participant.handle(federation.request) == answer


def test_a_restarted_owner_remembers_what_it_accepted_and_checks_its_data_before_the_next_round() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    owner.restart()
    assert owner.participant.handle(federation.request) == (SendReport(MatchAnswer(JOB_ID, None)),)
    effects = owner.participant.handle(RoundInvite(federation.setup(1)))
    assert [type(effect) for effect in effects] == [Match]
    (report,) = reports(owner.participant.matched(JOB_ID, PLAN))
    assert isinstance(report.message, Advert)


def test_a_restarted_owner_may_check_its_data_before_it_is_asked() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    owner.restart()
    (check,) = owner.participant.resume()
    assert isinstance(check, Match)
    assert owner.participant.resume() == ()
    # An invitation that comes meanwhile waits for the same check.
    assert owner.participant.handle(RoundInvite(federation.setup(1))) == ()
    (report,) = reports(owner.participant.matched(JOB_ID, PLAN))
    assert isinstance(report.message, Advert)
    owner.participant.handle(JobClosed(JOB_ID, "finished", ""))
    owner.restart()
    assert owner.participant.resume() == ()


def test_a_restarted_owner_whose_data_are_gone_refuses_the_round_and_says_why() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    owner.restart()
    owner.participant.handle(RoundInvite(federation.setup(1)))
    gone = DataError("the source file is missing", where="/secret/path.csv", reason="MISSING_FILE")
    (report,) = reports(owner.participant.matched(JOB_ID, gone))
    assert isinstance(report, RoundRefusal)
    assert (report.refusal.code, report.refusal.reason, report.refusal.subject) == ("data", "MISSING_FILE", "")


def test_a_refusal_of_the_data_names_the_concept_and_nothing_of_the_owner() -> None:
    missing = MatchRefusal("no column", where=VOCABULARY + "radius", reason="MISSING_CONCEPT", got="column Radius_cm")
    refusal = refusal_to(Federation(), missing)
    assert (refusal.code, refusal.reason, refusal.subject) == (
        "refused.match",
        "MISSING_CONCEPT",
        VOCABULARY + "radius",
    )
    other = MatchRefusal("two columns", where="https://hospital.example/private", reason="AMBIGUOUS_MAPPING")
    assert refusal_to(Federation(), other).subject == ""


def test_a_refusal_is_repeated_without_looking_at_the_data_again() -> None:
    federation = Federation()
    first = refusal_to(federation, MatchRefusal("no column", reason="MISSING_CONCEPT"))
    assert reports(federation.first().participant.handle(federation.request)) == [MatchAnswer(JOB_ID, first)]


def test_a_fault_that_may_pass_is_looked_at_anew() -> None:
    federation = Federation()
    assert refusal_to(federation, FaultError("no answer")).code == "fault"
    assert refusal_to(federation) is None


def test_another_job_under_an_accepted_jobs_id_is_refused() -> None:
    federation = Federation()
    federation.match_all()
    other = replace(federation.request, canonical_job=make_job(name="other").canonical())
    assert refusal_to(federation, request=other).reason == "JOB_CHANGED"


def test_a_job_that_cannot_be_read_is_refused() -> None:
    federation = Federation()
    assert refusal_to(federation, request=replace(federation.request, canonical_job=b"{")).code == "job"


def test_noise_below_the_jobs_own_promise_is_refused() -> None:
    federation = Federation(job=make_job(privacy={"noise_multiplier": 0.5, "epsilon": 1.0}))
    assert refusal_to(federation).reason == "NOISE_TOO_LOW"


def test_a_job_over_the_budget_is_refused_before_the_data_are_looked_at() -> None:
    # One such job costs 1.61, two cost 2.43; what the first has yet to spend counts as spent.
    federation = Federation(
        populations=[_population(epsilon=2.0)], job=make_job(training={"rounds": 40}, privacy={"epsilon": 1.7})
    )
    federation.match_all()
    owner = federation.first()
    (report,) = reports(owner.participant.handle(replace(federation.request, job=JobId("job-2"))))
    assert (report.refusal.code, report.refusal.reason) == ("refused.budget", "BUDGET_EXCEEDED")
    owner.participant.handle(JobClosed(JOB_ID, "aborted", ""))
    assert refusal_to(federation, request=replace(federation.request, job=JobId("job-3"))) is None


def test_many_small_jobs_cannot_together_overdraw_the_budget_of_a_population() -> None:
    # Each costs little by itself; none has charged a round yet. Names, seeds and sampling rates all differ.
    federation = Federation(populations=[_population(epsilon=1.2)])
    owner = federation.first()
    answers = []
    for index in range(6):
        training = {"rounds": 8, "sampling_rate": 0.25 + index / 1000}
        job = make_job(name=f"drain-{index}", model={"seed": index}, training=training, privacy={"epsilon": 1.0})
        request = MatchRequest(JobId(f"drain-{index}"), job.canonical(), federation.signed.to_json())
        (answer,) = reports(owner.match(request))
        answers.append(answer.refusal.code if answer.refusal is not None else "can")
    accepted = [known.job for known in owner.records.jobs().values()]
    assert 1 < answers.index("refused.budget") == len(accepted) < 6
    events = [event for job in accepted if (event := rounds_event(job, job.training.rounds)) is not None]
    assert epsilon_of(events, 1e-3) <= 1.2
    # What is refused stays refused until a job ends; one that ended without a charge gives its part back.
    owner.participant.handle(JobClosed(JobId("drain-0"), "aborted", ""))
    again = MatchRequest(
        JobId("drain-new"),
        make_job(name="drain-new", privacy={"epsilon": 1.0}).canonical(),
        federation.signed.to_json(),
    )
    (answer,) = reports(owner.match(again))
    assert answer.refusal is None


SUBJECTS = {"subject_epsilon": 4.0, "declared_subjects": 40}


def test_a_job_for_subjects_is_charged_as_such_and_divides_by_the_declared_subjects() -> None:
    job = make_job(privacy={"unit": "subject"})
    federation = Federation(job=job, populations=[_population(epsilon=20.0, **SUBJECTS)])
    federation.match_all()
    done = federation.round(1, 0, make_updates(federation))
    owner = federation.first()
    assert done.trains[owner.identity.member].expected_batch == 40 * 0.25
    assert {entry.charge.unit for entry in owner.ledger.entries} == {"subject"}
    assert set(spent_events(owner.ledger.entries, "patients", unit="subject")) == {round_event(job)}


def test_a_job_for_subjects_must_fit_the_budget_for_a_record_as_well() -> None:
    # A record of a subject costs more than its subject: what the subject gives may become anything else.
    job = make_job(privacy={"unit": "subject", "noise_multiplier": 1.0})
    alone = rounds_event(job, job.training.rounds)
    for_record = epsilon_of([Replaced(alone)], 1e-3)
    assert epsilon_of([alone], 1e-3) < 4.0 < for_record
    for epsilon, code in ((for_record - 0.01, "refused.budget"), (for_record + 0.01, None)):
        federation = Federation(job=job, populations=[_population(epsilon=epsilon, **SUBJECTS)])
        refusal = refusal_to(federation)
        assert (refusal.code if refusal is not None else None) == code


def test_records_that_were_charged_end_the_promise_to_subjects_and_not_the_other_way_round() -> None:
    populations = {
        "record": make_policy().populations[0].model_copy(update={"epsilon": 20.0}),
        "subject": make_policy(populations=[_population(epsilon=20.0, **SUBJECTS)]).populations[0],
    }
    jobs = {unit: make_job(name=unit, privacy={"unit": unit}) for unit in populations}
    for first, reason in (("record", "RECORD_CHARGES"), ("subject", None)):
        federation = Federation(job=jobs[first])
        owner = federation.first()
        for each in federation.owners.values():
            each.policy = each.policy.model_copy(update={"populations": (populations[first],)})
        federation.match_all()
        federation.round(1, 0, make_updates(federation))
        owner.participant.handle(JobClosed(JOB_ID, "finished", ""))
        second = "subject" if first == "record" else "record"
        owner.policy = owner.policy.model_copy(update={"populations": (populations[second],)})
        request = MatchRequest(JobId("second"), jobs[second].canonical(), federation.signed.to_json())
        refusal = refusal_to(federation, request=request)
        assert (refusal.reason if refusal is not None else None) == reason


def test_a_policy_that_forbids_a_job_is_told_by_its_key() -> None:
    federation = Federation(jobs={"models": ["mlp"]})
    refusal = refusal_to(federation)
    assert (refusal.code, refusal.reason, refusal.subject) == ("refused.policy", "MODEL", "policy.jobs.models")


def test_a_policy_that_is_changed_holds_from_the_next_request_on() -> None:
    federation = Federation()
    owner, allowed = federation.first(), federation.first().policy
    forbidden = allowed.jobs.model_copy(update={"models": ("mlp",)})
    owner.policy = allowed.model_copy(update={"jobs": forbidden})
    assert refusal_to(federation).reason == "MODEL"
    owner.policy = allowed
    assert refusal_to(federation) is None
    owner.policy = allowed.model_copy(update={"jobs": forbidden})
    (report,) = reports(owner.participant.handle(RoundInvite(federation.setup(1))))
    assert (report.refusal.reason, report.refusal.subject) == ("MODEL", "policy.jobs.models")


def _population(**changes) -> dict:
    return {
        "name": "patients",
        "mapping": "mapping.yaml",
        "declared_rows": 100,
        "epsilon": 8.0,
        "delta": 1e-3,
    } | changes


# Peers ------------------------------------------------------------------------------------------------------------


def test_a_changed_membership_list_stops_the_job_until_the_owner_accepts_it() -> None:
    federation = Federation()
    newer = make_list(federation.identities, federation.key, version=2)
    request = replace(federation.request, membership_list=newer.to_json())
    assert refusal_to(federation, request=request).reason == "MEMBERSHIP_CHANGED"
    federation.first().accepted = newer
    assert refusal_to(federation, request=request) is None


def test_a_list_that_another_key_signed_is_refused() -> None:
    federation = Federation()
    forged = make_list(federation.identities, federation.identities[0])
    request = replace(federation.request, membership_list=forged.to_json())
    assert refusal_to(federation, request=request).reason == "BAD_SIGNATURE"


def test_an_owner_that_has_accepted_no_list_refuses() -> None:
    federation = Federation()
    federation.first().accepted = None
    assert refusal_to(federation).reason == "MEMBERSHIP_NOT_ACCEPTED"


def test_an_owner_that_is_not_listed_refuses() -> None:
    federation = Federation()
    shorter = make_list(federation.identities[1:], federation.key)
    federation.first().accepted = shorter
    request = replace(federation.request, membership_list=shorter.to_json())
    assert refusal_to(federation, request=request).reason == "NOT_LISTED"


def test_an_expired_list_ends_rounds_of_a_job_accepted_before() -> None:
    federation = Federation()
    federation.signed = make_list(federation.identities, federation.key, expires=int(federation.clock.now()) + 60)
    federation.request = replace(federation.request, membership_list=federation.signed.to_json())
    for owner in federation.owners.values():
        owner.accepted = federation.signed
    federation.match_all()
    federation.clock.time += 61
    (report,) = reports(federation.first().participant.handle(RoundInvite(federation.setup(1))))
    assert report.refusal.reason == "EXPIRED"


def test_a_member_that_the_newest_accepted_list_leaves_out_is_no_peer_even_in_an_older_job() -> None:
    federation = Federation()
    federation.match_all()
    outcast = federation.identities[3]
    federation.first().accepted = make_list(federation.identities[:3], federation.key, version=2)
    done = federation.round(1, 0, make_updates(federation))
    assert set(done.refusals) == {federation.first().identity.member}
    assert outcast.member in done.result.survivors


def test_pinned_members_need_no_list_to_be_accepted_but_admit_nobody_else() -> None:
    federation = Federation()
    pins = [key.public.hex() for key in federation.identities[:3]]
    owner = federation.first()
    owner.policy = federation.policy.model_copy(
        update={"peers": federation.policy.peers.model_copy(update={"federation_key": None, "members": tuple(pins)})}
    )
    owner.accepted = None
    owner.restart()
    federation.match_all()
    done = federation.round(1, 0, make_updates(federation))
    # The roster holds a fourth member that this owner has not pinned.
    assert set(done.refusals) == {owner.identity.member}


# A coordinator that cheats, repeats and forgets -------------------------------------------------------------------


def test_terms_other_than_the_jobs_are_refused_before_a_secret_is_made() -> None:
    federation = Federation()
    federation.match_all()
    setup = federation.setup(1)
    for changed in (
        replace(setup.terms, min_cohort=4),
        replace(setup.terms, step_deadline_s=11.0),
        replace(setup.terms, job_digest=b"x" * 32),
        replace(setup.terms, membership_digest=b"x" * 32),
        replace(setup.terms, ontology_digest=b"x" * 32),
        replace(setup.terms, compiler_version="0"),
    ):
        owner = federation.first()
        owner.restart()
        owner.match(federation.request)
        owner.participant.handle(RoundInvite(replace(setup, terms=changed)))
        (report, *_) = reports(owner.participant.matched(JOB_ID, PLAN))
        assert isinstance(report, RoundRefusal)
        assert report.refusal.reason == "TERMS"


def test_an_invitation_to_an_unknown_job_is_refused() -> None:
    federation = Federation()
    (report,) = reports(federation.first().participant.handle(RoundInvite(federation.setup(1))))
    assert report.refusal.reason == "UNKNOWN_JOB"


def test_a_repeated_invitation_gets_the_same_advert_and_a_different_one_ends_the_round() -> None:
    federation = Federation()
    federation.match_all()
    participant = federation.first().participant
    invite = RoundInvite(federation.setup(1))
    first = participant.handle(invite)
    assert participant.handle(invite) == first
    (report,) = reports(participant.handle(RoundInvite(federation.setup(1, nonce_commitment=b"y" * 32))))
    assert report.refusal.reason == "DIFFERENT_REPETITION"
    assert reports(participant.handle(invite)) == [report]


def test_a_message_of_a_round_whose_secrets_died_with_a_process_is_refused() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    owner.participant.handle(RoundInvite(federation.setup(1)))
    owner.restart()
    (report,) = reports(owner.participant.handle(RoundCommand(JOB_ID, ONE, SurvivorSet(()))))
    assert report.refusal.reason == "SECRETS_LOST"


def test_the_keys_of_one_newer_round_are_made_beside_a_running_one_and_a_still_newer_one_takes_their_place() -> None:
    federation = Federation()
    federation.match_all()
    participant = federation.first().participant
    participant.handle(RoundInvite(federation.setup(1)))
    (report,) = reports(participant.handle(RoundInvite(federation.setup(2))))
    assert (report.round, type(report.message)) == (RoundNumber(2), Advert)
    (again,) = reports(participant.handle(RoundInvite(federation.setup(1))))
    assert (again.round, type(again.message)) == (ONE, Advert), "the older round goes on"
    assert participant.handle(RoundInvite(federation.setup(2))) == (SendReport(report),), "the same keys"
    effects = participant.handle(RoundInvite(federation.setup(3)))
    assert Forget(JOB_ID, RoundNumber(2)) in effects
    assert Forget(JOB_ID, ONE) not in effects
    assert participant.handle(RoundInvite(federation.setup(2))) == ()
    assert participant.handle(RoundCommand(JOB_ID, RoundNumber(2), SurvivorSet(()))) == ()


def test_the_advert_of_the_next_round_rides_on_the_input_of_the_running_one() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    seen: list[list] = []
    trained = owner.participant.trained

    def invited_while_training(job_id, number, update, rows):
        held = reports(owner.participant.handle(RoundInvite(federation.setup(2))))
        seen.append(held)
        effects = trained(job_id, number, update, rows)
        seen.append([(report.round, type(report.message)) for report in reports(effects)])
        return effects

    owner.participant.trained = invited_while_training
    federation.round(1, 0, make_updates(federation))
    assert seen == [[], [(ONE, InputTrailer), (RoundNumber(2), Advert)]]


def test_what_a_round_published_is_followed_by_those_that_saw_its_end_and_by_nobody_else() -> None:
    federation = Federation()
    federation.match_all()
    participant = federation.first().participant
    closed = RoundClosed(JOB_ID, ONE, RoundOutcome.COMPLETED, "", Published(PLAN, b"link"))
    participant.handle(RoundInvite(federation.setup(1)))
    assert not any(isinstance(effect, Follow) for effect in participant.handle(closed))
    federation = Federation()
    federation.match_all()
    done = federation.round(1, 0, make_updates(federation))
    (follow,) = federation.first().participant.handle(closed)
    assert follow == Follow(JOB_ID, closed.published, done.result.transcript.sid, done.result.survivors)


def test_a_model_version_is_answered_once_for_ever() -> None:
    federation = Federation()
    federation.match_all()
    federation.round(1, 0, make_updates(federation))
    for owner in federation.owners.values():
        owner.restart()
    again = federation.round(2, 0, make_updates(federation))
    assert {refusal.refusal.reason for refusal in again.refusals.values()} == {"ALREADY_ANSWERED"}
    assert again.result is None
    assert len(federation.first().ledger.entries) == 2


def test_a_model_shown_again_under_another_version_number_is_not_trained_on() -> None:
    federation = Federation()
    federation.match_all()
    federation.round(1, 0, make_updates(federation))
    federation.first().restart()
    again = federation.round(2, 1, make_updates(federation), model=model_digest(0))
    assert {refusal.refusal.reason for refusal in again.refusals.values()} == {"ALREADY_ANSWERED"}
    assert again.trains == {}
    assert again.result is None
    assert len(federation.first().ledger.entries) == 2


def test_a_job_without_privacy_has_no_more_versions_than_rounds() -> None:
    # Nothing is charged here, so that only the plan bounds how many sums a coordinator can ask for.
    job = make_job(privacy={"mode": "none", "noise_multiplier": None}, training={"rounds": 2})
    federation = Federation(
        job=job, jobs={"allow_unprotected": True}, populations=[_population(modes=["record-local", "none"])]
    )
    federation.match_all()
    assert federation.round(1, 0, make_updates(federation)).result is not None
    assert federation.round(2, 1, make_updates(federation)).result is not None
    third = federation.round(3, 2, make_updates(federation))
    assert {refusal.refusal.reason for refusal in third.refusals.values()} == {"TOO_MANY_VERSIONS"}
    assert third.trains == {}


def test_a_round_number_used_again_after_a_restart_is_never_charged_twice() -> None:
    federation = Federation()
    federation.match_all()
    federation.round(1, 0, make_updates(federation))
    owner = federation.first()
    for other in federation.owners.values():
        other.restart()
    again = federation.round(1, 1, make_updates(federation))
    assert again.refusals[owner.identity.member].refusal.reason == "CHARGED_TWICE"


def test_rounds_charged_beyond_those_planned_are_capped_and_stay_within_the_budget() -> None:
    federation = Federation(job=make_job(training={"rounds": 2}))
    federation.match_all()
    reasons = []
    for number in range(1, 6):
        # A coordinator that drops every round after the uploads, and blames the others.
        lose = {key.member: InputTrailer for key in federation.identities[2:]}
        done = federation.round(number, 0, make_updates(federation), lose=lose)
        assert done.result is None
        reasons += [refusal.refusal.reason for refusal in list(done.refusals.values())[:1]]
    # Three may come to nothing, whatever was planned: in place of two, one more was reserved.
    assert reasons == ["TOO_MANY_UNPUBLISHED", "TOO_MANY_UNPUBLISHED"]
    assert federation.first().ledger.charged_rounds(federation.first().ledger.entries[0].charge.job) == 3


@pytest.mark.parametrize("bad", ["nan", "inf", "short", "long", "double"])
def test_an_update_that_cannot_be_encoded_ends_the_round_and_nothing_is_uploaded(bad: str) -> None:
    federation = Federation()
    federation.match_all()
    updates = make_updates(federation)
    member = federation.first().identity.member
    match bad:
        case "nan":
            updates[member][1] = np.nan
        case "inf":
            updates[member][0] = np.inf
        case "short":
            updates[member] = updates[member][:-1]
        case "long":
            updates[member] = np.append(updates[member], np.float32(0))
        case "double":
            updates[member] = updates[member].astype(np.float64)
    done = federation.round(1, 0, updates)
    assert done.refusals[member].refusal.code == "codec"
    assert member not in done.payloads
    assert member not in done.result.survivors
    assert [entry.state for entry in federation.first().ledger.entries] == [ChargeState.RESERVED]


def test_a_training_that_fails_ends_the_round_and_tells_only_its_code() -> None:
    federation = Federation()
    federation.match_all()
    participant = federation.first().participant
    participant.handle(RoundInvite(federation.setup(1)))
    effects = participant.training_failed(JOB_ID, ONE, FaultError("worker died", where="/path", got="row 17"))
    assert reports(effects)[0].refusal.code == "fault"
    assert "17" not in str(effects)
    assert "/path" not in str(effects)
    assert Forget(JOB_ID, ONE) in effects


def test_an_upload_that_fails_ends_the_round() -> None:
    federation = Federation(job=LARGE, jobs={"models": ["mlp"]})
    federation.match_all()
    owner = federation.first()
    owner.participant.uploaded = lambda job, number: owner.participant.upload_failed(
        job, number, FaultError("no answer", reason="DEADLINE")
    )
    done = federation.round(1, 0, make_updates(federation))
    assert done.refusals[owner.identity.member].refusal.reason == "DEADLINE"
    assert len(done.result.survivors) == 3


def test_completions_of_a_round_that_is_over_change_nothing() -> None:
    federation = Federation()
    federation.match_all()
    participant = federation.first().participant
    participant.handle(RoundInvite(federation.setup(1)))
    participant.handle(RoundClosed(JOB_ID, ONE, RoundOutcome.ABORTED, ""))
    update = make_updates(federation)[federation.first().identity.member]
    assert participant.trained(JOB_ID, ONE, update, 100) == ()
    assert participant.uploaded(JOB_ID, ONE) == ()
    assert participant.training_failed(JOB_ID, ONE, FaultError("late")) == ()
    assert participant.upload_failed(JOB_ID, ONE, FaultError("late")) == ()


def test_a_round_that_nothing_moves_expires_and_is_told_of() -> None:
    federation = Federation()
    federation.match_all()
    participant = federation.first().participant
    participant.handle(RoundInvite(federation.setup(1)))
    federation.clock.time += 59
    assert participant.tick() == ()
    federation.clock.time += 2
    assert reports(participant.tick())[0].refusal.reason == "EXPIRED"
    assert participant.tick() == ()


def test_a_closed_job_is_forgotten_and_opens_no_more_rounds() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    owner.participant.handle(RoundInvite(federation.setup(1)))
    effects = owner.participant.handle(JobClosed(JOB_ID, "finished", ""))
    assert effects == (Forget(JOB_ID, ONE), ForgetJob(JOB_ID))
    (report,) = reports(owner.participant.handle(RoundInvite(federation.setup(2))))
    assert report.refusal.reason == "JOB_CLOSED"
    owner.restart()
    assert refusal_to(federation).reason == "JOB_CLOSED"


def test_an_expired_policy_ends_rounds_of_a_job_accepted_before() -> None:
    federation = Federation()
    federation.match_all()
    federation.clock.time = 1_893_542_400.0  # the second of January 2030
    (report,) = reports(federation.first().participant.handle(RoundInvite(federation.setup(1))))
    assert (report.refusal.reason, report.refusal.subject) == ("EXPIRED", "policy.jobs.expires")


def test_no_secret_and_no_update_is_in_what_an_upload_shows() -> None:
    upload = Upload(JOB_ID, ONE, b"\x01" * 100, PLAN, 1.0)
    assert "\\x01" not in repr(upload)


def test_the_same_calls_give_the_same_bytes() -> None:
    def payloads() -> list[bytes]:
        federation = Federation()
        federation.match_all()
        return list(federation.round(1, 0, make_updates(federation)).payloads.values())

    assert payloads() == payloads()


def test_a_job_without_privacy_needs_permission_twice_and_is_charged_nothing() -> None:
    job = make_job(privacy={"mode": "none", "noise_multiplier": None})
    assert refusal_to(Federation(job=job)).reason == "UNPROTECTED"
    assert refusal_to(Federation(job=job, jobs={"allow_unprotected": True})).reason == "MODE"
    allowed = Federation(
        job=job, jobs={"allow_unprotected": True}, populations=[_population(modes=["record-local", "none"])]
    )
    allowed.match_all()
    done = allowed.round(1, 0, make_updates(allowed))
    assert len(done.result.survivors) == 4
    assert allowed.first().ledger.entries == ()


def test_a_repeated_certificate_gets_the_stored_unmasking() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    certificates = []
    handle = owner.participant.handle

    def watched(command):
        if isinstance(command, RoundCommand) and type(command.message).__name__ == "Certificate":
            certificates.append(command)
        return handle(command)

    owner.participant.handle = watched
    federation.round(1, 0, make_updates(federation))
    (first,) = certificates
    (report,) = reports(handle(first))
    assert isinstance(report, RoundReport)
    assert isinstance(report.message, Unmasking)
    assert owner.records.answered(JOB_ID) == {ModelVersion(0)}


# Whatever comes ---------------------------------------------------------------------------------------------------


def _garbage(number: RoundNumber):
    """Commands and completions in their form, with contents that no honest coordinator sends."""
    member, digest = MemberId(b"m" * 16), b"d" * 32
    signature = ConsistencySignature(member, b"s" * 64)
    advert = Advert(member, digest, digest, digest, digest, digest, b"s" * 64)
    messages = (
        Roster((), digest, ()),
        Roster((Leaf(member, digest),) * 2, digest, (advert,)),
        Delivery((), ModelVersion(0), digest),
        Delivery((DealtShares(member, b"", (), b"s" * 64),), ModelVersion(1), digest),
        SurvivorSet(()),
        SurvivorSet((member, member)),
        Certificate(()),
        Certificate((signature,)),
    )
    return (
        *(RoundCommand(JOB_ID, number, message) for message in messages),
        RoundClosed(JOB_ID, number, RoundOutcome.LEFT_OUT, "x"),
    )


@given(script=st.lists(st.tuples(st.integers(0, 13), st.integers(1, 3)), max_size=25))
@settings(max_examples=examples(40, 1000))
def test_whatever_order_things_come_in_nothing_is_raised_charged_or_revealed(script) -> None:
    federation = Federation(3)
    owner = federation.first()
    owner.match(federation.request)
    participant = owner.participant
    for kind, raw in script:
        number = RoundNumber(raw)
        garbage = _garbage(number)
        if kind < len(garbage):
            effects = participant.handle(garbage[kind])
        elif kind == 9:
            effects = participant.handle(RoundInvite(federation.setup(raw)))
        elif kind == 10:
            effects = participant.trained(JOB_ID, number, np.zeros(4, np.float32), 100)
        elif kind == 11:
            effects = participant.uploaded(JOB_ID, number)
        elif kind == 12:
            effects = participant.tick()
        else:
            effects = participant.handle(federation.request)
        for report in reports(effects):
            assert isinstance(report, MatchAnswer | RoundRefusal) or isinstance(report.message, Advert)
        assert not any(isinstance(effect, Train | Upload) for effect in effects)
    assert owner.ledger.entries == ()
    assert owner.records.answered(JOB_ID) == frozenset()


def test_data_prepared_for_a_job_that_ended_serve_no_other_job_of_its_id() -> None:
    federation = Federation()
    participant = federation.first().participant
    other = MatchRequest(JOB_ID, make_job(purpose="research", name="other").canonical(), federation.signed.to_json())
    (match,) = participant.handle(federation.request)
    assert isinstance(match, Match)
    assert participant.handle(JobClosed(JOB_ID, "aborted", "")) == (ForgetJob(JOB_ID),)
    assert participant.handle(other) == ()  # its turn comes when the coordinator repeats it
    assert participant.matched(JOB_ID, PLAN) == (ForgetJob(JOB_ID),)
    assert federation.first().records.jobs() == {}
    (match,) = participant.handle(other)
    assert isinstance(match, Match)
    assert match.job.name == "other"
    assert reports(participant.matched(JOB_ID, PLAN)) == [MatchAnswer(JOB_ID, None)]


def test_a_flood_of_jobs_is_checked_a_few_at_a_time() -> None:
    federation = Federation()
    participant = federation.first().participant
    asked = [
        effect
        for index in range(100)
        for effect in participant.handle(replace(federation.request, job=JobId(f"job-{index}")))
        if isinstance(effect, Match)
    ]
    assert len(asked) == 16
    participant.matched(JobId("job-0"), MatchRefusal("no column", reason="MISSING_CONCEPT"))
    (next_one,) = participant.handle(replace(federation.request, job=JobId("job-99")))
    assert isinstance(next_one, Match)


def test_what_was_trained_does_not_leave_once_the_owner_forbids_it() -> None:
    federation = Federation(5)
    federation.match_all()
    updates = make_updates(federation)
    late = federation.first()

    class Forbidding(Round):
        def perform(self, member, effect) -> None:
            if isinstance(effect, Train) and member == late.identity.member:
                # Between the order to train and its end.
                late.policy = make_policy(federation.key, jobs={"models": ["mlp"]})
            super().perform(member, effect)

    ended = Forbidding(federation, 1, 0, updates).run()
    assert ended.refusals[late.identity.member].refusal.reason == "MODEL"
    assert late.identity.member not in ended.payloads
    assert [entry.state for entry in late.ledger.entries] == [ChargeState.RESERVED]
    assert ended.result is not None
    assert late.identity.member not in ended.result.survivors
