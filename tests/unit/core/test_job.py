"""Are jobs that a hostile researcher might write refused by their form already?"""

from __future__ import annotations

import time
from typing import Any

import pytest

from lepton_core.canonical import canonical_json
from lepton_core.errors import SettingsError
from lepton_core.job import Job, JobFile, parse_job
from lepton_core.settings import parse_settings
from tests.unit.client.owners import make_job

VOCABULARY = "https://example.org/vocabulary#"


def document(**changes: Any) -> dict[str, Any]:
    job: dict[str, Any] = {
        "name": "small",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": VOCABULARY,
            "features": [{"concept": "radius"}],
            "target": {"concept": "diagnosis", "positive": "malignant"},
        },
        "privacy": {"noise_multiplier": 4.0},
    }
    for section, values in changes.items():
        job[section] = {**job.get(section, {}), **values}
    return job


def problems(**changes: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        parse_settings(Job, document(**changes), source="job")
    return str(refused.value)


@pytest.mark.parametrize("norm", [0.0, -1.0, 1e-45, 1e-7, 1e7, 1e300])
def test_a_clipping_norm_where_float32_rounds_coarsely_is_refused(norm: float) -> None:
    # At 1e-45 every coordinate rounds to a whole subnormal: the sum would move by far more than the noise covers,
    # and a learning rate of 1e44 would bring it back to a size that can be read.
    assert "privacy.clip_norm" in problems(privacy={"clip_norm": norm})


@pytest.mark.parametrize("mode", ["record-local", "record-distributed"])
def test_a_promise_is_to_a_record_or_a_subject_and_to_neither_without_privacy(mode: str) -> None:
    training = {"expected_rows": 100, "batching": "all"} if mode == "record-distributed" else {}
    asked = document(privacy={"unit": "subject", "mode": mode}, training=training)
    assert parse_settings(Job, asked, source="job").privacy.unit == "subject"
    assert "privacy.unit" in problems(privacy={"unit": "household"})
    without = {"mode": "none", "noise_multiplier": None}
    for wrong in ({**without, "unit": "subject"}, {"mode": mode, "unit": "member"}):
        assert "unit" in problems(privacy=wrong, training=training if wrong["mode"] == mode else {})


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("privacy", "clip_norm"),
        ("privacy", "noise_multiplier"),
        ("privacy", "epsilon"),
        ("privacy", "delta"),
        ("training", "sampling_rate"),
        ("training", "learning_rate"),
        ("aggregation", "update_norm"),
        ("aggregation", "kept_fraction"),
        ("aggregation", "step_deadline_s"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_by_their_key(section: str, key: str, value: float) -> None:
    assert f"{section}.{key}" in problems(**{section: {key: value}})


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({}, "give either positive"),
        ({"positive": "a", "classes": ["a", "b"]}, "give either positive"),
        ({"classes": ["a"]}, "task.target.classes"),
        ({"classes": [f"v{index}" for index in range(1001)]}, "task.target.classes"),
        ({"classes": ["a", "b", VOCABULARY + "a"]}, f"target.classes: values named twice: {VOCABULARY}a"),
    ],
)
def test_a_target_is_one_positive_value_or_several_distinct_classes(target: dict[str, Any], told: str) -> None:
    assert told in problems(task={"target": {"concept": "diagnosis", **target}})


EPOCHS = {"batching": "epochs", "local_epochs": 1, "batch_size": 32, "shuffle_seed": 0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": EPOCHS}, "training.batching: a private job"),
        ({"training": {"shuffle_seed": 0}}, "shuffle_seed has no meaning with batching = 'poisson'"),
        ({"training": {"local_epochs": 2}}, "local_epochs has no meaning with batching = 'poisson'"),
        ({"training": {"batch_size": 16}}, "batch_size has no meaning with batching = 'poisson'"),
        ({"training": EPOCHS | {"local_steps": 8}}, "local_steps has no meaning with batching = 'epochs'"),
        ({"training": EPOCHS | {"sampling_rate": 0.5}}, "sampling_rate has no meaning with batching = 'epochs'"),
    ],
)
def test_a_recipe_of_keys_that_do_not_go_together_is_refused_by_the_key(changes: dict[str, Any], told: str) -> None:
    assert told in problems(**changes)


@pytest.mark.parametrize(
    ("aggregation", "told"),
    [
        ({"weighting": "rows"}, "most_rows: weighting = 'rows' needs it"),
        ({"most_rows": 100}, "most_rows: weighting = 'equal' has no use for it"),
        ({"weighting": "rows", "most_rows": 100}, "aggregation.weighting: in a private job all members count alike"),
        ({"weighting": "rows", "most_rows": 0}, "aggregation.most_rows"),
    ],
)
def test_weights_by_rows_need_a_public_maximum_and_a_job_without_privacy(
    aggregation: dict[str, Any], told: str
) -> None:
    assert told in problems(aggregation=aggregation)


@pytest.mark.parametrize(("key", "value"), [("profile", "exact"), ("kept_fraction", 0.5)])
def test_what_shapes_masked_updates_is_refused_in_the_plain(key: str, value: Any) -> None:
    told = problems(aggregation={"secure": False, key: value})
    assert f"{key} has no meaning with secure = false" in told
    assert Job.model_validate(document(aggregation={"secure": False})).aggregation.secure is False


def test_a_job_without_privacy_may_go_through_its_records_in_epochs() -> None:
    job = Job.model_validate(document(training=EPOCHS, privacy={"mode": "none", "noise_multiplier": None}))
    assert parse_job(job.canonical()) == job


@pytest.mark.parametrize(("key", "value"), [("hidden", [1] * 65), ("channels", [1] * 65)])
def test_a_model_of_endless_layers_is_refused(key: str, value: list[int]) -> None:
    assert f"model.{key}" in problems(model={key: value})


