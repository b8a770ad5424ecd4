import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoscale_exp.reporting.noise import mean_margin, noise_of_differences


def test_a_single_mixture_has_the_margin_of_a_paired_t_test():
    differences = np.array([[0.1, 0.3, 0.2, 0.7]])
    (noise,) = noise_of_differences(differences)
    low, high = stats.ttest_1samp(differences[0], 0).confidence_interval(0.9)
    assert noise.margin(4) == pytest.approx((high - low) / 2)


def test_mixtures_of_equal_noise_share_it():
    """Two pairs of variance .02 each; squares that correlate by 1/4 leave 2 / 1.25 degrees of freedom."""
    first, second = noise_of_differences(np.array([[0.1, 0.3], [0.9, 0.7]]))
    assert first == second
    assert first.margin(2) == pytest.approx(stats.t.ppf(0.95, 1.6) * np.sqrt(0.02 / 2))


def test_differences_without_any_noise_are_pooled_with_the_others():
    first, second = noise_of_differences(np.array([[0.5, 0.5], [0.9, 0.7]]))
    assert first.deviation == second.deviation == pytest.approx(np.sqrt(0.02 / 2))


def test_the_prior_of_the_variances_is_recovered():
    """Variances 2 * 4 / chi2(4), of 20,000 mixtures with 3 seeds: 4 degrees of freedom about 2."""
    rng = np.random.default_rng(0)
    true = 2 * 4 / rng.chisquare(4, 20_000)
    differences = rng.normal(size=(20_000, 3)) * np.sqrt(true)[:, None]
    found = noise_of_differences(differences)
    assert found[0].prior == pytest.approx(4, rel=0.1)
    moderated = np.array([noise.deviation**2 for noise in found])
    expected = (4 * 2 + 2 * differences.var(axis=1, ddof=1)) / 6
    np.testing.assert_allclose(moderated, expected, rtol=0.1)


@pytest.mark.parametrize("num_seeds", [2, 3])
@pytest.mark.parametrize(("deviations", "least"), [([1, 1, 1, 1, 1], 0.87), ([1, 1, 1, 1, 10], 0.88)])
def test_nine_of_ten_intervals_of_mixtures_like_the_reference_hold_the_truth(num_seeds, deviations, least):
    """2,000 searches that find nothing; the reference has deviation 1. The standard error is .007 for one mixture."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        base = rng.normal(size=num_seeds)
        differences = rng.normal(size=(5, num_seeds)) * np.array(deviations)[:, None] - base
        margins = [noise.margin(num_seeds) for noise in noise_of_differences(differences)]
        held.append(np.abs(differences.mean(axis=1)) < margins)
    like_the_reference = np.array(held)[:, :4].mean()
    assert least < like_the_reference < 0.95


@given(
    st.lists(st.lists(st.floats(-10, 10), min_size=3, max_size=3), min_size=2, max_size=6),
    st.floats(0.1, 10),
)
def test_noise_is_in_units_of_the_differences_and_knows_no_order(rows, factor):
    differences = np.array(rows) + np.random.default_rng(0).normal(size=(len(rows), 3))
    found = [noise.margin(3) for noise in noise_of_differences(differences)]
    turned = [noise.margin(3) for noise in noise_of_differences(factor * differences[::-1])]
    np.testing.assert_allclose(turned[::-1], factor * np.array(found), rtol=1e-6)


def test_the_margin_of_a_mean_is_students():
    values = np.array([1.0, 1.2, 1.7])
    low, high = stats.t.interval(0.9, 2, values.mean(), stats.sem(values))
    assert mean_margin([values]) == pytest.approx((high - low) / 2)


def test_single_seeds_have_no_margin():
    assert mean_margin([np.array([1.0]), np.array([2.0])]) is None
