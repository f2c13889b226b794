"""The privacy card says what the accountant finds for the rounds that were, and nothing comforting about no privacy."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from lepton_admin.card import card_markdown, privacy_card
from lepton_core.privacy.accountant import Observer, epsilon_of
from lepton_core.privacy.events import SampledGaussian
from lepton_core.views import JobState, JobView, RoundView
from lepton_pool.promise import epsilon_after, epsilon_if_all_collude
from tests.unit.client.owners import make_distributed_job, make_job


def blank(kind, **values):
    """A view of which only these fields matter."""
    empty = {"int": 0, "float": 0.0, "str": ""}
    every = {field.name: empty.get(str(field.type), ()) for field in fields(kind) if field.name != "encoding"}
    return kind(**{**every, **values})


def view_of(*states):
    rounds = tuple(blank(RoundView, round=number, state=state) for number, state in enumerate(states, 1))
    return blank(
        JobView, job="small-1", state=JobState.FINISHED, rounds=rounds, model_version=states.count("completed")
    )


def test_epsilon_is_that_of_the_rounds_that_were_and_never_above_the_promise():
    job = make_job()
    card = privacy_card(job, view_of("completed", "aborted", "completed"))
    noise, rate, steps = job.privacy.noise_multiplier, job.training.sampling_rate, job.training.local_steps
    assert card.epsilon_released == epsilon_of([SampledGaussian(noise, rate, 2 * steps)], job.privacy.delta)
    assert card.epsilon_at_most == epsilon_of([SampledGaussian(noise, rate, 3 * steps)], job.privacy.delta)
    assert 0 < card.epsilon_released < card.epsilon_at_most <= card.epsilon_promised == job.privacy.epsilon
    assert card.epsilon_under_collusion == card.epsilon_at_most
    assert (card.steps, card.rounds_completed, card.rounds_aborted) == (2 * steps, 2, 1)
    assert card.job_digest == job.digest().hex()


def test_a_job_without_rounds_has_released_nothing():
    card = privacy_card(make_job(), view_of())
    assert card.epsilon_released == card.epsilon_at_most == 0.0


def test_a_card_never_gives_an_epsilon_without_mode_unit_neighbours_and_delta():
    page = card_markdown(privacy_card(make_job(), view_of("completed")))
    for words in ("`record-local`", "one record, added or removed", "at delta 0.001", "outside the record's own site"):
        assert words in page
    assert "Other jobs on the same people" in page
    assert page.count("| Epsilon") == 5
    assert "| Colluders tolerated | all others: each site's own noise is whole |" in page


def test_a_card_for_subjects_says_that_one_person_at_two_sites_is_counted_twice():
    page = card_markdown(privacy_card(make_job(privacy={"unit": "subject"}), view_of("completed")))
    for words in (
        "subject: one subject with all its records at a site, added or removed",
        "outside the subject's own site",
        "clipped subject by subject",
        "A person with records at two sites is counted twice",
    ):
        assert words in page
    assert "each record counts by itself" not in page
    assert "counted twice" not in card_markdown(privacy_card(make_job(), view_of("completed")))


def test_a_card_of_a_job_without_privacy_says_so_and_names_no_epsilon():
    job = make_job(privacy={"mode": "none", "noise_multiplier": None}, aggregation={"secure": False})
    card = privacy_card(job, view_of("completed"))
    page = card_markdown(card)
    assert card.epsilon_released == card.epsilon_promised == card.delta == 0.0
    assert "nobody: without differential privacy" in page
    assert "the coordinator sees every owner's update" in page
    assert "Epsilon" not in page


@pytest.mark.parametrize("mode", ["record-local", "none"])
def test_a_card_is_plain_json(mode):
    changes = {} if mode == "record-local" else {"privacy": {"mode": "none", "noise_multiplier": None}}
    document = privacy_card(make_job(**changes), view_of("completed")).document()
    assert json.loads(json.dumps(document))["mode"] == mode


@pytest.mark.parametrize(
    ("mode", "unit", "words"),
    [
        ("record-distributed", "record", "one sum a round of all records, gradients clipped record by record to 1"),
        ("client-distributed", "member", "each member's update clipped to 1"),
    ],
)
def test_a_card_of_distributed_noise_tells_whom_it_needs_and_what_is_left_without_them(mode, unit, words):
    job = make_distributed_job(mode, privacy={"colluders": 2})
    card = privacy_card(job, view_of("completed", "aborted", "completed"))
    assert (card.mode, card.unit, card.steps) == (mode, unit, 2)
    assert card.epsilon_released == epsilon_after(job, 2)
    assert card.epsilon_against_sums == epsilon_after(job, 2, Observer.SUMS) < card.epsilon_released
    assert card.epsilon_at_most == epsilon_after(job, 3)
    assert card.epsilon_under_collusion == epsilon_if_all_collude(job, 3) > card.epsilon_at_most
    assert (card.noise_contributors, card.colluders_tolerated) == (job.aggregation.min_cohort, 2)
    page = card_markdown(card)
    assert words in page
    assert f"| Colluders tolerated | 2 of at least {job.aggregation.min_cohort} members |" in page
    assert "More colluders than are tolerated" in page
    assert "zero-concentrated" in page
