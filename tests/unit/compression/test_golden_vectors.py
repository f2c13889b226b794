import json
from pathlib import Path

import pytest

from lepton_compression.update import CODEC_VERSION
from tests.vectors.codec.generate import make_case

DOCUMENT = json.loads((Path(__file__).parents[2] / "vectors" / "codec" / "ring-2.json").read_text(encoding="utf-8"))


def test_the_vectors_are_of_this_codec_version():
    assert DOCUMENT["codec_version"] == CODEC_VERSION


@pytest.mark.parametrize("case", DOCUMENT["cases"], ids=lambda case: f"{case['model_length']}-{case['profile']}")
def test_every_golden_case_is_encoded_and_decoded_to_the_same_bytes(case):
    made = make_case(case["model_length"], case["kept_fraction"], case["profile"], dithered=case["dithered"])
    assert made == case