def test_a_job_of_ten_thousand_features_is_read_at_once_and_a_repeated_one_named() -> None:
    names = [f"{'x' * 280}{index}" for index in range(9_999)]
    features = [{"concept": name} for name in names]
    canonical = Job.model_validate(document(task={"features": features})).canonical()
    start = time.process_time()
    parse_job(canonical)
    assert time.process_time() - start < 2.0
    assert f"concepts named twice: {VOCABULARY}{names[7]}" in problems(task={"features": [*features, features[7]]})


def test_a_job_with_a_key_twice_is_not_canonical() -> None:
    canonical = canonical_json(Job.model_validate(document()).model_dump(mode="json"))
    doubled = canonical.replace(b'"name":"small"', b'"name":"large","name":"small"')
    with pytest.raises(Exception, match="canonical form"):
        parse_job(doubled)


def test_a_job_s_hash_is_that_of_its_fields_and_a_changed_copy_has_its_own():
    job = make_job()
    again = make_job()
    assert (hash(job), job) == (hash(again), again)
    changed = job.model_copy(update={"name": "another"})
    assert hash(changed) != hash(job)
    assert hash(changed) == hash(make_job(name="another"))
    assert hash(job.training) != hash(job.privacy)


@pytest.mark.parametrize(
    ("aggregation", "told"),
    [
        ({"error": 1e-3, "profile": "lean"}, "error says it all; leave profile out"),
        ({"bytes_per_parameter": 1.0, "error": 1e-3}, "bytes_per_parameter says it all; leave error out"),
        ({"bytes_per_parameter": 1.0, "kept_fraction": 0.5}, "leave kept_fraction out"),
        ({"bytes_per_parameter": 1.0, "secure": False}, "no meaning with secure = false"),
        ({"bytes_per_parameter": 0.0}, "aggregation.bytes_per_parameter"),
        ({"mask": "rows"}, "mask has no meaning with kept_fraction = 1.0"),
        ({"mask": "channels", "kept_fraction": 0.5}, "aggregation.mask"),
    ],
)
def test_a_target_stands_in_place_of_a_profile_and_not_beside_it(aggregation: dict[str, Any], told: str) -> None:
    file = document(aggregation=aggregation)
    file.pop("format", None)
    with pytest.raises(SettingsError) as refused:
        parse_settings(JobFile, file, source="test")
    assert told in str(refused.value)


def test_a_resolved_job_has_no_target() -> None:
    assert "aggregation.error: unknown key" in problems(aggregation={"error": 1e-3})


@pytest.mark.parametrize(
    ("aggregation", "told"),
    [
        ({"codec": "eden"}, "eden is not ring-summable"),
        ({"codec": "float16"}, "float16 is not ring-summable"),
        ({"codec": "top-k", "secure": False}, "aggregation.codec"),
        ({"codec": "topk"}, "topk is not ring-summable, and feeds back what it leaves out; expected secure = false"),
        ({"codec": "sign"}, "sign is not ring-summable, and feeds back what it leaves out; expected secure = false"),
        ({"bits": 2.0, "secure": False}, "bits has no meaning with codec = 'float32'"),
        ({"codec": "eden", "bits": 9.0, "secure": False}, "aggregation.bits"),
        ({"downlink": "delta"}, "downlink has no meaning with secure = true"),
    ],
)
def test_a_codec_that_cannot_be_summed_is_refused_under_masks_with_the_reason(
    aggregation: dict[str, Any], told: str
) -> None:
    assert told in problems(aggregation=aggregation)


def feeding(**changes: Any) -> dict[str, Any]:
    """Sections of a job that feeds back and is right."""
    keys = {"min_cohort": 4, "max_cohort": 4, "secure": False, "codec": "topk"}
    private = {"mode": "none", "noise_multiplier": None}
    return {"privacy": private, "aggregation": keys | changes}


@pytest.mark.parametrize("codec", [{"codec": "topk"}, {"codec": "topk", "fraction": 1.0}, {"codec": "sign"}])
def test_a_job_of_all_members_without_masks_and_privacy_may_feed_back(codec: dict[str, Any]) -> None:
    job = make_job(**feeding(**codec))
    assert job.aggregation.feeds_back
    assert parse_job(job.canonical()) == job
    assert not make_job().aggregation.feeds_back


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_cohort": 8}, "expected min_cohort and max_cohort equal to the number of members, got 4 and 8; set both"),
        ({"secure": True}, "expected secure = false, got true; write that, or take profile"),
        ({"fraction": 0.0}, "aggregation.fraction"),
        ({"fraction": 1.5}, "aggregation.fraction"),
        ({"bits": 2.0}, "bits has no meaning with codec = 'topk'"),
        ({"codec": "sign", "fraction": 0.1}, "fraction has no meaning with codec = 'sign'"),
        ({"codec": "eden", "fraction": 0.1}, "fraction has no meaning with codec = 'eden'"),
    ],
)
def test_feedback_needs_every_member_and_no_masks(changes: dict[str, Any], told: str) -> None:
    assert told in problems(**feeding(**changes))
    file = document(**feeding(**changes))
    file.pop("format", None)
    with pytest.raises(SettingsError) as refused:
        parse_settings(JobFile, file, source="test")
    assert told in str(refused.value)


@pytest.mark.parametrize("codec", ["topk", "sign"])
def test_what_no_epsilon_counts_is_not_fed_back(codec: str) -> None:
    private = {"mode": "record-local", "noise_multiplier": 4.0}
    told = problems(aggregation=feeding(codec=codec)["aggregation"], privacy=private)
    assert f"aggregation.codec: {codec} feeds back what earlier updates held" in told
    assert "expected privacy.mode = 'none', got 'record-local'; take codec = 'eden'" in told
