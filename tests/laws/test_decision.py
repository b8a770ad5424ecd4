from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.backtest import backtest, fit_without_largest, largest_runs
from autoscale_exp.laws.decision import base_mixture_of, decide_at
from autoscale_exp.laws.fit_file import Gain, NextRun, Response, Risk
from autoscale_exp.laws.gains import gain_over, verdict
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.runs.table import RunTable, select_runs
from tests.laws.synthetic import DOMAINS, ddo_table

OBJECTIVE = make_objective("mean_loss", "loss", None, DOMAINS)


@dataclass
class OwnTokens:
    """L_v = 10 n_v^-exponent_v; draws differ in one domain's exponent."""

    exponent: np.ndarray
    domains: list = field(default_factory=lambda: DOMAINS)
    validation_domains: list = field(default_factory=lambda: DOMAINS)
    run_noise: np.ndarray = field(default_factory=lambda: np.full(3, 0.001))

    def predict(self, tokens):
        return 10 * np.asarray(tokens) ** -self.exponent

    def by_formula(self):
        return self


def test_gain_is_the_median_of_paired_differences_with_their_quantiles():
    reference, mixture = np.arange(101.0), np.arange(101.0) - np.linspace(-1, 3, 101)
    gain = gain_over(reference, mixture)
    assert gain.median == pytest.approx(1.0)
    assert gain.interval == pytest.approx((-0.8, 2.8))
    assert gain.probability == pytest.approx(0.75, abs=0.01)


NEXT = [
    NextRun("a_x3_1K_seed1", "a_x3_1K", {"a": 3.0}, 1, 1000, 0.5),
    NextRun("b_x3_1K", None, {"a": 1.0}, 0, 1000, 0.4),
]


def test_a_gain_that_may_be_none_is_not_called_better():
    sure = gain_over(np.full(100, 2.0), np.linspace(1.0, 1.5, 100))
    unsure = gain_over(np.full(100, 2.0), np.linspace(1.0, 2.5, 100))
    assert verdict(sure, "uniform", NEXT).startswith("better than uniform by 0.7500 (37.5 %)")
    assert verdict(unsure, "uniform", []).startswith("cannot be told apart from uniform")
    assert verdict(unsure, "uniform", NEXT).endswith(
        "most useful next proxy runs are a_x3_1K with seed 1, b_x3_1K with seed 0"
    )


def test_runs_that_would_hardly_change_the_chance_of_a_wrong_choice_are_called_enough():
    unsure = gain_over(np.full(100, 2.0), np.linspace(1.0, 2.5, 100))
    assert verdict(unsure, "uniform", NEXT, Risk(0.33, 0.325)).endswith(
        "enough is known: after the 2 proxy runs that would tell most, the chance of the wrong choice would still be "
        "32.5 %, now 33.0 %; train this mixture, which is better with a probability of 66 %"
    )
    loses = gain_over(np.full(100, 2.0), np.linspace(1.5, 3.0, 100))
    assert verdict(loses, "uniform", NEXT, Risk(0.33, 0.325)).endswith(
        "; train uniform, which is better with a probability of 67 %"
    )
    with_a_tail = gain_over(np.full(100, 2.0), np.append(np.linspace(1.0, 2.5, 99), 1e4))
    assert with_a_tail.median == pytest.approx(unsure.median, abs=0.01)
    assert "train this mixture, which is better with a probability of 6" in verdict(
        with_a_tail, "uniform", NEXT, Risk(0.33, 0.325)
    )
    assert "most useful next proxy runs" in verdict(unsure, "uniform", NEXT, Risk(0.33, 0.31))


def test_a_gain_that_lies_below_zero_is_called_worse():
    loses = gain_over(np.full(100, 2.0), np.linspace(2.2, 2.6, 100))
    sentence = verdict(loses, "uniform", NEXT)
    assert sentence.startswith("worse than uniform by 0.4000 (20.0 %), 90 % interval 0.2200 to 0.5800")
    assert "cannot be told apart" not in sentence


