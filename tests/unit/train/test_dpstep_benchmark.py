import argparse

from benchmarks import dpstep


def test_every_row_tells_what_a_private_step_costs_beside_a_plain_one():
    parser = argparse.ArgumentParser()
    dpstep.add_arguments(parser)
    told = dpstep.run(
        parser.parse_args(
            ["--models", "mlp", "--batches", "16", "--seconds", "0.01", "--repeats", "2", "--without-opacus"]
        )
    )
    (row,) = told["rows"]
    assert (row["model"], row["batch"]) == ("mlp", 16)
    assert told["mlp_ratio_max"] == row["ratio"] > 0
    assert told["cnn_ratio_max"] is None
    assert told["memory_ratio_max"] == row["memory_ratio"] > 0.5
    assert row["plain_mib"] > 2 * 4 * 94_000 / 2**20  # weights and their gradients
