import json
from pathlib import Path

import pytest

from lepton_compression.update import CODEC_VERSION
from tests.vectors.codec.generate import PLAIN, make_case, make_down_case, make_noised_case, make_plain_case

FOLDER = Path(__file__).parents[2] / "vectors" / "codec"
RING, NOISED, PLAIN_1, DOWN = (
    json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("ring-3", "noised-3", "plain-1", "downlink-1")
)


def test_the_vectors_are_of_this_codec_version():
    assert RING["codec_version"] == NOISED["codec_version"] == CODEC_VERSION


@pytest.mark.parametrize("case", RING["cases"], ids=lambda case: f"{case['model_length']}-{case['profile']}")
def test_every_golden_case_is_encoded_and_decoded_to_the_same_bytes(case):
    made = make_case(case["model_length"], case["kept_fraction"], case["profile"], dithered=case["dithered"])
    assert made == case


@pytest.mark.parametrize("case", NOISED["cases"], ids=lambda case: str(case["model_length"]))
def test_every_golden_case_with_noise_is_encoded_and_decoded_to_the_same_bytes(case):
    assert make_noised_case(case["model_length"], case["kept_fraction"], case["colluders"], case["whole"]) == case


@pytest.mark.parametrize("case", PLAIN_1["cases"], ids=lambda case: f"{case['codec']}-{case['length']}")
def test_every_plain_codec_makes_the_same_bytes(case):
    codec = {str(codec): codec for codec in PLAIN}[case["codec"]]
    made = make_plain_case(codec, case["length"])
    # Written with five digits, the last of which may fall to either side.
    found, expected = (list(map(float, one.pop("decoded_start"))) for one in (made, dict(case)))
    assert found == pytest.approx(expected, rel=1e-4)
    assert made == {key: value for key, value in case.items() if key != "decoded_start"}


@pytest.mark.parametrize("case", DOWN["cases"], ids=lambda case: str(case["length"]))
def test_every_downlink_case_leads_to_the_same_model(case):
    made = make_down_case(case["length"])
    # How well zstd packs is its version's matter; what is unpacked is not.
    for key in ("half_snapshot", "single_snapshot"):
        assert made.pop(key) == pytest.approx(case[key], rel=0.1)
    assert made == {key: value for key, value in case.items() if not key.endswith("_snapshot")}
