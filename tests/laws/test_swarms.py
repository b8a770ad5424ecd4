"""RegMix and Olmix as they are composed here: a swarm, a law and its optimum, on losses whose optimum is known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from autoscale_exp.laws.decision import decide_at
from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solver import sampled_optimum
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs.dirichlet import DirichletConf, dirichlet_runs
from autoscale_exp.runs.table import RunTable

DOMAINS = ["web", "books", "code", "maths"]
BUDGET = 1_000_000
NATURAL = np.array([0.4, 0.3, 0.2, 0.1])
FLOOR = np.array([2.0, 2.2, 1.5, 1.8])
GAIN = np.array([1.0, 0.8, 1.5, 1.2])
# How fast each training domain's share lowers each validation domain's loss.
RATE = np.array([[3.0, 1.0, 0.2, 0.3], [1.2, 4.0, 0.1, 0.2], [0.1, 0.2, 6.0, 1.5], [0.2, 0.1, 1.0, 5.0]])
OBJECTIVE = make_objective("mean_loss", "loss", None, DOMAINS)


def true_losses(weights):
    """(..., V) of an exponential law of mixtures."""
    return FLOOR + GAIN * np.exp(-weights @ RATE.T)


def swarm(num_runs, prior, noise=0.005):
    """Finished runs of a swarm about a prior, with noise over seeds."""
    design = DirichletConf(scales=[BUDGET], num_runs=num_runs)
    runs = dirichlet_runs(design, RunRequest(DOMAINS, None, "prior", 0))
    weights = np.array([run.weights(prior, np.full(4, np.inf)) for run in runs])
    losses = true_losses(weights) + noise * np.random.default_rng(0).standard_normal(weights.shape)
    names = [run.run for run in runs]
    return RunTable(names, DOMAINS, DOMAINS, weights * BUDGET, losses, [run.scale for run in runs])


def best(upper=1.0, kl_weight=0.0):
    """The mixture that a general solver finds under the true losses."""

    def value(weights):
        divergence = np.sum(weights * np.log(np.maximum(weights, 1e-12) / NATURAL))
        return true_losses(weights).mean() + kl_weight * divergence

    sums_to_one = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    limits = list(zip(np.zeros(4), np.broadcast_to(upper, 4), strict=True))
    return minimize(value, NATURAL, bounds=limits, constraints=sums_to_one, options={"ftol": 1e-12}).x


def offered(law, table, constraints, draws=True, **penalty):
    """The weights that a decision offers with a fitted law."""
    fitted = fit_law(law, table)
    drawn = fitted.draws(40, np.random.default_rng(0)) if draws else []
    request = Request([BUDGET], OBJECTIVE, constraints, prior=NATURAL, **penalty)
    return np.array(list(decide_at(fitted, drawn, BUDGET, NATURAL, request).weights.values()))


def test_olmix_finds_the_optimum_of_an_exponential_law():
    """Its law is law=mixing_law. 64 runs with noise of .005 nats; a weight is off by less than .02."""
    constraints = Constraints(make_bounds(0.0, 1.0, DOMAINS))
    found = offered("mixing_law", swarm(64, NATURAL), constraints)
    np.testing.assert_allclose(found, best(), atol=0.02)


def test_olmix_keeps_to_the_prior_and_to_the_repetition_that_is_allowed():
    unique = np.array([1.0, 1.0, 0.05, 1.0]) * BUDGET
    constraints = Constraints(make_bounds(0.0, 1.0, DOMAINS), unique, max_epochs=5)
    found = offered("mixing_law", swarm(64, NATURAL), constraints, kl_weight=0.05)
    expected = best(upper=[1, 1, 0.25, 1], kl_weight=0.05)
    assert best()[2] > 0.25 == pytest.approx(found[2])
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.linalg.norm(expected - NATURAL) < np.linalg.norm(best() - NATURAL)


def test_regmix_comes_near_the_optimum_with_as_many_runs_as_it_publishes(monkeypatch):
    """512 runs about the natural shares to the power 1/2; its trees are steps, so a weight may be off by .06."""
    pytest.importorskip("lightgbm")
    monkeypatch.setattr(sampled_optimum, "NUM_DRAWN", 20_000)  # a fifth, to save seconds
    prior = NATURAL**0.5 / np.sum(NATURAL**0.5)
    constraints = Constraints(make_bounds(0.0, 1.0, DOMAINS))
    found = offered("lightgbm", swarm(512, prior), constraints, draws=False)
    at = {name: OBJECTIVE(true_losses(weights)) for name, weights in {"found": found, "natural": NATURAL}.items()}
    least = OBJECTIVE(true_losses(best()))
    assert 0 <= at["found"] - least < 0.1 * (at["natural"] - least)
    np.testing.assert_allclose(found, best(), atol=0.06)
