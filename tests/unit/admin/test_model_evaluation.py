"""A model on an owner's own records: the side that the job holds out is chosen by the owner's subjects, and stays."""

from __future__ import annotations

import csv
import hashlib
import json

import pytest

from lepton_admin.cli.main import run
from lepton_admin.evaluating import Side, evaluate_rows
from lepton_admin.mappings import approve_mapping
from lepton_core.errors import InputError, MappingError, MatchRefusal
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import parse_mapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.source import read_columns
from lepton_pool.evaluate import evaluate
from lepton_pool.models import architecture_of, initial_vector
from tests.unit.admin.made_models import asks_more, canonical_of

SPLIT = {"held_out": 0.3, "seed": 7}
FILTERS = [{"concept": "mean-radius", "minimum": 12.0}]


@pytest.fixture
def mapping(data):
    """Aurora's mapping, approved anew for its source with a column of patients, some of whom have several rows."""
    source, mapping = data / "aurora" / "data.csv", data / "aurora" / "mapping.yaml"
    names, *lines = source.read_text("utf-8").splitlines()
    rows = [f"p{number // 3}-{number % 2},{line}" for number, line in enumerate(lines)]
    source.write_text("\n".join([f"patient,{names}", *rows]) + "\n", encoding="utf-8")
    with mapping.open("a", encoding="utf-8") as file:
        file.write("subject: {column: patient}\n")
    approve_mapping(mapping, data / "ontology.ttl", "turtle", "Dr. Ada Berg")
    return mapping


def held_out_by_hand(source) -> tuple[list[bool], list[float]]:
    """Of each row whether its patient is held out, by the documented hash, and its radius in mm."""
    key = hashlib.sha256(b"lepton/split/v1" + SPLIT["seed"].to_bytes(8, "big")).digest()
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    hashes = [hashlib.blake2b(row["patient"].encode(), key=key, digest_size=8).digest() for row in rows]
    chosen = [int.from_bytes(one, "big") < SPLIT["held_out"] * 2**64 for one in hashes]
    return chosen, [float(row["radius_mean"] or "nan") for row in rows]


def test_each_side_has_its_own_records_and_both_together_are_all_of_them(data, mapping, model_file):
    chosen, _ = held_out_by_hand(data / "aurora" / "data.csv")
    asks_more(model_file, split=SPLIT)
    found = {side: evaluate_rows(model_file, mapping, side, canonical_of(data)) for side in Side}
    refused = {side: sum(one.refused_by.values()) for side, one in found.items()}
    assert refused[Side.HELD_OUT] + refused[Side.TRAIN] == refused[Side.ALL] == 3
    assert found[Side.HELD_OUT].rows + refused[Side.HELD_OUT] == sum(chosen) > 10
    assert found[Side.TRAIN].rows + refused[Side.TRAIN] == 100 - sum(chosen)
    assert found[Side.ALL].rows == 97
    assert [found[side].rows_of_other_side for side in Side] == [100 - sum(chosen), sum(chosen), 0]
    right = {side: one.accuracy * one.rows for side, one in found.items()}
    assert right[Side.HELD_OUT] + right[Side.TRAIN] == pytest.approx(right[Side.ALL])


def test_the_figures_are_those_of_the_plan_and_of_the_evaluation_everywhere_else(data, mapping, model_file):
    job = asks_more(model_file, split=SPLIT)
    parsed = parse_mapping(mapping.read_text("utf-8"), source="test")
    ontology = parse_ontology((data / "ontology.ttl").read_bytes(), format="turtle", source="test")
    plan = compile_plan(job.task, parsed, ontology)
    rows = plan.execute(read_columns(parsed.source, plan.columns, mapping.parent), held_out=True)
    expected = evaluate(architecture_of(job), initial_vector(architecture_of(job)), rows.features, rows.target)
    found = evaluate_rows(model_file, mapping, Side.HELD_OUT, canonical_of(data))
    assert (found.rows, found.accuracy, found.auc) == (expected.rows, expected.accuracy, expected.auc)


def test_the_command_evaluates_what_is_held_out_unless_told_otherwise(data, mapping, model_file, capsys):
    chosen, radius = held_out_by_hand(data / "aurora" / "data.csv")
    asks_more(model_file, split=SPLIT, filters=FILTERS)
    words = ["--model", model_file, "--mapping", mapping, "--ontology", data / "ontology.ttl"]
    assert run(["model", "evaluate", *map(str, words), "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    serving = [apart for apart, value in zip(chosen, radius, strict=True) if value >= 12.0]
    assert told["side"] == "held-out"
    assert told["rows"] + sum(told["refused_by"].values()) == sum(serving)
    assert told["rows_of_other_side"] == len(serving) - sum(serving)
    assert told["rows_filtered"] == 100 - len(serving) > 0
    assert 0.0 <= told["accuracy"] <= 1.0
    assert 0.0 <= told["auc"] <= 1.0
    assert run(["model", "evaluate", *map(str, words), "--side", "train"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {"accuracy", "AUC"} <= {words[0] for words in lines if words}
    assert ["records", "of", "the", "other", "side", str(sum(serving))] in lines


def test_a_job_that_holds_nobody_out_has_only_all_records(data, model_file):
    mapping = data / "aurora" / "mapping.yaml"
    for side in (Side.HELD_OUT, Side.TRAIN):
        with pytest.raises(InputError, match="holds nobody out"):
            evaluate_rows(model_file, mapping, side, canonical_of(data))
    assert evaluate_rows(model_file, mapping, Side.ALL, canonical_of(data)).rows == 97
    asks_more(model_file, split=SPLIT)
    with pytest.raises(MatchRefusal) as refused:
        evaluate_rows(model_file, mapping, Side.HELD_OUT, canonical_of(data))
    assert refused.value.reason == "NO_SUBJECT"


def test_a_source_that_has_changed_since_its_approval_is_not_evaluated_on(data, mapping, model_file):
    source = data / "aurora" / "data.csv"
    source.write_text(source.read_text("utf-8").replace("patient,diagnosis", "patient,diagnose", 1), "utf-8")
    with pytest.raises(MappingError) as refused:
        evaluate_rows(model_file, mapping, Side.ALL, canonical_of(data))
    assert refused.value.reason == "SCHEMA_CHANGED"


def test_the_owner_sees_how_many_rows_train_are_held_out_and_are_filtered_away(data, mapping, capsys):
    chosen, radius = held_out_by_hand(data / "aurora" / "data.csv")
    job = data / "job.toml"
    text = job.read_text("utf-8").replace("[task]", "[task]\nsplit = { held_out = 0.3, seed = 7 }", 1)
    job.write_text(
        text.replace("[task]", '[task]\nfilters = [{ concept = "mean-radius", minimum = 12.0 }]', 1), "utf-8"
    )
    words = ["mapping", "check", str(mapping), "--ontology", str(data / "ontology.ttl"), "--job", str(job)]
    assert run([*words, "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["rows"]
    serving = [apart for apart, value in zip(chosen, radius, strict=True) if value >= 12.0]
    assert told["rows_filtered"] == 100 - len(serving)
    assert told["rows_held_out"] == sum(serving)
    assert told["rows_mapped"] + told["rows_refused"] == len(serving) - sum(serving)
    assert run(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rows", "that", "train", str(told["rows_mapped"])] in lines
    assert ["rows", "held", "out", str(sum(serving))] in lines
    assert ["rows", "filtered", "away", str(100 - len(serving))] in lines
