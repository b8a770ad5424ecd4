import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.autoscale.path import ScalePath
from autoscale_exp.laws.optimum import make_bounds
from tests.laws.autoscale.authors import DOMAINS, notebook_optima


def unbounded(names):
    return make_bounds(0.0, 1.0, names)


def test_the_authors_next_step_is_met():
    budgets, weights = notebook_optima()
    next_tokens = (weights[1] * budgets[1]) ** 2 / (weights[0] * budgets[0])
    assert next_tokens.sum() / 1e9 == pytest.approx(5.000487, abs=1e-6)
    optimum = ScalePath.through(budgets, weights, DOMAINS, unbounded(DOMAINS)).optimum(round(next_tokens.sum()))
    expected = [0.2342, 0.0274, 0.1995, 0.1421, 0.3080, 0.0773, 0.0115]
    np.testing.assert_allclose(optimum.weights, expected, atol=5e-5)
    np.testing.assert_allclose(optimum.weights, next_tokens / next_tokens.sum(), rtol=1e-8)


def test_the_inputs_are_on_the_path():
    budgets, weights = notebook_optima()
    path = ScalePath.through(budgets, weights, DOMAINS, unbounded(DOMAINS))
    for budget, known in zip(budgets, weights, strict=True):
        np.testing.assert_allclose(path.optimum(budget).weights, known, rtol=1e-9)


def test_a_domain_on_a_bound_is_held_not_extrapolated():
    budgets, weights = notebook_optima()
    bounds = make_bounds(0.2 / 7, 1.0, DOMAINS)
    optimum = ScalePath.through(budgets, weights, DOMAINS, bounds).optimum(5_000_000_000)
    assert optimum.weights[DOMAINS.index("github")] == pytest.approx(0.2 / 7, rel=1e-6)
    assert any(note.startswith("github: lower") for note in optimum.active_bounds)


def test_what_the_path_takes_past_a_bound_is_put_on_it():
    weights = [np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.3, 0.1])]
    bounds = make_bounds([0.0, 0.0, 0.04], [0.65, 1.0, 1.0], list("abc"))
    optimum = ScalePath.through([100, 400], weights, list("abc"), bounds).optimum(100_000)
    assert optimum.weights[0] == pytest.approx(0.65)
    assert optimum.weights[2] == pytest.approx(0.04)
    assert optimum.weights.sum() == pytest.approx(1)
    assert len(optimum.active_bounds) == 2


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_optima_of_power_laws_are_extrapolated_exactly(data):
    """For losses sum beta_i n_i^-gamma_i the theorem is exact: compare with the optimum solved at the target itself."""
    size = data.draw(st.integers(2, 6))
    numbers = lambda low, high: np.array(data.draw(st.lists(st.floats(low, high), min_size=size, max_size=size)))  # noqa: E731
    beta, gamma = numbers(0.5, 5), numbers(0.1, 1.5)

    def optimum(total):
        low, high = -200.0, 200.0
        for _ in range(200):
            middle = (low + high) / 2
            tokens = (beta * gamma / np.exp(middle)) ** (1 / (gamma + 1))
            low, high = (middle, high) if tokens.sum() > total else (low, middle)
        return tokens / tokens.sum()

    names = [str(i) for i in range(size)]
    path = ScalePath.through([10**5, 10**6], [optimum(1e5), optimum(1e6)], names, unbounded(names))
    for target in (10**7, 10**9, 3 * 10**5):
        np.testing.assert_allclose(path.optimum(target).weights, optimum(target), rtol=1e-5)


def test_three_scales_on_a_path_have_no_residual_and_agree_with_two():
    intercept, slope = np.array([2.0, 1.0, 3.0]), np.array([0.9, 1.6, 1.2])
    totals, shares = [], []
    for t in (0.0, 1.0, 2.3):
        tokens = np.exp(intercept + slope * t) * 1e6
        totals.append(round(tokens.sum()))
        shares.append(tokens / tokens.sum())
    three = ScalePath.through(totals, shares, list("abc"), unbounded(list("abc")))
    two = ScalePath.through(totals[:2], shares[:2], list("abc"), unbounded(list("abc")))
    assert three.residual < 1e-6
    np.testing.assert_allclose(three.optimum(10**9).weights, two.optimum(10**9).weights, rtol=1e-5)


def test_noise_at_three_scales_shows_as_residual():
    rng = np.random.default_rng(1)
    shares = [w / w.sum() for w in rng.uniform(0.5, 1.5, (3, 4))]
    assert ScalePath.through([10, 30, 90], shares, list("abcd"), unbounded(list("abcd"))).residual > 0.01


@pytest.mark.parametrize(
    ("budgets", "weights", "lower", "message"),
    [
        ([100, 100], [[0.5, 0.5], [0.4, 0.6]], 0.0, "two different token budgets"),
        ([100], [[0.5, 0.5]], 0.0, "two different token budgets"),
        ([100, 200], [[1.0, 0.0], [0.4, 0.6]], 0.0, "'b' is 0 at some scale"),
        ([100, 200], [[0.9, 0.1], [0.4, 0.6]], 0.1, "nothing is known of how the optimum moves"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(budgets, weights, lower, message):
    with pytest.raises(UserError, match=message):
        ScalePath.through(budgets, [np.array(w) for w in weights], ["a", "b"], make_bounds(lower, 1.0, ["a", "b"]))


def test_a_budget_off_the_path_is_refused():
    weights = [np.array([0.9, 0.1]), np.array([0.2, 0.8])]  # the first domain's tokens shrink as the budget grows
    path = ScalePath.through([1000, 1500], weights, ["a", "b"], unbounded(["a", "b"]))
    with pytest.raises(UserError, match="target_tokens 100 lies off the path"):
        path.optimum(100)


def test_domains_that_are_held_on_bounds_may_leave_the_others_no_mixture():
    domains = ["a", "b", "c", "d"]
    bounds = make_bounds([0.0, 0.0, 0.0, 0.1], [0.5, 0.17, 0.17, 1.0], domains)
    weights = [np.array([0.6, 0.15, 0.15, 0.1]), np.array([0.6, 0.16, 0.14, 0.1])]
    path = ScalePath.through([100, 200], weights, domains, bounds)
    with pytest.raises(UserError, match=r"at 400 tokens the domains held on bounds leave the others no mixture"):
        path.optimum(400)


def test_a_given_optimum_that_breaks_a_bound_is_held_on_it():
    bounds = make_bounds([0.0, 0.0, 0.0], [0.5, 1.0, 1.0], ["a", "b", "c"])
    weights = [np.array([0.6, 0.2, 0.2]), np.array([0.6, 0.25, 0.15])]
    optimum = ScalePath.through([100, 200], weights, ["a", "b", "c"], bounds).optimum(400)
    assert optimum.weights[0] == pytest.approx(0.5)
    assert optimum.weights.sum() == pytest.approx(1.0)
    assert optimum.active_bounds == ["a: upper 0.5"]


@pytest.mark.parametrize("upper", [0.6, 0.8, 0.9])
def test_where_one_domain_grows_past_its_bound_and_the_other_shrinks_past_its_own_both_stay_within(upper):
    bounds = make_bounds(0.1, upper, ["a", "b"])
    path = ScalePath.through([10**6, 3 * 10**6], [np.array([0.45, 0.55]), np.array([0.5, 0.5])], ["a", "b"], bounds)
    np.testing.assert_allclose(path.optimum(10**15).weights, [upper, 1 - upper], rtol=1e-9)
