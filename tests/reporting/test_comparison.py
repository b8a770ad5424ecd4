import numpy as np
import pytest
from scipy import stats

from autoscale_exp.reporting.comparison import compare
from tests.reporting.test_target_runs import of_target, runs


def ends(**finals):
    """Target runs that end so, one seed after the other."""
    curves = {name: [[4, 3, 2.5, end] for end in values] for name, values in finals.items()}
    return of_target([run for name, of_name in curves.items() for run in runs(name, *of_name)])


def test_two_mixtures_are_compared_seed_by_seed():
    """The seeds differ by far more than the mixtures; their differences are those of a paired t test."""
    uniform, ours = [2.0, 1.5, 1.0], [1.89, 1.4, 0.91]
    difference = compare(ends(uniform=uniform, ours=ours), "uniform")["ours"]
    expected = stats.ttest_rel(ours, uniform).confidence_interval(0.9)
    assert difference.interval == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(-0.1)
    assert difference.is_better
    assert difference.seeds_to_settle is None
    assert stats.ttest_ind(ours, uniform).pvalue > 0.5  # which would have seen nothing


def test_an_erratic_mixture_does_not_blur_the_others():
    calm = {"uniform": [2.0, 2.1, 2.2], "ours": [1.98, 2.081, 2.179]}
    assert compare(ends(**calm, wild=[1.5, 2.9, 2.1]), "uniform")["ours"].is_better
    assert compare(ends(**calm), "uniform")["ours"].is_better


def test_a_mixture_that_ends_higher_by_more_than_the_noise_is_worse():
    difference = compare(ends(uniform=[2.0, 1.5], ours=[2.11, 1.6]), "uniform")["ours"]
    assert difference.is_worse
    assert not difference.within_noise


def test_an_open_difference_says_how_many_seeds_would_settle_it():
    uniform, ours = [2.0, 2.0], [1.8, 1.9]
    difference = compare(ends(uniform=uniform, ours=ours), "uniform")["ours"]
    assert difference.within_noise
    deviation = np.std(np.subtract(ours, uniform), ddof=1)
    margins = {n: stats.t.ppf(0.95, n - 1) * deviation / np.sqrt(n) for n in (2, 3)}
    assert margins[3] < 0.15 < margins[2]
    assert difference.seeds_to_settle == 3


def test_a_difference_of_nothing_is_settled_by_no_number_of_seeds():
    assert compare(ends(uniform=[2.0, 1.9], ours=[1.9, 2.0]), "uniform")["ours"].seeds_to_settle is None


def test_one_seed_tells_no_noise():
    difference = compare(ends(uniform=[2.0], ours=[1.0]), "uniform")["ours"]
    assert (difference.interval, difference.within_noise) == (None, True)
