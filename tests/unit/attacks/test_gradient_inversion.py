import numpy as np
import pytest

import gradient_inversion as inversion
import pictures
import wire


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    args = inversion.parser().parse_args(["--quick"])
    args.out = tmp_path_factory.mktemp("pictures")
    told = inversion.attack(args)
    return args.out, {row["seen"]: row for row in told["rows"]}, told["guesses"]


def test_a_record_in_clear_is_rebuilt_by_division_and_by_search(found):
    row = found[1]["one record, in clear"]
    assert row["analytic_best"] > 60
    assert row["search_best"] > 30


@pytest.mark.parametrize(
    "seen", ["one site's masked words", "clipped and noised, one site", "clipped, noised in the sum of 10"]
)
def test_what_is_masked_or_noised_shows_less_than_the_mean_image(found, seen):
    row, mean = found[1][seen], found[2]["the mean image"]["psnr_median"]
    assert max(row["analytic_best"], row["nearest_best"], row["search_best"]) < mean + 1


def test_a_sum_of_single_records_alone_still_shows_some_of_them(found):
    # Hiding in a sum is no bound: an output of the first layer that one record alone moves tells it.
    assert (
        found[1]["sum of 10 sites, 1 record each"]["nearest_best"] > found[2]["nearest of 64 other digits"]["psnr_best"]
    )


def test_every_case_is_a_picture(found):
    folder, rows, _ = found
    names = sorted(path.name for path in folder.glob("*.png"))
    assert len(names) > len(rows)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    assert (folder / "gradient-inversion.svg").read_text().count("<image") == len(names)


def test_a_picture_is_the_digits_side_by_side():
    ink = np.zeros((2, 64))
    ink[1, 0] = 1.0
    png = pictures.draw_png(ink, magnify=2)
    assert png[16:24] == (32).to_bytes(4, "big") + (16).to_bytes(4, "big")


def test_the_sum_of_a_masked_round_is_that_of_its_updates_and_no_upload_is_one():
    job = wire.make_job("none", {})
    chance = np.random.default_rng(0)
    updates = [(chance.normal(size=wire.model_length(job)) * 1e-3).astype(np.float32) for _ in range(wire.SITES)]
    seen = wire.secure_round(job, updates)
    total = np.sum(updates, axis=0)
    assert np.linalg.norm(seen.total - total) < 0.05 * np.linalg.norm(total)
    assert abs(np.corrcoef(seen.from_masked, updates[0])[0, 1]) < 0.1


def test_the_attacked_sum_bears_the_noise_that_is_promised():
    training = {"batching": "all", "expected_rows": 1, "learning_rate": 1.0}
    job = wire.make_job("record-distributed", training, noise_multiplier=2.0, clip_norm=0.5)
    sums = [np.zeros(wire.model_length(job)) for _ in range(wire.SITES)]
    # 4810 values: the deviation's own is 1.0 %; rounding adds at most 5 %.
    assert 0.95 < wire.secure_round(job, sums).total.std() / (2.0 * 0.5) < 1.1
