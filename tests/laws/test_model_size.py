"""Model size as an axis of the default law and of Apple's joint law."""

from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LAWS, fit_law, predict_runs, takes_sizes
from autoscale_exp.laws.pooled.formula import Formula
from autoscale_exp.laws.pooled.model_size import Size
from autoscale_exp.laws.pooled.priors import Scalar
from autoscale_exp.runs.table import RunTable, select_runs

NAMES = ["a", "b", "c"]
OWN = np.arange(3)
SIZED_LAWS = [name for name in LAWS if takes_sizes(name)]
SIZES = (1e8, 3e8, 7e8)


def true_losses(tokens, params):
    """E + C N^-k + (sum_i c_i n_i^r)^-g N^-e with units of 1e9 tokens and 3e8 parameters."""
    use = np.array([[1.0, 0.1, 0.05], [0.1, 1.0, 0.1], [0.02, 0.05, 1.0]])
    size = np.broadcast_to(params, len(tokens))[:, None] / 3e8
    effective = (tokens / 1e9) ** 0.6 @ use.T
    return 1.5 + 0.5 * size**-0.3 + 0.8 * effective**-0.4 * size**-0.05


def table(sizes=SIZES, noise=0.002, seed=0, runs_per_size=16):
    rng = np.random.default_rng(seed)
    params = np.repeat(sizes, runs_per_size)
    tokens = rng.dirichlet(np.ones(3), len(params)) * 1e10
    losses = true_losses(tokens, params) + noise * rng.standard_normal((len(params), 3))
    return RunTable([f"r{i}" for i in range(len(params))], NAMES, NAMES, tokens, losses, params=params)


@pytest.mark.parametrize("name", SIZED_LAWS)
def test_a_larger_size_than_any_seen_is_predicted(name):
    unseen = np.random.default_rng(1).dirichlet(np.ones(3) * 2, 40) * 1e10
    true = true_losses(unseen, 1.5e9)
    predicted = fit_law(name, table()).at_size(1.5e9).predict(unseen)
    assert np.abs(predicted / true - 1).mean() < 0.01
    chosen = predicted.mean(axis=1).argmin()
    assert true.mean(axis=1)[chosen] - true.mean(axis=1).min() < 0.002


def test_runs_are_predicted_each_at_its_size():
    runs = table(noise=0.0)
    law = fit_law("pooled_transfer", runs)
    np.testing.assert_allclose(predict_runs(law, runs), runs.losses, atol=0.01)
    largest = select_runs(runs, np.flatnonzero(runs.params == 7e8))
    np.testing.assert_array_equal(predict_runs(law, largest), law.predict(largest.domain_tokens))


@pytest.mark.parametrize("name", SIZED_LAWS)
def test_runs_of_one_size_are_predicted_at_it(name):
    runs = table(sizes=(3e8,))
    law = fit_law(name, runs)
    np.testing.assert_array_equal(predict_runs(law, runs), law.predict(runs.domain_tokens))


def test_jacobian_is_the_derivative_by_the_parameters_of_size():
    rng = np.random.default_rng(3)
    formula = Formula(OWN, 3, 1e10, 0.0, 3e8)
    theta = rng.normal(0, 0.3, (3, formula.num_params))
    theta[:, Scalar.IRREDUCIBLE] += 1
    points = formula.points(rng.dirichlet(np.ones(3), 5) * 2e10, np.array([1e8, 2e8, 3e8, 4e8, 5e9]))
    jacobian = formula.jacobian(theta, formula.terms(theta, points))
    for column in [Scalar.BUDGET_PART, *(formula.size_columns.start + size for size in Size)]:
        step = np.zeros_like(theta)
        step[:, column] = 1e-6
        plus, minus = (formula.terms(theta + sign * step, points).losses for sign in (1, -1))
        np.testing.assert_allclose(jacobian[:, :, column].T, (plus - minus) / 2e-6, rtol=1e-5, atol=1e-8)


def test_one_size_makes_the_law_that_no_size_makes():
    runs = table(sizes=(3e8,))
    tokens = runs.domain_tokens[:5] * 2
    with_size, without = (fit_law("pooled_transfer", replace(runs, params=params)) for params in (runs.params, None))
    np.testing.assert_array_equal(with_size.predict(tokens), without.predict(tokens))
    np.testing.assert_array_equal(with_size.at_size(3e8).predict(tokens), without.predict(tokens))


def test_another_size_than_the_only_one_seen_is_the_priors_guess_and_widens_intervals():
    runs = table(sizes=(3e8,))
    law = fit_law("pooled_transfer", runs)
    near = law.at_size(3.0001e8)
    np.testing.assert_allclose(near.predict(runs.domain_tokens), law.predict(runs.domain_tokens), atol=1e-3)
    larger, smaller = (law.at_size(params).predict(runs.domain_tokens) for params in (3e9, 3e7))
    assert (larger < law.predict(runs.domain_tokens)).all()
    assert (smaller > law.predict(runs.domain_tokens)).all()
    spreads = [
        np.std([draw.predict(runs.domain_tokens[:1]) for draw in at.draws(50, np.random.default_rng(0))], axis=0).mean()
        for at in (law, near, law.at_size(3e9))
    ]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.2)
    assert spreads[2] > 10 * spreads[0]


def test_laws_without_model_size_refuse_several_of_them():
    message = (
        r"takes no model sizes, but the runs are of models of 3 sizes; choose pooled_transfer or additive or joint"
    )
    with pytest.raises(UserError, match=message):
        fit_law("linear", table())


@pytest.mark.parametrize("name", ["linear", "lightgbm"])
def test_laws_without_model_size_refuse_to_be_asked_for_one(name):
    runs = table(sizes=(3e8,), runs_per_size=60)
    with pytest.raises(UserError, match=rf"target_params is 1e\+09, but law.name={name} takes no model sizes"):
        fit_law(name, runs).at_size(1e9)


@pytest.mark.parametrize("name", SIZED_LAWS)
def test_a_size_cannot_be_asked_for_where_the_runs_do_not_tell_theirs(name):
    law = fit_law(name, replace(table(sizes=(3e8,)), params=None))
    with pytest.raises(UserError, match=r"target_params is 1e\+09, but the run table has no column params; add it"):
        law.at_size(1e9)


def test_a_fit_of_apples_laws_to_one_size_does_not_guess_at_others():
    message = r"target_params is 1e\+09, but all runs are of models of 3e\+08 parameters, and law.name=joint cannot"
    with pytest.raises(UserError, match=message):
        fit_law("joint", table(sizes=(3e8,))).at_size(1e9)
