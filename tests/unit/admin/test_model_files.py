from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load

from lepton_admin.cli.main import run
from lepton_admin.models import Sidecar, predict_rows, recall_job, remember_job, sidecar_of
from lepton_admin.submission import prepare_rows
from lepton_core.errors import InputError, MappingError, NotFoundError
from lepton_core.ids import digest_of
from lepton_core.job import Job
from lepton_core.task import Split, Target
from lepton_core.views import JobState, JobView
from lepton_kg.ontology import parse_ontology
from lepton_pool.evaluate import predict
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.weights import encode_weights
from tests.unit.admin.made_models import asks_more, canonical_of, resolved


def test_predictions_are_those_of_the_model_on_the_prepared_rows(data, model_file):
    job = resolved(data)
    told = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    ontology = parse_ontology((data / "ontology.ttl").read_bytes(), format="turtle", source="t")
    rows = prepare_rows(job.task, data / "holdout.yaml", data / "holdout.csv", ontology).features
    logits = predict(architecture_of(job), initial_vector(architecture_of(job)), rows)
    assert [p.row for p in told] == list(range(1, 172))
    assert [p.probability for p in told] == pytest.approx((1 / (1 + np.exp(-logits.astype(float)))).tolist(), abs=1e-6)


def test_of_several_classes_the_most_probable_value_is_told(data, model_file):
    binary = resolved(data)
    target = {"concept": "diagnosis", "classes": ["benign", "malignant"]}
    job = binary.model_copy(update={"task": binary.task.model_copy(update={"target": Target.model_validate(target)})})
    layout = model_layout(architecture_of(job))
    content = encode_weights(layout, initial_vector(architecture_of(job)))
    model_file.write_bytes(content)
    sidecar = Sidecar.model_validate_json(sidecar_of(model_file).read_text("utf-8"))
    changed = sidecar.model_copy(update={"job": job, "digest": digest_of(content)})
    sidecar_of(model_file).write_text(changed.model_dump_json(), encoding="utf-8")
    told = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    ontology = parse_ontology((data / "ontology.ttl").read_bytes(), format="turtle", source="t")
    rows = prepare_rows(job.task, data / "holdout.yaml", data / "holdout.csv", ontology).features
    logits = predict(architecture_of(job), initial_vector(architecture_of(job)), rows).astype(float)
    assert [p.value for p in told] == [("benign", "malignant")[index] for index in logits.argmax(axis=1)]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [p.probability for p in told] == pytest.approx(shares.max(axis=1).tolist(), abs=1e-6)


def test_rows_without_the_target_are_predicted_as_well(data, model_file):
    before = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    lines = [line.split(",") for line in (data / "holdout.csv").read_text("utf-8").splitlines()]
    target = lines[0].index("diagnosis")
    cut = [",".join(cell for place, cell in enumerate(line) if place != target) for line in lines]
    (data / "new.csv").write_text("\n".join(cut) + "\n", encoding="utf-8")
    assert predict_rows(model_file, data / "new.csv", data / "holdout.yaml", canonical_of(data)) == before


def test_a_row_that_cannot_be_read_keeps_its_place_without_a_probability(data, model_file):
    before = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    lines = (data / "holdout.csv").read_text("utf-8").splitlines()
    column = lines[0].split(",").index("worst-texture")
    for row in (1, 8, 171):
        cells = lines[row].split(",")
        cells[column] = "" if row != 8 else "1e9"
        lines[row] = ",".join(cells)
    (data / "holdout.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    assert [p.row for p in told if p.probability is None] == [1, 8, 171]
    known = [(p.row, p.probability) for p in told if p.probability is not None]
    expected = {p.row: p.probability for p in before}
    assert [p for _, p in known] == pytest.approx([expected[row] for row, _ in known], abs=1e-6)


def test_a_split_of_the_job_takes_no_row_from_the_predictions_and_asks_for_no_subject(data, model_file):
    before = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    asks_more(model_file, split=Split(held_out=0.5).model_dump())
    assert "subject:" not in (data / "holdout.yaml").read_text("utf-8")
    assert predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data)) == before


