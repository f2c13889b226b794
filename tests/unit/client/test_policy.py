"""Does every rule of the policy refuse by its own key, and is a wrong policy told of whole?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lepton_client.policy import Policy, admit, load_policy, most_unpublished, policy_json_schema
from lepton_core.errors import InputError, PolicyRefusal, SettingsError
from lepton_core.settings import parse_settings
from tests.unit.client.owners import NOW, VOCABULARY, make_distributed_job, make_job, make_policy, policy_document

JULY_2040 = 2_225_000_000.0


def refused(policy_changes: dict, job_changes: dict, now: float = NOW) -> PolicyRefusal:
    with pytest.raises(PolicyRefusal) as refusal:
        admit(make_policy(**policy_changes), make_job(**job_changes), now)
    return refusal.value


def population(**changes) -> dict:
    return policy_document()["populations"][0] | changes


@pytest.mark.parametrize(
    ("policy_changes", "job_changes", "reason", "key"),
    [
        ({}, {"purpose": "marketing"}, "PURPOSE", "jobs.purposes"),
        ({"jobs": {"models": ["mlp"]}}, {}, "MODEL", "jobs.models"),
        ({"jobs": {"max_rounds": 2}}, {}, "ROUNDS", "jobs.max_rounds"),
        ({"jobs": {"concepts": [VOCABULARY + "radius"]}}, {}, "CONCEPT", "jobs.concepts"),
        ({"jobs": {"concepts": ["https://elsewhere.example/*"]}}, {}, "CONCEPT", "jobs.concepts"),
        ({"peers": {"minimum_cohort": 4}}, {}, "COHORT", "peers.minimum_cohort"),
        ({"peers": {"corruption": 0.2}}, {}, "CORRUPTION", "peers.corruption"),
        ({}, {"population": "staff"}, "POPULATION", "populations"),
        ({"populations": [population(modes=["none"])]}, {}, "MODE", "populations.patients.modes"),
        ({"populations": [population(epsilon=3.9)]}, {}, "EPSILON", "populations.patients.epsilon"),
        ({"populations": [population(delta=1e-4)]}, {}, "DELTA", "populations.patients.delta"),
        ({}, {"privacy": {"mode": "none", "noise_multiplier": None}}, "UNPROTECTED", "jobs.allow_unprotected"),
        ({"jobs": {"expires": "2020-01-01"}}, {}, "EXPIRED", "jobs.expires"),
        ({}, {"aggregation": {"secure": False}}, "PLAIN_UPDATES", "jobs.allow_plain_updates"),
        ({}, {"privacy": {"unit": "subject"}}, "UNIT", "populations.patients.subject_epsilon"),
        (
            {"populations": [population(subject_epsilon=9.0, declared_subjects=40)]},
            {},
            "UNIT",
            "populations.patients.subject_epsilon",
        ),
        (
            {"populations": [population(subject_epsilon=9.0)]},
            {"privacy": {"unit": "subject"}},
            "DECLARED_SUBJECTS",
            "populations.patients.declared_subjects",
        ),
        (
            {"populations": [population(subject_epsilon=3.9, declared_subjects=40)]},
            {"privacy": {"unit": "subject"}},
            "EPSILON",
            "populations.patients.subject_epsilon",
        ),
    ],
)
def test_a_job_that_the_policy_forbids_is_refused_by_the_key(policy_changes, job_changes, reason, key) -> None:
    refusal = refused(policy_changes, job_changes)
    assert (refusal.reason, refusal.where) == (reason, f"policy.{key}")
    assert refusal.expected
    assert refusal.got


DISTRIBUTED = population(modes=["record-distributed"], delta=1e-4)


def test_noise_in_shares_must_withstand_as_many_colluders_as_the_policy_says() -> None:
    policy = make_policy(populations=[DISTRIBUTED], jobs={"colluders": 2})
    with pytest.raises(PolicyRefusal) as refusal:
        admit(policy, make_distributed_job(privacy={"colluders": 1}), NOW)
    assert (refusal.value.reason, refusal.value.where) == ("COLLUDERS", "policy.jobs.colluders")
    assert admit(policy, make_distributed_job(privacy={"colluders": 2}), NOW).name == "patients"


def test_no_mode_is_allowed_that_is_not_named() -> None:
    for job in (make_job(), make_distributed_job("client-distributed")):
        with pytest.raises(PolicyRefusal) as refusal:
            admit(make_policy(populations=[DISTRIBUTED]), job, NOW)
        assert refusal.value.reason == "MODE"


def test_a_job_within_the_policy_gets_its_population() -> None:
    assert admit(make_policy(), make_job(), NOW).declared_rows == 100


def test_what_an_owner_must_write_for_jobs_that_protect_subjects_is_told() -> None:
    job = {"privacy": {"unit": "subject"}}
    assert "subject_epsilon = " in refused({}, job).hint
    assert "declared_subjects = " in refused({"populations": [population(subject_epsilon=9.0)]}, job).hint
    both = make_policy(populations=[population(subject_epsilon=9.0, declared_subjects=40)])
    admitted = admit(both, make_job(**job), NOW)
    assert (admitted.declared("record"), admitted.declared("subject")) == (100, 40)
    assert admitted.budgets == {"record": 8.0, "subject": 9.0}


def test_updates_without_masks_are_allowed_by_name_and_privacy_is_a_permission_of_its_own() -> None:
    allowed = {"jobs": {"allow_plain_updates": True}}
    plain = {"aggregation": {"secure": False}}
    assert admit(make_policy(**allowed), make_job(**plain), NOW).name == "patients"
    unprotected = plain | {"privacy": {"mode": "none", "noise_multiplier": None}}
    assert refused(allowed, unprotected).reason == "UNPROTECTED"


def test_error_feedback_is_allowed_by_name_on_top_of_what_it_needs() -> None:
    allowed = {"allow_unprotected": True, "allow_plain_updates": True}
    changes = {"jobs": allowed, "populations": [population(modes=["none"])]}
    job = {
        "privacy": {"mode": "none", "noise_multiplier": None},
        "aggregation": {"secure": False, "min_cohort": 4, "max_cohort": 4, "codec": "sign"},
    }
    refusal = refused(changes, job)
    assert (refusal.reason, refusal.where) == ("ERROR_FEEDBACK", "policy.jobs.allow_error_feedback")
    assert (refusal.expected, refusal.got) == ("a codec without error feedback", "sign")
    changes["jobs"] = allowed | {"allow_error_feedback": True}
    assert admit(make_policy(**changes), make_job(**job), NOW).name == "patients"


def test_a_policy_holds_through_its_last_day_and_no_longer() -> None:
    policy = make_policy(jobs={"expires": "2027-01-15"})  # the day of NOW
    admit(policy, make_job(), NOW)
    with pytest.raises(PolicyRefusal, match="expired"):
        admit(policy, make_job(), NOW + 86_400)
    assert refused({}, {}, JULY_2040).reason == "EXPIRED"


def test_the_target_is_a_concept_like_any_other() -> None:
    only_features = [VOCABULARY + name for name in ("radius", "texture", "area")]
    assert refused({"jobs": {"concepts": only_features}}, {}).got == VOCABULARY + "diagnosis"
    admit(make_policy(jobs={"concepts": [*only_features, VOCABULARY + "diagnosis"]}), make_job(), NOW)


@pytest.mark.parametrize(("fraction", "rounds", "most"), [(0.05, 20, 3), (0.05, 100, 5), (0.05, 101, 6), (0.0, 100, 0)])
def test_rounds_that_may_be_charged_and_never_published_are_a_small_share(fraction, rounds, most) -> None:
    policy = make_policy(jobs={"max_unreleased_fraction": fraction})
    assert most_unpublished(policy, make_job(training={"rounds": rounds})) == most


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("peers", "minimum_cohort"), 2, "peers.minimum_cohort"),
        (("peers", "corruption"), 0.5, "peers.corruption"),
        (("peers", "federation_key"), "abc", "Ed25519 public key"),
        (("peers", "federation_key"), None, "either federation_key or members"),
        (("peers", "members"), [digit * 64 for digit in "abc"], "either federation_key or members"),
        (("populations", 0, "epsilon"), 0, "populations.0.epsilon"),
        (("populations", 0, "epsilon"), -1.0, "populations.0.epsilon"),
        (("populations", 0, "epsilon"), float("inf"), "populations.0.epsilon"),
        (("populations", 0, "epsilon"), float("nan"), "populations.0.epsilon"),
        (("populations", 0, "delta"), 0.0, "populations.0.delta"),
        (("populations", 0, "delta"), -1e-3, "populations.0.delta"),
        (("populations", 0, "delta"), 1, "populations.0.delta"),
        (("populations", 0, "delta"), 0.01, "below one over declared_rows"),
        (("populations", 0, "declared_rows"), 0, "populations.0.declared_rows"),
        (("populations", 0, "declared_subjects"), 0, "populations.0.declared_subjects"),
        (("populations", 0, "declared_subjects"), 101, "above declared_rows"),
        (("populations", 0, "subject_epsilon"), 0, "populations.0.subject_epsilon"),
        (("populations", 0, "modes"), [], "at least one privacy mode"),
        (("populations", 0, "modes"), ["central"], "populations.0.modes"),
        (("jobs", "concepts"), ["*"], "names a host"),
        (("jobs", "concepts"), ["https://*"], "names a host"),
        (("jobs", "concepts"), ["https://a.example/*/b"], "names a host"),
        (("jobs", "concepts"), [], "jobs.concepts"),
        (("jobs", "expires"), "never", "jobs.expires"),
        (("jobs", "max_rounds"), 0, "jobs.max_rounds"),
        (("populations",), [population(), population()], "one name"),
    ],
)
def test_a_wrong_policy_is_told_by_its_key(path, value, told) -> None:
    document = policy_document()
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(SettingsError) as refused_settings:
        parse_settings(Policy, document, source="policy.toml")
    assert told in str(refused_settings.value)


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [("peers", "minimum_cohrt", "minimum_cohort"), ("jobs", "purpose", "purposes"), (None, "job", "jobs")],
)
def test_an_unknown_key_is_refused_with_what_may_have_been_meant(section, key, meant) -> None:
    document = policy_document()
    (document if section is None else document[section])[key] = 1
    with pytest.raises(SettingsError) as unknown:
        parse_settings(Policy, document, source="policy.toml")
    assert f"did you mean '{meant}'" in str(unknown.value)


def test_pinned_members_are_at_least_three_and_different() -> None:
    keys = [digit * 64 for digit in "abc"]
    make_policy(peers={"federation_key": None, "members": keys})
    for wrong in (keys[:2], [*keys, keys[0]]):
        with pytest.raises(ValueError, match=r"pinned twice|fewer than 3"):
            make_policy(peers={"federation_key": None, "members": wrong})


def test_a_policy_file_that_is_missing_or_not_toml_is_told(tmp_path) -> None:
    with pytest.raises(InputError) as missing:
        load_policy(tmp_path / "policy.toml")
    assert str(tmp_path) in missing.value.where
    (tmp_path / "policy.toml").write_text("peers = [")
    with pytest.raises(SettingsError, match="not TOML"):
        load_policy(tmp_path / "policy.toml")


def test_the_documented_policy_loads(tmp_path) -> None:
    import lepton_client.policy as module

    example = module.__doc__.split(":\n\n", 1)[1]
    example = "\n".join(line.removeprefix("    ") for line in example.splitlines())
    example = example.replace("…64 hex digits…", "f" * 64, 1)
    (tmp_path / "policy.toml").write_text(example)
    assert load_policy(tmp_path / "policy.toml").jobs.max_rounds == 100


def test_the_shipped_schema_is_the_models_own() -> None:
    shipped = Path(__file__).parents[3] / "client/lepton_client/policy.schema.json"
    assert json.loads(shipped.read_text()) == policy_json_schema()