def test_the_back_test_predicts_the_scale_left_out():
    table = ddo_table()
    (trial,) = fit_without_largest("transfer", table)
    tested = backtest(trial, table, OBJECTIVE)
    assert tested.left_out == "largest budget"
    assert tested.runs == 7
    assert tested.tokens == pytest.approx(100_000, rel=0.01)
    assert abs(tested.level_error) < 0.3
    assert tested.difference_error < tested.difference_spread


def test_one_scale_has_no_back_test():
    table = ddo_table()
    assert fit_without_largest("transfer", select_runs(table, np.arange(7))) == []


def test_the_back_test_leaves_out_the_largest_size_and_budget_of_runs_of_several_sizes():
    table = replace(ddo_table(scales=(30_000, 100_000, 30_001)), params=np.repeat([1e6, 1e6, 4e6], 7))
    parts = largest_runs(table)
    assert list(parts) == ["largest size", "largest budget", "largest size and budget"]
    np.testing.assert_array_equal(parts["largest size"], np.arange(14, 21))
    np.testing.assert_array_equal(parts["largest budget"], np.arange(7, 14))
    np.testing.assert_array_equal(parts["largest size and budget"], np.arange(7, 21))


@pytest.mark.parametrize(
    ("interval", "probability", "starts"),
    [
        ((0.01, 0.2), 0.95, "better than uniform"),
        ((0.01, 0.2), 0.94, "cannot be told apart"),
        ((0.0, 0.2), 0.99, "cannot be told apart"),
        ((-0.2, -0.01), 0.05, "worse than uniform"),
        ((-0.2, -0.01), 0.06, "cannot be told apart"),
        ((-0.2, 0.0), 0.01, "cannot be told apart"),
    ],
)
def test_a_verdict_needs_probability_and_an_interval_off_0(interval, probability, starts):
    assert verdict(Gain(sum(interval) / 2, interval, probability, 0.01), "uniform", []).startswith(starts)


class WithoutSlopes(OwnTokens):
    name = "steps"

    def slopes(self, tokens):
        raise NotImplementedError


def test_a_divergence_from_the_prior_needs_slopes():
    constraints = Constraints(make_bounds(0.0, 1.0, DOMAINS))
    request = Request([100_000], OBJECTIVE, constraints, kl_weight=0.1)
    with pytest.raises(UserError, match=r"objective.kl_weight needs a law with slopes, but law=steps has none"):
        decide_at(WithoutSlopes(np.full(3, 0.2)), [], 100_000, np.full(3, 1 / 3), request)


def test_a_run_without_a_domain_is_left_out_of_its_response():
    """The axis of tokens is logarithmic, and so are the curve's points."""
    response = Response.of("a", [(0.0, 1.2), (1.0, 1.0), (3.0, 0.9)], lambda x: x**-0.1)
    assert response.points == [(1.0, 1.0), (3.0, 0.9)]
    tokens = [x for x, _ in response.curve]
    assert 0 < min(tokens) < 1.0 < 3.0 < max(tokens)


@pytest.mark.parametrize("base", [(0.7, 0.2, 0.1), (0.6, 0.4, 0.0), (1 / 3, 1 / 3, 1 / 3)])
def test_the_base_mixture_of_a_ddo_design_is_that_of_its_base_run(base):
    changes = [np.ones(3), *(1 + step * row for row in np.eye(3) for step in (2, -2 / 3))]
    tokens = 1000 * np.array(changes) * base
    table = RunTable([str(r) for r in range(7)], DOMAINS, DOMAINS, tokens, np.ones((7, 3)), ["1K"] * 7)
    assert base_mixture_of(table, np.arange(7)) == pytest.approx(base)


def test_the_base_mixture_of_a_swarm_is_the_mean_of_its_mixtures():
    weights = np.random.default_rng(0).dirichlet([7, 2, 1], 5)
    table = RunTable(list("abcde"), DOMAINS, DOMAINS, 1000 * weights, np.ones((5, 3)), ["1K"] * 5)
    assert base_mixture_of(table, np.arange(5)) == pytest.approx(weights.mean(axis=0))
