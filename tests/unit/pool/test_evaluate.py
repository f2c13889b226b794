"""Accuracy and AUC are what scikit-learn says they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_auc_score

from lepton_core.errors import InputError
from lepton_core.job import ModelSpec
from lepton_pool.evaluate import area_under_roc, evaluate, metrics_of, predict
from lepton_pool.models import Architecture

LOGISTIC = Architecture(ModelSpec(kind="logistic"), 2)


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=60))
def test_auc_and_accuracy_with_many_ties_are_those_of_scikit_learn(rows):
    logits = np.array([score / 4 for score, _ in rows], dtype=np.float32)
    target = np.array([positive for _, positive in rows], dtype=np.float32)
    metrics = metrics_of(logits, target)
    assert metrics.accuracy == pytest.approx(accuracy_score(target, logits > 0))
    assert metrics.rows == len(rows)
    if len(set(target)) == 2:
        assert metrics.auc == pytest.approx(roc_auc_score(target, logits))
    else:
        assert metrics.auc is None


def test_auc_of_a_model_that_diverged_is_none():
    assert area_under_roc(np.array([np.nan, 1.0], dtype=np.float32), np.array([0.0, 1.0], dtype=np.float32)) is None


def test_a_logistic_model_is_evaluated_as_its_formula_says():
    vector = np.array([2.0, -1.0, 0.5], dtype=np.float32)
    features = np.array([[1, 1], [-1, 1], [0, 0], [0, 1]], dtype=np.float32)
    assert predict(LOGISTIC, vector, features).tolist() == [1.5, -2.5, 0.5, -0.5]
    metrics = evaluate(LOGISTIC, vector, features, np.array([1, 0, 1, 1], dtype=np.float32))
    assert (metrics.accuracy, metrics.auc, metrics.rows) == (0.75, 1.0, 4)


@given(st.lists(st.tuples(st.lists(st.integers(-4, 4), min_size=3, max_size=3), st.integers(0, 2)), min_size=1))
def test_of_several_classes_the_largest_logit_counts_and_there_is_no_auc(rows):
    logits = np.array([scores for scores, _ in rows], dtype=np.float32)
    target = np.array([label for _, label in rows], dtype=np.float32)
    metrics = metrics_of(logits, target)
    assert metrics.accuracy == pytest.approx(accuracy_score(target, logits.argmax(axis=1)))
    assert (metrics.auc, metrics.rows) == (None, len(rows))


def test_a_row_whose_logits_are_no_numbers_is_told_wrong():
    logits = np.array([[np.nan, 0, 0], [0, np.nan, 0], [0, 0, 1]], dtype=np.float32)
    assert metrics_of(logits, np.array([0, 1, 2], dtype=np.float32)).accuracy == pytest.approx(1 / 3)


def test_a_class_that_the_model_does_not_have_is_refused():
    three = Architecture(ModelSpec(kind="logistic"), 2, 3)
    vector = np.zeros(9, dtype=np.float32)
    features = np.zeros((2, 2), dtype=np.float32)
    assert predict(three, vector, features).shape == (2, 3)
    for label in (3.0, 0.5, -1.0):
        with pytest.raises(InputError, match="from 0 to 2"):
            evaluate(three, vector, features, np.array([0, label], dtype=np.float32))


FEATURES = np.zeros((3, 2), dtype=np.float32)
TARGET = np.zeros(3, dtype=np.float32)
VECTOR = np.zeros(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("vector", "features", "target"),
    [
        (VECTOR[:2], FEATURES, TARGET),
        (VECTOR, FEATURES[:, :1], TARGET),
        (VECTOR, FEATURES, TARGET[:2]),
        (VECTOR, FEATURES, TARGET + 2),
        (VECTOR, FEATURES, TARGET * np.nan),
        (VECTOR, FEATURES[:0], TARGET[:0]),
        (VECTOR, FEATURES.astype(np.float64), TARGET),
        (VECTOR, FEATURES.reshape(-1), TARGET),
    ],
)
def test_arrays_that_do_not_fit_are_refused(vector, features, target):
    with pytest.raises(InputError):
        evaluate(LOGISTIC, vector, features, target)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="not finite"):
        predict(LOGISTIC, VECTOR, np.full_like(FEATURES, np.inf))