def test_a_row_that_a_filter_leaves_out_keeps_its_number_and_shifts_no_other(data, model_file, capsys):
    before = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    lines = (data / "holdout.csv").read_text("utf-8").splitlines()
    names = lines[0].split(",")
    unread = lines[3].split(",")
    unread[names.index("worst-texture")] = ""
    lines[3] = ",".join(unread)
    (data / "holdout.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    radius = [float(line.split(",")[names.index("mean-radius")]) for line in lines[1:]]
    # The target's filter cannot hold or fail before anybody knows the target.
    filters = [{"concept": "mean-radius", "minimum": 13.0}, {"concept": "diagnosis", "values": ["benign"]}]
    asks_more(model_file, filters=filters)
    words = ["--source", data / "holdout.csv", "--mapping", data / "holdout.yaml", "--ontology", data / "ontology.ttl"]
    assert run(["model", "predict", "--model", str(model_file), *map(str, words), "--output", "json"]) == 0
    answered = capsys.readouterr()
    told = json.loads(answered.out)
    expected = ["FILTERED" if value < 13.0 else None for value in radius]
    assert expected[2] is None
    expected[2] = "MISSING_VALUE"
    assert [entry["row"] for entry in told] == list(range(1, 172))
    assert [entry["reason"] for entry in told] == expected
    kept = [(entry["probability"], old.probability) for entry, old in zip(told, before, strict=True) if entry["value"]]
    assert len(kept) == expected.count(None) > 0
    assert [new for new, _ in kept] == pytest.approx([old for _, old in kept], abs=1e-6)
    out = expected.count("FILTERED")
    assert answered.err == f"{out + 1} of 171 rows have no prediction: {out} FILTERED, 1 MISSING_VALUE\n"


def test_where_no_row_serves_there_is_no_prediction_and_no_error(data, model_file):
    asks_more(model_file, filters=[{"concept": "mean-radius", "minimum": 1e6}])
    told = predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))
    assert {(p.value, p.probability, p.reason) for p in told} == {(None, None, "FILTERED")}


def test_all_rows_of_the_researchers_own_set_are_evaluated_on_whatever_the_split(data):
    job = resolved(data)
    split = job.task.model_copy(update={"split": Split(held_out=0.5)})
    ontology = parse_ontology((data / "ontology.ttl").read_bytes(), format="turtle", source="t")
    rows = len((data / "holdout.csv").read_text("utf-8").splitlines()) - 1
    for task in (job.task, split):
        prepared = prepare_rows(task, data / "holdout.yaml", data / "holdout.csv", ontology)
        assert len(prepared.target) == len(prepared.features) == rows == 171
    with (data / "holdout.yaml").open("a", encoding="utf-8") as mapping:
        mapping.write("subject: {column: diagnosis}\n")
    assert len(prepare_rows(split, data / "holdout.yaml", data / "holdout.csv", ontology).target) == rows


def test_rows_in_a_file_are_never_taken_from_the_database_of_the_mapping(data, model_file):
    mapping = data / "holdout.yaml"
    text = mapping.read_text("utf-8").replace("kind: csv", "kind: sql").replace("path: holdout.csv", "table: rows")
    mapping.write_text(text.replace("table: rows", f"table: rows\n  url: sqlite:///{data}/other.db"), "utf-8")
    with pytest.raises(MappingError, match="mapping of a database"):
        predict_rows(model_file, data / "holdout.csv", mapping, canonical_of(data))
    ontology = parse_ontology((data / "ontology.ttl").read_bytes(), format="turtle", source="t")
    with pytest.raises(MappingError, match="mapping of a database"):
        prepare_rows(resolved(data).task, mapping, data / "holdout.csv", ontology)


def test_the_command_answers_with_a_probability_a_row(data, model_file, capsys):
    words = ["--source", data / "holdout.csv", "--mapping", data / "holdout.yaml", "--ontology", data / "ontology.ttl"]
    code = run(["model", "predict", "--model", str(model_file), *map(str, words), "--output", "json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert len(told) == 171
    assert all(0 <= entry["probability"] <= 1 for entry in told)


def test_a_changed_model_file_is_not_applied(data, model_file):
    content = bytearray(model_file.read_bytes())
    content[-1] ^= 1
    model_file.write_bytes(bytes(content))
    assert load(bytes(content))
    with pytest.raises(InputError, match="not the one its sidecar tells of"):
        predict_rows(model_file, data / "holdout.csv", data / "holdout.yaml", canonical_of(data))


def view_of(job: Job, digest: str) -> JobView:
    return JobView(
        job="hospitals-1",
        name=job.name,
        state=JobState.FINISHED,
        reason="",
        researcher="rosa",
        submitted=0.0,
        ended=0.0,
        rounds_planned=1,
        model_version=0,
        owners=(),
        privacy="",
        epsilon=0.0,
        delta=0.0,
        model_parameters=0,
        bytes_per_parameter=0.0,
        job_digest=digest,
        rounds=(),
        models=(),
    )


def test_a_job_is_recalled_from_the_profile_that_handed_it_in(data, tmp_path):
    job = resolved(data)
    remember_job(tmp_path, "hospitals-1", job)
    assert recall_job(tmp_path, view_of(job, job.digest().hex()), None) == job


def test_another_job_under_the_same_name_is_not_believed(data, tmp_path):
    job = resolved(data)
    remember_job(tmp_path, "hospitals-1", job)
    with pytest.raises(InputError, match="another job"):
        recall_job(tmp_path, view_of(job, "00" * 32), None)


def test_a_job_that_was_handed_in_elsewhere_needs_its_file(data, tmp_path):
    job = resolved(data)
    view = view_of(job, job.digest().hex())
    with pytest.raises(NotFoundError, match="did not hand the job in"):
        recall_job(tmp_path, view, None)
    (tmp_path / "job.json").write_bytes(job.canonical())
    assert recall_job(tmp_path, view, tmp_path / "job.json") == job
