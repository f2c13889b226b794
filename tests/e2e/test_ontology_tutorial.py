"""Every command of the tutorial in docs/ontology.md is run, as it stands, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_kg.mapping import parse_mapping

pytestmark = pytest.mark.timeout(600)  # nine commands, each a process of its own


def test_two_raw_tables_become_sites_that_can_serve_the_job(repository, tmp_path):
    page = (repository / "docs" / "ontology.md").read_text("utf-8")
    tutorial = page[page.index("## From two raw tables to a job") :]
    blocks = re.findall(r"^```sh\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    script = "\n".join(blocks)
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    boston, berlin = (
        parse_mapping((tmp_path / f"{name}.yaml").read_text(), source=name) for name in ("boston", "berlin")
    )
    meant = {
        mapping.source.path: {
            column.column: mapping.iri(column.concept).rpartition("/")[2] for column in mapping.columns
        }
        for mapping in (boston, berlin)
    }
    assert meant == {
        "boston.csv": {"glucose_mg/dL": "glucose", "body_temp": "temperature", "sepsis": "sepsis"},
        "berlin.csv": {"Blutzucker (mmol/L)": "glucose", "Temperatur": "temperature", "Sepsis": "sepsis"},
    }
    assert berlin.source.csv is not None
    assert (berlin.source.csv.delimiter, berlin.source.csv.decimal) == (";", ",")
    assert {column.status for column in (*boston.columns, *berlin.columns)} == {"approved"}
    assert stat.S_IMODE((tmp_path / "quality.html").stat().st_mode) == 0o600

    for name, rows in (("boston", 5), ("berlin", 4)):
        command = ["lepton", "mapping", "check", f"{name}.yaml", "--ontology", "ontology.ttl", "--job", "job.toml"]
        told = subprocess.run(
            [*command, "--output", "json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        report = json.loads(told.stdout)["rows"]
        assert (report["rows_mapped"], report["rows_refused"]) == (rows, 0)
