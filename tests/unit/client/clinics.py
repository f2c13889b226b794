"""A clinic's folder in miniature: an ontology of two measurements, a CSV file, its approved mapping, a policy."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lepton_core.job import Job
from lepton_kg.approval import approve
from lepton_kg.mapping import Column, Mapping, Source, Subject, dump_mapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.source import source_schema

VOCABULARY = "https://example.org/clinic/"
TURTLE = b"""
@prefix : <https://example.org/clinic/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
:glucose a skos:Concept ; skos:prefLabel "glucose"@en ; lepton:datatype xsd:decimal ; lepton:unit "mmol/L" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 40 .
:temperature a skos:Concept ; skos:prefLabel "temperature"@en ; lepton:datatype xsd:decimal ; lepton:unit "Cel" ;
    lepton:plausibleMinimum 30 ; lepton:plausibleMaximum 44 .
:pressure a skos:Concept ; skos:prefLabel "pressure"@en ; lepton:datatype xsd:decimal ; lepton:unit "mm[Hg]" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 300 .
:outcome a skos:Concept ; skos:prefLabel "outcome"@en ; lepton:datatype xsd:string ; lepton:valueSet :outcomes .
:outcomes a skos:Collection ; skos:member :ill, :well .
:ill a skos:Concept ; skos:prefLabel "ill"@en .
:well a skos:Concept ; skos:prefLabel "well"@en .
"""
ONTOLOGY = parse_ontology(TURTLE, format="turtle", source="test")
ROWS = 60


def write_clinic(folder: Path, *, seed: int = 0, subject: Subject | None = None) -> Path:
    """Data of 20 people and approved mapping; gives the mapping's path."""
    rng = np.random.default_rng(seed)
    lines = ["fall;blutzucker;temp;befund"]
    for row in range(ROWS):
        ill = rng.random() < 0.5
        glucose, temperature = rng.normal(12 if ill else 6, 1.5), rng.normal(38.5 if ill else 36.8, 0.4)
        lines.append(f"P{row % 20};{glucose:.2f};{temperature:.1f};{'krank' if ill else 'gesund'}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = Source.model_validate({"kind": "csv", "path": "data.csv", "csv": {"delimiter": ";"}})
    mapping = Mapping(
        ontology=ONTOLOGY.digest,
        vocabulary=VOCABULARY,
        source=source,
        columns=(
            Column(column="blutzucker", concept="glucose", unit="mmol/L"),
            Column(column="temp", concept="temperature", unit="Cel"),
            Column(column="befund", concept="outcome", codes={"krank": "ill", "gesund": "well"}),
        ),
        subject=subject,
    )
    approved = approve(mapping, approver="Ada", date=dt.date(2026, 1, 1), schema=source_schema(source, folder))
    path = folder / "mapping.yaml"
    path.write_text(dump_mapping(approved), encoding="utf-8")
    return path


def write_policy(
    folder: Path, federation_key: str, *, models: Sequence[str] = ("logistic",), **population: object
) -> None:
    """A policy that allows a clinic's jobs."""
    rows = {"name": "patients", "mapping": "mapping.yaml", "declared_rows": 60, "epsilon": 8.0, "delta": 1e-3}
    lines = ["[peers]", f'federation_key = "{federation_key}"', "minimum_cohort = 3", "[[populations]]"]
    for key, value in (rows | population).items():
        lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")
    lines += [
        "[jobs]",
        'purposes = ["research"]',
        f'concepts = ["{VOCABULARY}*"]',
        f"models = {json.dumps(list(models))}",
    ]
    (folder / "policy.toml").write_text("\n".join([*lines, "expires = 2099-01-01"]) + "\n", encoding="utf-8")


def make_clinic_job(*, features: tuple[str, ...] = ("glucose", "temperature"), rounds: int = 2, **task: object) -> Job:
    """A private logistic model over the clinic's measurements."""
    return Job.model_validate(
        {
            "name": "clinics",
            "task": {
                "ontology": ONTOLOGY.digest,
                "vocabulary": VOCABULARY,
                "features": [{"concept": name} for name in features],
                "target": {"concept": "outcome", "positive": "ill"},
            }
            | task,
            "model": {"kind": "logistic"},
            "training": {"rounds": rounds, "local_steps": 2},
            "privacy": {"noise_multiplier": 4.0, "epsilon": 4.0},
            "aggregation": {"min_cohort": 3, "max_cohort": 8, "step_deadline_s": 30.0},
        }
    )
