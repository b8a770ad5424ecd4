from dataclasses import dataclass, field

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.solver.constraints import Constraints, GroupCap
from autoscale_exp.laws.solver.sampled_optimum import sampled_optimum
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
    found = sampled_optimum(WithoutSlopes(), OBJECTIVE, 1e5, Constraints(BOUNDS))
    steps = np.linspace(0, 1, 101)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a >= 0.1 and a + b <= 1])
    values = OBJECTIVE(true_losses(grid * 1e5))
    assert found.objective_value == pytest.approx(values.min(), abs=0.005 * np.ptp(values))
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert not found.converged


def test_draws_stay_within_bounds_and_groups():
    constraints = Constraints(BOUNDS, groups=[GroupCap("rest", [0, 1], 0.5)])
    found = sampled_optimum(WithoutSlopes(), OBJECTIVE, 1e5, constraints)
    assert found.weights[0] >= 0.1
    assert found.weights[:2].sum() <= 0.5 + 1e-9


def test_what_needs_slopes_is_refused():
    constraints = Constraints(BOUNDS, no_worse_than=np.full(3, 1 / 3))
    with pytest.raises(UserError, match="no_worse_than_uniform needs a law with slopes, which law=steps has not"):
        sampled_optimum(WithoutSlopes(), OBJECTIVE, 1e5, constraints)


def test_bounds_that_no_draw_meets_are_refused():
    narrow = Constraints(make_bounds([0.5, 0.0, 0.0], [1.0, 1e-6, 0.5], DOMAINS), groups=[GroupCap("first", [0], 0.5)])
    with pytest.raises(UserError, match=r"none of 4000 drawn mixtures meets the bounds; .* needs looser ones"):
        sampled_optimum(WithoutSlopes(), OBJECTIVE, 1e5, narrow)
