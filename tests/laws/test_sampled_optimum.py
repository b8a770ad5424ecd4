from dataclasses import dataclass, field

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.solver.constraints import Constraints, GroupCap
from autoscale_exp.laws.solver.sampled_optimum import draw_mixtures
from tests.laws.synthetic import DOMAINS, true_losses


@dataclass
class WithoutSlopes:
    name: str = "steps"
    domains: list = field(default_factory=lambda: DOMAINS)
    validation_domains: list = field(default_factory=lambda: DOMAINS)

    def predict(self, tokens):
        return true_losses(tokens)


OBJECTIVE = make_objective("mean_loss", "loss", None, DOMAINS)
BOUNDS = make_bounds([0.1, 0.0, 0.0], 1.0, DOMAINS)


def test_the_best_of_draws_is_near_the_best_of_a_grid_and_not_called_exact():
    found = draw_mixtures(WithoutSlopes(), 1e5, Constraints(BOUNDS), None).optimum(OBJECTIVE)
    steps = np.linspace(0, 1, 101)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a >= 0.1 and a + b <= 1])
    values = OBJECTIVE(true_losses(grid * 1e5))
    assert found.objective_value == pytest.approx(values.min(), abs=0.005 * np.ptp(values))
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert not found.converged


def test_draws_stay_within_bounds_and_groups():
    constraints = Constraints(BOUNDS, groups=[GroupCap("rest", [0, 1], 0.5)])
    found = draw_mixtures(WithoutSlopes(), 1e5, constraints, None).optimum(OBJECTIVE)
    assert found.weights[0] >= 0.1
    assert found.weights[:2].sum() <= 0.5 + 1e-9


def test_mixtures_are_drawn_about_the_prior_and_none_has_what_the_prior_lacks():
    prior = np.array([0.7, 0.3, 0.0])
    drawn = draw_mixtures(WithoutSlopes(), 1e5, Constraints(make_bounds(0.0, 1.0, DOMAINS)), prior).weights
    assert len(drawn) == 100_000
    np.testing.assert_allclose(drawn.mean(axis=0), prior, atol=0.005)  # 5 standard errors
    np.testing.assert_allclose(drawn[:, 0].var(), 0.7 * 0.3 / 2, rtol=0.02)  # of a Dirichlet with parameters 0.7, 0.3


def test_what_needs_slopes_is_refused():
    constraints = Constraints(BOUNDS, no_worse_than=np.full(3, 1 / 3))
    with pytest.raises(UserError, match="no_worse_than_uniform needs a law with slopes, but law=steps has none"):
        draw_mixtures(WithoutSlopes(), 1e5, constraints, None)


def test_bounds_that_no_draw_meets_are_refused():
    narrow = Constraints(make_bounds(0.0, [0.4, 0.3, 0.3 + 1e-7], DOMAINS))
    with pytest.raises(
        UserError,
        match=r"none of 100000 drawn mixtures meets the bounds; loosen them, as law=steps",
    ):
        draw_mixtures(WithoutSlopes(), 1e5, narrow, None)
