"""What an owner finds out about its columns is worked out in its own process, without a socket or another program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.admin.made_models import write_model

#: Runs command lines where Python may open no socket and start no program, and, on Linux, no library may connect.
PROGRAM = """
import io, json, sys
from lepton_admin.cli.main import run
from lepton_kg.sparql.no_network import give_up_network

seen = []

def watch(event, _arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "os.spawn", "os.posix_spawn")):
        seen.append(event)
        raise PermissionError(event)

give_up_network()
sys.addaudithook(watch)
codes, out = [], sys.stdout
for words in json.loads(sys.argv[1]):
    sys.stdin, sys.stdout = io.StringIO("a\\n" * 40), io.StringIO()
    codes.append(run(words))
sys.stdout, tried = out, list(seen)
try:
    import socket
    socket.create_connection(("127.0.0.1", 9), timeout=1)
    refused = ""
except PermissionError as error:
    refused = str(error)
except OSError as error:
    refused = f"only by the system: {error}"
print(json.dumps({"codes": codes, "tried": tried, "refused": refused}))
"""


@pytest.mark.timeout(180)
def test_suggestions_profiles_reports_and_evaluations_are_made_without_a_socket(data, tmp_path):
    folder, ontology = data / "aurora", str(data / "ontology.ttl")
    proposed, model = str(folder / "proposed.yaml"), str(write_model(data, tmp_path))
    by = ["--approver", "Dr. Ada Berg"]
    lines = [
        ["mapping", "suggest", str(folder / "data.csv"), "--ontology", ontology, "--file", proposed],
        ["mapping", "review", proposed, "--ontology", ontology, *by],
        ["mapping", "approve", proposed, "--ontology", ontology, *by],
        ["mapping", "check", str(folder / "mapping.yaml"), "--ontology", ontology, "--job", str(data / "job.toml")],
        ["mapping", "quality", proposed, "--ontology", ontology, "--file", str(folder / "quality.html")],
        ["model", "evaluate", "--model", model, "--mapping", str(folder / "mapping.yaml"), "--ontology", ontology],
    ]
    lines[-1] += ["--side", "all"]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=170,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-2_000:]
    told = json.loads(ran.stdout)
    assert told["codes"] == [0] * len(lines), ran.stderr.decode()[-2_000:]
    assert told["tried"] == []
    # The watcher does see and refuse a socket.
    assert told["refused"].startswith("socket.")
    assert (folder / "quality.html").exists()
