"""Robust least squares with weak priors, for the small problems of all validation domains side by side.

Residuals are Student-t, so that a few odd runs do not bend a fit. The normal priors of the parameters decide only what
the runs leave open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import BoolArray, FloatArray
from autoscale_exp.laws.least_squares import Curve, Problem, minimise, solve
from autoscale_exp.laws.normal_equations import Equicorrelation
from autoscale_exp.laws.student_t import NOISE_SD, ROBUST_VARIANCE, noise_scale

NOISE_FLOOR = 1e-4  # nats; no two seeds agree so well, and tables without noise stay solvable
FIRST_NOISE = 0.1  # of the losses' spread; with so much noise the first pass is smooth and leans on the priors
ROUNDS, STEPS = 30, 150  # rounds at most, and steps of each solve
NOISE_TOLERANCE = 5e-3  # rounds end when the log of the noise changes by less


@dataclass(frozen=True)
class Prior:
    """What is known of (V, P) parameters before the runs: normal mean and spread, and hard limits."""

    mean: FloatArray
    spread: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class RobustFit:
    """(V, P) parameters, (V, P, P) covariance, (V,) standard deviation of a run's loss, (V,) whether it converged."""

    parameters: FloatArray
    covariance: FloatArray
    noise: FloatArray
    converged: BoolArray


def robust_fit(curve: Curve, losses: FloatArray, prior: Prior, starts: Sequence[FloatArray]) -> RobustFit:
    """Fits every validation domain from every start, keeps the best fit of each, then settles noise and weights.

    Args:
        curve: the formula.
        losses: (R, V) measured losses.
        prior: prior of the parameters.
        starts: (V, P) each; their order decides only exact ties.
    """
    separate = Equicorrelation.of(0.0, losses.shape[1])

    def problem(scale: FloatArray, weights: FloatArray) -> Problem:
        root, precision = np.sqrt(weights) / scale, prior.spread**-2.0
        return Problem(curve, losses, prior.mean, precision, root, separate, prior.lower, prior.upper)

    scale, weights = FIRST_NOISE * losses.std(axis=0) + NOISE_FLOOR, np.ones_like(losses)
    first = problem(scale, weights)
    tried = np.stack([minimise(first, start, STEPS)[0] for start in starts])
    best = np.argmin([first.cost(found, curve.at(found)) for found in tried], axis=0)
    theta = tried[best, np.arange(len(best))]
    for _ in range(ROUNDS):
        solution = solve(problem(scale, weights), theta, STEPS)
        theta, before = solution.theta, scale
        scale, weights = noise_scale(solution.residuals, solution.num_used, scale, NOISE_FLOOR)
        converged = solution.converged & (np.abs(np.log(scale / before)) < NOISE_TOLERANCE)
        if converged.all():
            break
    jacobian = problem(scale, weights).linearise(theta, curve.at(theta)).jacobian
    precision = jacobian.transpose(0, 2, 1) @ jacobian / ROBUST_VARIANCE + prior.spread[:, :, None] ** -2.0 * np.eye(
        theta.shape[1]
    )
    covariance = np.linalg.inv(precision)
    return RobustFit(theta, (covariance + covariance.swapaxes(1, 2)) / 2, NOISE_SD * scale, converged)
