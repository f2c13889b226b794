from benchmarks import training


def test_every_row_tells_what_it_costs_and_loses():
    import argparse

    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    told = training.run(parser.parse_args(["--rounds", "2", "--seeds", "1", "--codecs", "1 byte", "0.2 bytes"]))
    assert [row["codec"] for row in told["rows"]] == ["none", "1 byte", "0.2 bytes"]
    assert [row["bytes_per_parameter"] <= most for row, most in zip(told["rows"], (4.0, 1.0, 0.2), strict=True)]
    assert told["rows"][0]["accuracy_loss"] == 0.0
    assert {"accuracy_loss_at_0_2_bytes", "accuracy_loss_at_1_byte"} < set(told)


def test_members_share_no_row_and_none_is_held_out():
    shards, held_out = training.split(3)
    assert len(held_out.target) == 450
    assert sum(len(shard.target) for shard in shards) == 1797 - 450
    assert len(shards) == 20
