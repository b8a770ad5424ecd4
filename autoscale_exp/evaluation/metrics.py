"""The official metrics of GLUE and SQuAD v1.1, as shares of 1."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[Any]


def accuracy(predicted: Array, labels: Array) -> float:
    """Share of the predictions that are right."""
    return float(np.mean(predicted == labels))


def f1(predicted: Array, labels: Array) -> float:
    """Harmonic mean of precision and recall of class 1; 0 if the class is neither predicted nor there."""
    hits = np.sum((predicted == 1) & (labels == 1))
    total = np.sum(predicted == 1) + np.sum(labels == 1)
    return float(2 * hits / total) if total else 0.0


def matthews_correlation(predicted: Array, labels: Array) -> float:
    """Correlation of two binary variables; 0 if all predictions, or all labels, are the same."""
    return pearson(predicted, labels)


def pearson(predicted: Array, labels: Array) -> float:
    """Pearson's correlation; 0 where it is undefined because one side is constant."""
    return _correlation(lambda x, y: np.corrcoef(x, y)[0, 1], predicted, labels)


def spearman(predicted: Array, labels: Array) -> float:
    """Spearman's rank correlation; 0 where it is undefined because one side is constant."""
    return _correlation(lambda x, y: stats.spearmanr(x, y).statistic, predicted, labels)


def _correlation(function: Callable[[Array, Array], Any], predicted: Array, labels: Array) -> float:
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(function(predicted, labels))


METRICS: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def normalize_answer(text: str) -> str:
    """Normalises an answer as SQuAD does: lower case, without punctuation, articles (a, an, the) and extra spaces."""
    without_punctuation = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the normalised answer is one of the normalised references, else 0."""
    return float(normalize_answer(answer) in [normalize_answer(reference) for reference in references])


def answer_f1(answer: str, references: Sequence[str]) -> float:
    """F1 of the words of the normalised answer, for the reference where it is largest."""
    return max(_word_f1(normalize_answer(answer).split(), normalize_answer(r).split()) for r in references)


def _word_f1(answer: list[str], reference: list[str]) -> float:
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0
