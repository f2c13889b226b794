import argparse
import json

import pytest

from benchmarks import __main__ as runner
from benchmarks import codec


def test_every_row_has_the_promised_keys_and_dither_halves_the_error(capsys):
    command = ["codec", "--length", "5000", "--members", "4", "--repeats", "1", "--undithered", "--output", "json"]
    assert runner.main(command) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["codec"]: row for row in result["rows"]}
    assert len(rows) == 8 + len(codec.PLAIN)
    for row in rows.values():
        assert set(row) == {"codec", "n", "bits", "bytes_per_parameter", "nmse", "encode_ms", "decode_ms"}
        assert row["n"] == 4
        assert min(row["encode_ms"], row["decode_ms"]) > 0.0
    assert rows["ring-default"]["bytes_per_parameter"] == pytest.approx(2.0, rel=0.01)
    assert rows["ring-lean"]["nmse"] < 0.7 * rows["ring-lean-undithered"]["nmse"] < 1e-4


def test_an_impossible_cohort_ends_with_the_error_s_exit_code(capsys):
    assert runner.main(["codec", "--length", "100", "--members", "256"]) == 3
    assert "at most 255 members" in capsys.readouterr().err


def test_an_unknown_benchmark_is_answered_with_the_known_ones(capsys):
    assert runner.main(["nonsense"]) == 2
    assert "codec" in capsys.readouterr().err


def test_the_defaults_are_those_of_the_figures():
    parser = argparse.ArgumentParser()
    codec.add_arguments(parser)
    args = parser.parse_args([])
    assert args.length == 2**20
    assert args.members == [10, 100]
