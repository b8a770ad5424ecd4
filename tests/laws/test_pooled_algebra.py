"""The pooled law's linear algebra, by blocks and shared columns, against the dense matrices that it stands for."""

import numpy as np
import pytest

from autoscale_exp.laws.least_squares import Solution
from autoscale_exp.laws.normal_equations import Equicorrelation, NormalEquations
from autoscale_exp.laws.pooled.posterior import Posterior
from autoscale_exp.laws.pooled.solution import Noise
from autoscale_exp.laws.student_t import ROBUST_VARIANCE

NUM_VALIDATION = 3


def correlation_matrix(correlation):
    return np.full((NUM_VALIDATION,) * 2, correlation) + (1 - correlation) * np.eye(NUM_VALIDATION)


def dense_information(jacobian, weights):
    """(V P, V P) sum over runs of jacobian[u] weights[u, v] jacobian[v]."""
    blocks = np.einsum("urp,uv,vrq->upvq", jacobian, weights, jacobian)
    return blocks.reshape(2 * [jacobian.shape[0] * jacobian.shape[2]])


def problem(num_runs, num_params, correlation):
    rng = np.random.default_rng(num_runs)
    jacobian = rng.standard_normal((NUM_VALIDATION, num_runs, num_params))
    prior = rng.uniform(0.5, 3.0, (NUM_VALIDATION, num_params))
    equations = NormalEquations(jacobian, prior, Equicorrelation.of(correlation, NUM_VALIDATION).inverse())
    dense = dense_information(jacobian, np.linalg.inv(correlation_matrix(correlation))) + np.diag(prior.ravel())
    return equations, dense, rng


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize(("num_runs", "num_params"), [(4, 7), (12, 5), (40, 5)])
def test_a_step_and_the_variance_are_those_of_the_dense_equations(num_runs, num_params, correlation):
    equations, dense, rng = problem(num_runs, num_params, correlation)
    gradient = rng.standard_normal((NUM_VALIDATION, num_params))
    damping = np.array([0.2]) if correlation else np.array([0.2, 0.0, 3.0])
    by_param = np.repeat(np.broadcast_to(damping, NUM_VALIDATION), num_params)
    expected = np.linalg.solve(dense + np.diag(by_param * np.diag(dense)), gradient.ravel())
    np.testing.assert_allclose(equations.step(gradient, damping).ravel(), expected, rtol=1e-9)
    np.testing.assert_allclose(equations.variance().ravel(), np.diag(np.linalg.inv(dense)), rtol=1e-9)


@pytest.fixture(params=[(0.1, 0.4), (0.0, 0.0)], ids=["shared noise", "separate noise"])
def posterior_and_dense(request):
    """A posterior, and by dense matrices the precision's inverse and the covariance."""
    weighting, shared = request.param
    equations, _, rng = problem(10, 4, weighting)
    spread, effects = equations.prior**-0.5, rng.standard_normal((NUM_VALIDATION, 4, 3))
    noise = Noise(np.ones(NUM_VALIDATION), np.ones(10), 0.0, np.ones((10, NUM_VALIDATION)), shared, weighting)
    nothing = np.zeros((10, NUM_VALIDATION))
    posterior = Posterior(Solution(spread, nothing, equations, True), noise, spread, effects)
    flat = effects.reshape(-1, 3)
    prior = np.linalg.inv(np.diag(spread.ravel() ** 2) + flat @ flat.T)
    weights = np.linalg.inv(correlation_matrix(weighting))
    score = ROBUST_VARIANCE * weights @ correlation_matrix(shared) @ weights
    inverse = np.linalg.inv(dense_information(equations.jacobian, weights) + prior)
    return posterior, inverse, inverse @ (dense_information(equations.jacobian, score) + prior) @ inverse


def test_leverages_are_those_of_the_dense_sandwich(posterior_and_dense):
    posterior, inverse, covariance = posterior_and_dense
    jacobian = posterior.solution.jacobian
    for found, matrix in zip(posterior.leverages(), (inverse, covariance), strict=True):
        blocks = matrix.reshape(NUM_VALIDATION, 4, NUM_VALIDATION, 4)
        expected = np.einsum("vrp,vpvq,vrq->rv", jacobian, blocks, jacobian)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_draws_have_the_covariance_of_the_dense_sandwich(posterior_and_dense):
    posterior, _, covariance = posterior_and_dense
    draws = posterior.deviations(40_000, np.random.default_rng(0)).reshape(40_000, -1)
    sd = np.sqrt(np.diag(covariance))
    # Of n draws, an entry is off by sqrt(2 / n) = .007 (a variance); the largest of 78 by less than 4 times that.
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.03)
    assert np.abs(draws.mean(axis=0) / sd).max() < 0.02
