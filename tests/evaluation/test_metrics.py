import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale_exp.evaluation.metrics import (
    accuracy,
    answer_f1,
    exact_match,
    f1,
    matthews_correlation,
    normalize_answer,
    pearson,
    spearman,
)

PREDICTED = np.array([1, 1, 1, 0, 0, 0, 1, 0])
LABELS = np.array([1, 0, 1, 0, 1, 0, 1, 0])  # 3 true and 1 false positive, 3 true and 1 false negative


def test_classification_metrics_are_those_of_the_confusion_matrix():
    assert accuracy(PREDICTED, LABELS) == 6 / 8
    assert f1(PREDICTED, LABELS) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert matthews_correlation(PREDICTED, LABELS) == pytest.approx((3 * 3 - 1 * 1) / np.sqrt(4 * 4 * 4 * 4))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_matthews_correlation_is_its_formula(pairs):
    predicted, labels = np.array(pairs).T
    tp, fp = np.sum(predicted & labels), np.sum(predicted & ~labels & 1)
    fn, tn = np.sum(~predicted & labels & 1), np.sum(~predicted & ~labels & 1)
    denominator = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    expected = (tp * tn - fp * fn) / denominator if denominator else 0.0
    assert matthews_correlation(predicted, labels) == pytest.approx(expected)


def test_f1_of_a_class_that_is_nowhere_is_zero():
    assert f1(np.zeros(3), np.zeros(3)) == 0


def test_correlations_are_of_values_and_of_ranks():
    x, y = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 4.0, 9.0, 100.0])
    assert spearman(x, y) == pytest.approx(1)
    assert pearson(x, y) == pytest.approx(np.cov(x, y)[0, 1] / (x.std(ddof=1) * y.std(ddof=1)))
    assert pearson(x, np.ones(4)) == spearman(np.ones(4), y) == 0  # undefined


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Beatles!", "beatles"),
        ("an apple a day", "apple day"),
        ("U.S.A.", "usa"),
        ("theatre", "theatre"),
        ("\tA-B (c)\n", "ab c"),
    ],
)
def test_answers_are_normalised_as_squad_does(text, normalized):
    assert normalize_answer(text) == normalized


def test_an_answer_matches_any_of_the_references():
    assert exact_match("the Broncos.", ["Denver Broncos", "Broncos"]) == 1
    assert exact_match("the Broncos", ["Denver Broncos"]) == 0


def test_answer_f1_counts_shared_words_once():
    assert answer_f1("in the city of Rome", ["Rome", "city Rome"]) == pytest.approx(2 * 2 / (4 + 2))
    assert answer_f1("rome rome", ["rome"]) == pytest.approx(2 / 3)
    assert answer_f1("oslo", ["rome"]) == 0
    assert answer_f1("", ["rome"]) == 0
