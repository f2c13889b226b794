"""The gathered benchmark runs each of its parts, and gives every figure once."""

import argparse

from benchmarks import ontology


def test_every_part_gives_its_figures_and_the_oracle_agrees():
    parser = argparse.ArgumentParser()
    ontology.add_arguments(parser)
    small = [
        "--triples",
        "6000",
        "--published",
        "6000",
        "--loads",
        "1",
        "--queries",
        "1",
        "--rows",
        "300",
        "--checks",
        "1",
    ]
    figures = ontology.run(parser.parse_args(["--parts", "store", "constraints", *small]))
    assert {"load_s", "join_ms", "closure_ms", "validate_ms"} <= figures.keys()
    assert figures["oracle_equal"] is True
    assert figures["violations"] > 0
