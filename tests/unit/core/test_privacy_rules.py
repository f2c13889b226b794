"""Is a job refused, in words that help, whenever nobody could prove its epsilon?"""

from __future__ import annotations

from typing import Any

import pytest

from lepton_core.errors import SettingsError
from lepton_core.job import Job, JobFile
from lepton_core.settings import parse_settings

SUM = {"mode": "record-distributed", "delta": 1e-4}
WHOLE = {"mode": "client-distributed", "unit": "member", "delta": 1e-4}
ALL = {"batching": "all", "expected_rows": 100}
HUNDRED = {"min_cohort": 100, "max_cohort": 120}


def document(**changes: Any) -> dict[str, Any]:
    job: dict[str, Any] = {
        "name": "small",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": "https://example.org/vocabulary#",
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


def test_both_distributed_modes_are_jobs() -> None:
    assert parse_settings(Job, document(privacy=SUM, training=ALL), source="job").privacy.distributed
    assert parse_settings(Job, document(privacy=WHOLE, aggregation=HUNDRED), source="job").privacy.distributed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": {"expected_rows": 100}}, "distributed noise is a Gaussian mechanism on one clipped sum a round"),
        ({"training": {"local_steps": 2, "expected_rows": 100}}, "got 2 local steps"),
        ({"training": {"batching": "epochs", "expected_rows": 100}}, "got epochs of local steps"),
        ({"training": {"batching": "all"}}, "training.expected_rows: mode record-distributed divides"),
        ({"training": ALL | {"local_steps": 1}}, "local_steps has no meaning with batching = 'all'"),
        ({"training": ALL | {"shuffle_seed": 1}}, "shuffle_seed has no meaning with batching = 'all'"),
        ({"training": ALL | {"expected_rows": 10_000}}, "privacy.delta: such a delta may show a record in full"),
        ({"training": ALL, "aggregation": {"secure": False}}, "an update alone has a share of the noise only"),
        ({"training": ALL, "aggregation": {"profile": "exact"}}, "lanes and range follow from the noise"),
        ({"training": ALL, "aggregation": {"update_norm": 2.0}}, "leave update_norm out"),
        ({"training": ALL, "privacy": SUM | {"colluders": 5}}, "expected fewer than 5, got 5"),
        ({"training": ALL, "privacy": SUM | {"unit": "member"}}, "protects a record"),
        (
            {"training": ALL, "aggregation": {"weighting": "rows", "most_rows": 10}},
            "in a private job all members count alike",
        ),
    ],
)
def test_a_sum_that_is_no_gaussian_mechanism_is_refused(changes: dict[str, Any], told: str) -> None:
    assert told in problems(**{"privacy": SUM, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"aggregation": {"min_cohort": 99, "max_cohort": 120}}, "hides a member among at least 100; got 99"),
        ({"aggregation": HUNDRED | {"secure": False}}, "expected secure = true"),
        ({"aggregation": HUNDRED, "privacy": WHOLE | {"unit": "record"}}, "protects a member"),
        ({"aggregation": HUNDRED, "training": {"batching": "epochs", "shuffle_seed": 1}}, "takes no seed"),
        ({"aggregation": HUNDRED, "training": ALL}, "is for privacy.mode = 'record-distributed'"),
    ],
)
def test_a_member_is_hidden_among_a_hundred_or_not_at_all(changes: dict[str, Any], told: str) -> None:
    assert told in problems(**{"privacy": WHOLE, **changes})


@pytest.mark.parametrize("privacy", [{"mode": "record-local"}, {"mode": "none", "noise_multiplier": None}])
def test_what_only_distributed_noise_knows_is_refused_elsewhere(privacy: dict[str, Any]) -> None:
    assert "colluders has no meaning" in problems(privacy=privacy | {"colluders": 1})
    assert "expected_rows is for" in problems(privacy=privacy, training={"expected_rows": 100})
    assert "batching = 'all' is for" in problems(privacy=privacy, training={"batching": "all"})


def test_a_job_file_need_not_say_what_its_mode_leaves_no_choice_about() -> None:
    written = document(privacy=SUM, training={"expected_rows": 100})
    assert parse_settings(JobFile, written, source="job").training.batching == "all"
    assert written["training"] == {"expected_rows": 100}
    alone = document(privacy={"mode": "client-distributed"}, aggregation=HUNDRED)
    assert parse_settings(JobFile, alone, source="job").privacy.unit == "member"


def test_a_job_file_that_says_several_local_steps_is_refused_and_not_corrected() -> None:
    written = document(privacy=SUM, training={"expected_rows": 100, "local_steps": 3})
    with pytest.raises(SettingsError, match="got 3 local steps"):
        parse_settings(JobFile, written, source="job")


def test_one_poisson_sample_a_round_is_a_sum_that_can_be_counted() -> None:
    recipe = {"batching": "poisson", "local_steps": 1, "sampling_rate": 0.5, "expected_rows": 100}
    assert parse_settings(Job, document(privacy=SUM, training=recipe), source="job").training.record_rate == 0.5
