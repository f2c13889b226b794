import json

import pytest

from benchmarks import __main__ as runner

KEYS = {"client_ms", "server_s", "bytes_per_parameter", "exact", "keystream_gb_s", "memory_limit_ratio"}


def measure(capsys, *arguments):
    assert runner.main(["secagg", *arguments, "--threads", "2", "--output", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_round_is_exact_at_two_bytes_a_parameter_with_the_numbers_asked_for_and_with_those_found(capsys):
    numbers = ["--neighbours", "6", "--threshold", "5", "--corruption", "0", "--dropout", "0.03"]
    result = measure(capsys, "--members", "66", "--dimension", "4000", "--dropped", "1", "--repeats", "2", *numbers)
    asked, found = result["rows"]
    assert set(result) >= KEYS
    assert (asked["neighbours"], asked["threshold"]) == (6, 5)
    assert found["neighbours"] > 6
    for row in (asked, found):
        assert row["exact"]
        assert row["bytes_per_parameter"] == 2.0
        assert min(row["client_ms"], row["server_s"], row["keystream_gb_s"]) > 0
        assert row["client_messages_ms"] < row["client_ms"]
    # 65 self masks, and those of the lost member's pairs; a member verifies two signatures a neighbour and t more.
    assert asked["masks_removed"] == 65 + 6
    assert asked["member_verifications"] == 6 + 6 + 5


def test_the_sweep_tells_a_row_a_cohort_and_draws_them(capsys, tmp_path):
    plot, table = tmp_path / "sweep.svg", tmp_path / "sweep.md"
    sweep = ["--sweep", "--sweep-members", "5", "20", "--sweep-dimension", "100"]
    result = measure(capsys, *sweep, "--plot", str(plot), "--table", str(table))
    assert [(row["members"], row["neighbours"], row["threshold"]) for row in result["rows"]] == [
        (5, 4, 4),
        (20, 19, 14),
    ]
    assert all(row["exact"] for row in result["rows"])
    assert plot.read_text().startswith("<svg")
    # A member and the coordinator, each as measured and as theory says; theory is what no round can be cheaper than.
    assert plot.read_text().count("<polyline") == 4
    assert plot.read_text().count("stroke-dasharray") == 2
    titles, _, *lines = table.read_text().splitlines()
    assert titles.startswith("| n | k | t | member, ms |")
    assert [line.split(" | ")[:2] for line in lines] == [["| 5", "4"], ["| 20", "19"]]
    assert all(row["client_over_theory"] > 1 and row["server_over_theory"] > 1 for row in result["rows"])


def test_the_coordinator_s_memory_does_not_grow_with_its_members(capsys):
    result = measure(capsys, "--memory", "--memory-members", "5", "40", "--dimension", "1000000")
    few, many = result["rows"]
    assert few["exact"]
    assert many["exact"]
    # The vector has 1.9 MiB; eight times the members must not cost one vector more.
    assert many["peak_mib"] - few["peak_mib"] < few["vector_mib"]


def test_numbers_that_are_not_safe_are_refused_with_those_that_are(capsys):
    unsafe = ["--members", "100", "--neighbours", "32", "--threshold", "19", "--corruption", "0.05"]
    assert runner.main(["secagg", "--dimension", "10", *unsafe]) == 3
    message = capsys.readouterr().err
    assert "a threshold of 20 to 22" in message
    assert "28 neighbours and threshold 18" in message


@pytest.mark.parametrize("arguments", [["--members", "2"], ["--dimension", "0"], ["--ring-bits", "13"]])
def test_rounds_that_cannot_be_are_refused(capsys, arguments):
    assert runner.main(["secagg", "--members", "5", "--dimension", "10", *arguments]) == 3
    assert capsys.readouterr().err
