"""A job is tried on made-up records, offline, through the plan and the training that owners run."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest

from lepton_admin.cli.main import run
from lepton_core.errors import JobError
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_kg.compiler import compile_plan
from lepton_kg.synthetic import draw_site
from tests.unit.kg.test_plan_tasks import ONTOLOGY, T, wanted


def try_job(capsys, data, *words):
    code = run(
        ["job", "try", str(data / "job.toml"), "--ontology", str(data / "ontology.ttl"), *words, "--output", "json"]
    )
    told = capsys.readouterr()
    return code, json.loads(told.out if code == 0 else told.err)


@pytest.mark.timeout(240)  # trains four sites
def test_the_example_learns_the_planted_rule_and_says_what_sites_may_refuse(data, capsys):
    code, told = try_job(capsys, data, "--rounds", "4", "--rows", "120")
    assert code == 0
    assert told["rounds"] == 4
    assert told["features"] == [120, 30]
    assert told["accuracy"] > told["accuracy_of_guessing"]
    assert told["memory_mib"] > 0
    assert told["seconds"] > 0
    reasons = {(reason["code"], reason["subject"]) for reason in told["reasons"]}
    assert ("MISSING_CONCEPT", "https://example.org/hospitals/mean-radius") in reasons
    # Imputed where it is missing, so nobody is refused for it.
    job = parse_settings(JobFile, tomllib.loads((data / "job.toml").read_text("utf-8")), source="job")
    optional = [job.task.iri(feature.concept) for feature in job.task.features if not feature.required]
    assert not {("MISSING_CONCEPT", iri) for iri in optional} & reasons
    assert {"PURPOSE", "EPSILON", "VIOLATIONS"} <= {code for code, _ in reasons}


def test_a_job_that_the_ontology_gives_no_meaning_is_told_before_anything_is_trained(data, capsys):
    job = data / "job.toml"
    job.write_text(job.read_text("utf-8").replace('"mean-radius"', '"mean-radios"'), encoding="utf-8")
    code, told = try_job(capsys, data)
    assert code == JobError.exit_code
    assert told["reason"] == "UNKNOWN_CONCEPT"


@pytest.mark.parametrize(
    ("ontology", "task"),
    [
        (
            ONTOLOGY,
            wanted(
                {"concept": "weight"},
                {"concept": "bmi", "required": False},
                {"concept": "pain", "values": ("chest", "back")},
                filters=({"concept": "height", "minimum": 150.0}, {"concept": "pain", "values": ("chest", "none")}),
                split={"held_out": 0.2},
            ),
        )
    ],
)
def test_every_kind_of_feature_is_made_up_so_that_its_own_plan_takes_it(ontology, task):
    one, same, other = (draw_site(task, ontology, 300, site=site) for site in (0, 0, 1))
    assert one.frame.equals(same.frame)
    assert not one.frame.equals(other.frame)
    data = compile_plan(task, one.mapping, ontology).execute(one.frame)
    assert data.report.rows_refused == 0
    assert data.report.rows_filtered > 0
    assert data.report.rows_held_out > 0
    assert data.features.shape[1] == 4
    assert set(np.unique(data.target)) == {0.0, 1.0}
    assert T + "bmi" in data.report.missing_by_concept


def test_several_classes_each_have_rows():
    base = wanted({"concept": "weight"}, {"concept": "bmi"})
    target = {"concept": "pain", "classes": ("chest", "back", "none")}
    task = type(base).model_validate({**base.model_dump(), "target": target})
    made = draw_site(task, ONTOLOGY, 300, site=0)
    data = compile_plan(task, made.mapping, ONTOLOGY).execute(made.frame)
    assert set(np.unique(data.target)) == {0.0, 1.0, 2.0}
