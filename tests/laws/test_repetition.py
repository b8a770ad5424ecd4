"""Repeated text is worth less, and so is size that the text is too little for (Muennighoff et al., 2305.16264)."""

from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LAWS, fit_law, predict_runs
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.pooled.formula import Formula
from autoscale_exp.laws.pooled.model_size import Size
from autoscale_exp.laws.pooled.priors import Scalar
from autoscale_exp.laws.repetition import DATA_DECAY, effective_params, effective_tokens, worth_of
from autoscale_exp.laws.solution import solve
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.laws.solver.mixture_optimum import expected_optimum
from autoscale_exp.runs.run_sheet import parse_run_table
from autoscale_exp.runs.table import RunTable
from tests.laws.test_solution import request_for

NAMES = ["a", "b", "c"]
REPEATING = [name for name, entry in LAWS.items() if "repetition" in entry.abilities]
SMOOTH = [name for name in REPEATING if name != "lightgbm"]
PLENTY = [1e12, 1e12, 1e12]
SCARCE = [1e12, 1e12, 5e7]


def true_losses(tokens, pools, decay):
    """E + (sum_i c_i n_i'^r)^-g of effective tokens in units of 1e9."""
    use = np.array([[1.0, 0.1, 0.05], [0.1, 1.0, 0.1], [0.05, 0.1, 1.0]])
    again = np.maximum(tokens / pools, 1) - 1
    effective = np.minimum(tokens, pools) * np.where(again > 0, 1 + decay * (1 - np.exp(-again / decay)), 1.0)
    return 1.5 + 0.8 * ((effective / 1e9) ** 0.6 @ use.T) ** -0.4


def table(decay, noise=0.001, num_runs=48, seed=0):
    """Runs at two budgets, half of which see so little of each domain that they repeat it up to 60 times."""
    rng = np.random.default_rng(seed)
    tokens = rng.dirichlet(np.ones(3), num_runs) * np.resize([2e9, 6e9], num_runs)[:, None]
    pools = np.where(np.arange(num_runs)[:, None] % 4 < 2, 1e12, rng.choice([1e8, 3e8, 1e9], (num_runs, 3)))
    losses = true_losses(tokens, pools, decay) + noise * rng.standard_normal((num_runs, 3))
    return RunTable(
        [f"r{i}" for i in range(num_runs)], NAMES, NAMES, tokens, losses, unique_tokens=PLENTY, pool_tokens=pools
    )


def test_effective_tokens_are_those_of_muennighoff_et_al():
    unique = np.array([1e9, 1e9, 1e9, 1e9])
    effective, _ = effective_tokens(np.array([5e8, 1e9, 4e9, 1e12]), unique)
    expected = 1e9 + 1e9 * DATA_DECAY * (1 - np.exp(-3 / DATA_DECAY))
    np.testing.assert_allclose(effective, [5e8, 1e9, expected, 1e9 * (1 + DATA_DECAY)])
    np.testing.assert_array_equal(effective_tokens(unique, None)[0], unique)


def test_worth_is_summed_over_epochs_of_which_each_is_worth_a_part_of_the_one_before():
    decay = 40.0
    summed = 1 + sum(np.exp(-epoch / decay) for epoch in range(1, 31))
    assert 31 * np.exp(worth_of(np.array(31.0), np.log(decay)).log) == pytest.approx(summed, rel=0.02)


def test_worths_derivatives_are_those_of_differences():
    times, log_decay, step = np.array([0.5, 1.5, 4.0, 300.0]), np.log(15.0), 1e-6
    worth = worth_of(times, log_decay)
    by_times = (worth_of(times * np.exp(step), log_decay).log - worth_of(times * np.exp(-step), log_decay).log) / 2
    by_decay = (worth_of(times, log_decay + step).log - worth_of(times, log_decay - step).log) / 2
    np.testing.assert_allclose(worth.by_log_times, by_times / step, atol=1e-8)
    np.testing.assert_allclose(worth.by_log_decay, by_decay / step, atol=1e-8)


