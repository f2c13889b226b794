"""The hospitals example: its documents load, and five shapes of the same patients give the same tensors."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from lepton_core.errors import MatchRefusal
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_kg.approval import require_current
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import parse_mapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.source import read_columns, source_schema
from lepton_kg.suggest import profile_columns, suggest
from lepton_kg.task import resolve_task

EXAMPLE = Path(__file__).parents[3] / "examples" / "hospitals"


def load_script():
    spec = importlib.util.spec_from_file_location("hospitals_make_data", EXAMPLE / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make_data = load_script()
ONTOLOGY = parse_ontology((EXAMPLE / "ontology.ttl").read_bytes(), format="turtle", source="ontology.ttl")
JOB = parse_settings(JobFile, tomllib.loads((EXAMPLE / "job.toml").read_text("utf-8")), source="job.toml")
PUBLISHED = load_breast_cancer()


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return make_data.write_hospitals(tmp_path_factory.mktemp("hospitals"))


def prepare(files):
    mapping = parse_mapping(files.mapping.read_text("utf-8"), source=str(files.mapping))
    base = files.mapping.parent
    require_current(mapping, ONTOLOGY.digest, source_schema(mapping.source, base))
    plan = compile_plan(JOB.task, mapping, ONTOLOGY)
    return plan.execute(read_columns(mapping.source, plan.columns, base))


def original(patients):
    """Features and target of these patients, scaled here by hand from the published values."""
    values = {str(name).replace(" ", "-"): PUBLISHED.data[:, i] for i, name in enumerate(PUBLISHED.feature_names)}
    columns = []
    for feature in JOB.task.features:
        concept = ONTOLOGY.concept(JOB.task.iri(feature.concept))
        low, high = concept.plausible_minimum, concept.plausible_maximum
        columns.append(2 * (values[feature.concept][list(patients)] - low) / (high - low) - 1)
    return np.stack(columns, axis=1), 1.0 - PUBLISHED.target[list(patients)]


def test_the_job_names_the_ontology_beside_it_and_makes_sense_in_it():
    assert JOB.task.ontology == ONTOLOGY.digest
    resolved = resolve_task(JOB.task, ONTOLOGY)
    assert [feature.required for feature in resolved.features].count(False) == 1
    assert len(resolved.features) == 30
    assert (JOB.privacy.mode, JOB.privacy.epsilon, JOB.aggregation.min_cohort) == ("record-distributed", 1.0, 4)


def test_the_job_in_the_other_mode_asks_the_same_of_the_same_data_at_the_same_epsilon():
    local = parse_settings(JobFile, tomllib.loads((EXAMPLE / "job-local.toml").read_text("utf-8")), source="job-local")
    assert local.privacy.mode == "record-local"
    for part in ("name", "population", "task", "model", "evaluation"):
        assert getattr(local, part) == getattr(JOB, part)
    for key in ("epsilon", "delta", "unit", "clip_norm"):
        assert getattr(local.privacy, key) == getattr(JOB.privacy, key)


def test_the_ontology_has_a_pinned_digest():
    # Changes only with the ontology's statements: then everybody's mappings need a new approval.
    assert ONTOLOGY.digest == "8d1f58afdbdfa036aa3e1926f200f07aeaca1070576fc4630aca0920726e936f"


def test_every_measured_concept_is_labelled_in_three_languages_and_contains_every_published_value():
    for index, name in enumerate(PUBLISHED.feature_names):
        concept = ONTOLOGY.concept(JOB.task.iri(str(name).replace(" ", "-")))
        assert set(concept.labels) == {"de", "en", "zh"}
        column = PUBLISHED.data[:, index]
        assert concept.plausible_minimum <= column.min()
        assert column.max() <= concept.plausible_maximum
        # Tight enough that the values spread over a good part of [-1, 1].
        assert column.max() - column.min() >= 0.6 * (concept.plausible_maximum - concept.plausible_minimum)


def test_patients_are_real_disjoint_and_all_there(summary):
    parts = [summary.holdout, *summary.hospitals]
    assert sorted(patient for files in parts for patient in files.patients) == list(range(569))
    assert [files.rows for files in parts] == [171, 100, 90, 80, 70, 58]
    share = np.mean(PUBLISHED.target[list(summary.holdout.patients)])
    assert share == pytest.approx(np.mean(PUBLISHED.target), abs=1 / 171)
    assert {files.kind for files in parts} == {"csv", "parquet", "sqlite"}


def test_five_shapes_give_the_published_values_but_for_the_planted_faults(summary):
    concepts = [feature.concept for feature in JOB.task.features]
    optional = concepts.index(make_data.OPTIONAL_CONCEPT)
    for files in summary.hospitals:
        data = prepare(files)
        refused = {*files.mistyped, *files.blank_required}
        patients = [patient for patient in files.patients if patient not in refused]
        features, target = original(patients)
        imputed = [i for i, patient in enumerate(patients) if files.absent or patient in files.blank_optional]
        features[imputed, optional] = -1.0
        np.testing.assert_allclose(data.features, features, atol=1e-6)
        np.testing.assert_array_equal(data.target, target)
        wanted = {"OUT_OF_RANGE": len(files.mistyped), "MISSING_VALUE": len(files.blank_required)}
        assert data.report.refused_by == {reason: count for reason, count in wanted.items() if count}
        assert list(data.report.missing_by_concept.values()) == [len(imputed)]


def test_the_holdout_is_the_published_values_untouched(summary):
    data = prepare(summary.holdout)
    features, target = original(summary.holdout.patients)
    np.testing.assert_allclose(data.features, features, atol=1e-6)
    np.testing.assert_array_equal(data.target, target)
    assert data.report.rows_refused == 0


def test_the_sixth_owner_is_refused_by_the_concept_it_lacks(summary):
    with pytest.raises(MatchRefusal) as refused:
        prepare(summary.refused)
    assert refused.value.reason == "MISSING_CONCEPT"
    assert refused.value.where == JOB.task.iri(make_data.REFUSED_LACKS)


def test_suggestions_find_most_columns_of_every_hospital(summary):
    for files in summary.hospitals:
        mapping = parse_mapping(files.mapping.read_text("utf-8"), source="mapping")
        base = files.mapping.parent
        frame = read_columns(mapping.source, list(source_schema(mapping.source, base)), base)
        found = suggest(ONTOLOGY, profile_columns(frame, mapping.source), mapping.vocabulary)
        truth = {column.column: mapping.iri(column.concept) for column in mapping.columns}
        first = [s.candidates[0].concept == truth[s.column] for s in found if s.candidates]
        assert sum(first) / len(truth) >= 0.85, files.name


def test_the_script_writes_the_same_files_for_the_same_seed_and_other_parts_for_another(summary, tmp_path):
    subprocess.run([sys.executable, EXAMPLE / "make_data.py", tmp_path], check=True, capture_output=True)
    for name in ("job.toml", "holdout.csv", "birken/data.csv", "changhe/data.parquet", "delta-clinic/mapping.yaml"):
        assert (tmp_path / name).read_bytes() == (summary.folder / name).read_bytes(), name
    other = make_data.write_hospitals(tmp_path, seed=1)
    assert other.holdout.patients != summary.holdout.patients
    assert prepare(other.hospitals[3]).report.rows_mapped == 69


def test_the_mapping_in_the_documentation_loads_and_compiles_as_far_as_it_goes():
    page = (EXAMPLE.parents[1] / "docs" / "ontology.md").read_text("utf-8")
    mapping = parse_mapping(page.split("```yaml\n")[1].split("```")[0], source="docs/ontology.md")
    assert mapping.ontology == ONTOLOGY.digest
    assert {mapping.iri(column.concept) for column in mapping.columns} <= set(ONTOLOGY.concepts)
    with pytest.raises(MatchRefusal) as refused:
        compile_plan(JOB.task, mapping, ONTOLOGY)
    assert refused.value.reason == "UNAPPROVED_MAPPING"
