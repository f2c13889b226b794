"""Rows are what training may rely on, and never show themselves."""

import numpy as np
import pytest

from lepton_client.train.rows import Rows
from lepton_core.errors import InputError


@pytest.mark.parametrize(
    ("features", "target"),
    [
        (np.zeros((3, 2), np.float32), np.zeros(2, np.float32)),
        (np.zeros((3, 2), np.float64), np.zeros(3, np.float32)),
        (np.full((3, 2), np.nan, np.float32), np.zeros(3, np.float32)),
        (np.zeros((3, 2), np.float32), np.full(3, 0.5, np.float32)),
        (np.zeros((3, 2), np.float32), np.full(3, -1.0, np.float32)),
        (np.zeros((3, 2), np.float32), np.full(3, np.inf, np.float32)),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_never_shown(features, target):
    with pytest.raises(InputError):
        Rows(features, target)
    assert repr(Rows(np.zeros((3, 2), np.float32), np.arange(3, dtype=np.float32))) == "Rows(<private>)"


def test_rows_of_another_width_or_of_a_class_that_the_job_lacks_are_refused_without_telling_which():
    rows = Rows(np.zeros((3, 2), np.float32), np.array([0, 1, 2], np.float32))
    rows.require_fit(2, 3)
    for features, classes in ((3, 3), (2, 2)):
        with pytest.raises(InputError, match="do not fit the job") as refused:
            rows.require_fit(features, classes)
        assert refused.value.got == ""