def test_size_counts_less_for_text_that_repeats_and_in_full_for_fresh_text():
    tokens = np.array([[1e9, 1e9]])
    assert effective_params(1e9, tokens, np.array([1e9, 1e9]))[0] == pytest.approx(1e9)
    assert effective_params(1e6, tokens, np.array([1e8, 1e8]))[0] == pytest.approx(1e6)  # the text suffices for it
    worth = [effective_params(1e9, tokens, np.array([text, text]))[0] for text in (5e8, 2e8, 1e8)]
    assert (np.diff([1e9, *worth]) < 0).all()


@pytest.mark.parametrize("own", [np.arange(3), np.array([0, 1, -1])])
def test_the_formulas_derivatives_hold_where_text_is_repeated(own):
    rng = np.random.default_rng(3)
    formula = Formula(own, 3, 1e10, 0.0, 3e8)
    theta = rng.normal(0, 0.3, (3, formula.num_params))
    theta[:, Scalar.IRREDUCIBLE] += 1
    theta[:, formula.size_columns.start + Size.EXCESS] += 3
    tokens, params = rng.dirichlet(np.ones(3), 6) * 2e10, np.array([1e9, 5e9, 1e8, 4e8, 2e8, 1e9])
    pools = np.array([[1e9, 5e9, 2e9]] * 3 + [[1e9, 1e11, 1e11]] * 2 + [[1e12] * 3])

    def losses(theta, tokens):
        return formula.terms(theta, formula.points(tokens, params, pools)).losses

    points = formula.points(tokens, params, pools)
    terms = formula.terms(theta, points)
    jacobian, slopes = formula.jacobian(theta, terms), formula.slopes(terms, points)
    for column in range(formula.num_params):
        step = np.zeros_like(theta)
        step[:, column] = 1e-6
        numeric = (losses(theta + step, tokens) - losses(theta - step, tokens)) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, column].T, numeric, rtol=1e-5, atol=1e-8)
    assert np.abs(jacobian[:, :5, formula.size_columns.start + Size.EXCESS]).max() > 0
    for domain in range(3):
        factor = np.ones(3)
        factor[domain] = np.exp(1e-6)
        numeric = (losses(theta, tokens * factor) - losses(theta, tokens / factor)) / 2e-6
        np.testing.assert_allclose(slopes[:, :, domain].T, numeric, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("decay", [5.0, 40.0])
def test_the_decay_is_fitted_where_runs_show_it(decay):
    law = fit_law("pooled_transfer", table(decay))
    fitted = np.exp(law.theta[:, Scalar.REPETITION])
    np.testing.assert_allclose(fitted, decay, rtol=0.25)
    unseen = table(decay, noise=0.0, seed=1)
    np.testing.assert_allclose(predict_runs(law, unseen), unseen.losses, atol=0.02)


def test_the_decay_is_the_priors_where_no_run_repeats_anything():
    runs = replace(table(5.0), pool_tokens=None)
    law = fit_law("pooled_transfer", runs)
    np.testing.assert_allclose(law.theta[:, Scalar.REPETITION], np.log(DATA_DECAY), atol=1e-6)
    spread = np.std(law.posterior[:, :, Scalar.REPETITION])
    assert 0.1 < spread < 0.4


@pytest.mark.parametrize("name", REPEATING)
def test_less_text_is_never_better_and_plenty_changes_nothing(name):
    law = fit_law(name, table(DATA_DECAY))
    tokens = np.random.default_rng(2).dirichlet(np.ones(3), 20) * 6e9
    fresh = law.with_text(None).predict(tokens)
    np.testing.assert_array_equal(law.with_text(PLENTY).predict(tokens), fresh)
    repeated = law.with_text([1e8, 1e8, 1e8]).predict(tokens)
    assert repeated.mean() > fresh.mean()


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_are_those_of_the_losses_where_text_is_repeated(name):
    law = fit_law(name, table(DATA_DECAY)).with_text(SCARCE).by_formula()
    tokens = np.array([2e9, 1e9, 3e9])
    steps = np.diag(1e-5 * tokens)
    numeric = (law.predict(tokens + steps) - law.predict(tokens - steps)).T / (2e-5 * tokens)
    np.testing.assert_allclose(law.slopes(tokens), numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max())


def optimum_of(law, **limits):
    objective = make_objective("o", "loss", None, NAMES)
    return expected_optimum([law], objective, 6e9, Constraints(make_bounds(0.0, 1.0, NAMES), **limits))


@pytest.mark.parametrize("name", ["pooled_transfer", "ces_transfer"])
def test_the_optimum_shifts_from_a_domain_whose_text_is_scarce(name):
    law = fit_law(name, table(DATA_DECAY)).by_formula()
    plenty, scarce = (optimum_of(law.with_text(text)) for text in (PLENTY, SCARCE))
    assert plenty.convex
    assert scarce.convex
    assert scarce.converged
    assert 1.5 * 5e7 / 6e9 < scarce.weights[2] < 0.6 * plenty.weights[2]  # more than an epoch, less than before
    grid = np.array([(x, y, 1 - x - y) for x in np.arange(0, 1, 0.02) for y in np.arange(0, 1 - x, 0.02)])
    losses = law.with_text(SCARCE).predict(grid * 6e9).mean(axis=1)
    assert law.with_text(SCARCE).predict(scarce.weights * 6e9).mean() <= losses.min() + 1e-9
    capped = optimum_of(law.with_text(SCARCE), unique_tokens=np.array(SCARCE), max_epochs=2.0)
    assert capped.weights[2] == pytest.approx(2 * 5e7 / 6e9)


def test_a_fit_takes_the_text_that_it_is_given_or_that_its_runs_tell_of():
    asked = ["objective=mean_loss", "uncertainty=none", "target_tokens=[6_000_000_000]"]
    given = "bounds.unique_tokens=[1_000_000_000_000,1_000_000_000_000,50_000_000]"
    fresh = replace(table(DATA_DECAY, num_runs=16), pool_tokens=None, unique_tokens=None)
    told = replace(fresh, unique_tokens=SCARCE, pool_tokens=np.tile(SCARCE, (16, 1)))
    fits = [solve("transfer", runs, request_for(runs, *asked, *more)) for runs, more in ((fresh, [given]), (told, []))]
    assert fits[0][1].unique_tokens == fits[1][1].unique_tokens == SCARCE
    assert fits[0][0].targets[0].weights == fits[1][0].targets[0].weights


def test_a_text_smaller_than_what_a_run_saw_of_it_in_one_epoch_is_refused():
    runs = table(DATA_DECAY)
    with pytest.raises(UserError, match=r"bounds.unique_tokens of 'a' is 1_000, but run 'r0' saw [\d_]+ tokens of it"):
        request_for(runs, "bounds.unique_tokens=[1_000,1_000_000_000_000,1_000_000_000_000]")


HEADER = "run,tokens.a,tokens.b,unique.a,unique.b,loss.a\n"


def test_a_table_tells_the_text_of_each_run():
    runs = parse_run_table(f"{HEADER}one,4000,2000,1000,2000,3\ntwo,4000,2000,8000,1000,3\n", "runs.csv")
    np.testing.assert_array_equal(runs.pool_tokens, [[1000, 2000], [8000, 1000]])
    assert runs.unique_tokens == [8000, 2000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}one,4000,2000,0,2000,3\n", r"row 2, column unique.a: 0 unique tokens, but 4_000 were trained on"),
        (
            "run,tokens.a,tokens.b,unique.a,loss.a\none,4000,2000,4000,3\n",
            r"has columns unique.\* for a, and trains on a, b; give one for each",
        ),
    ],
)
def test_a_table_with_odd_text_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_run_table(text, "runs.csv")
