"""Robust least squares with weak priors, for many small problems of one shape side by side.

Ours, not from a paper: residuals are Student-t, so that a few odd runs do not bend a fit; parameters have normal priors
that decide only what the runs leave open. Damped Gauss-Newton steps (Levenberg and Marquardt), batched over V.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.student_t import NOISE_SD, ROBUST_VARIANCE, noise_scale

NOISE_FLOOR = 1e-4  # nats; below what any two seeds agree to, and it keeps noise-free tables solvable
FIRST_NOISE = 0.1  # of the losses' spread: the first pass is smooth and leans on the priors
ROUNDS, STEPS = 30, 150
COST_TOLERANCE, NOISE_TOLERANCE = 1e-6, 5e-3

# Maps (V, P) parameters to (V, R) losses and (V, R, P) derivatives.
Curve = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Prior:
    """What is held about (V, P) parameters before the runs: normal mean and spread, and hard limits."""

    mean: FloatArray
    spread: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class RobustFit:
    """(V, P) parameters, (V, P, P) covariance, (V,) standard deviation of a run, (V,) whether converged."""

    parameters: FloatArray
    covariance: FloatArray
    noise: FloatArray
    converged: np.ndarray


def robust_fit(curve: Curve, losses: FloatArray, prior: Prior, starts: Sequence[FloatArray]) -> RobustFit:
    """Fits every problem from every start, keeps each problem's best, then settles noise and weights.

    Args:
        curve: the formula.
        losses: (V, R) what it should give.
        prior: of the parameters.
        starts: (V, P) each; their order decides only exact ties.
    """
    scale = FIRST_NOISE * losses.std(axis=1) + NOISE_FLOOR
    weights = np.ones_like(losses)
    tried = [_descend(curve, start, losses, weights / scale[:, None] ** 2, prior) for start in starts]
    best = np.argmin([cost for _, cost, _ in tried], axis=0)
    parameters = np.stack([found for found, _, _ in tried])[best, np.arange(len(best))]
    converged = np.zeros(len(best), bool)
    for _ in range(ROUNDS):
        parameters, _, settled = _descend(curve, parameters, losses, weights / scale[:, None] ** 2, prior)
        before = scale
        scale, weights = _noise(curve, parameters, losses, weights, scale, prior)
        converged = settled & (np.abs(np.log(scale / before)) < NOISE_TOLERANCE)
        if converged.all():
            break
    _, derivatives = curve(parameters)
    precision = _information(derivatives, weights / scale[:, None] ** 2) / ROBUST_VARIANCE
    covariance = np.linalg.inv(precision + _diagonal(1 / prior.spread**2))
    return RobustFit(parameters, (covariance + covariance.swapaxes(1, 2)) / 2, NOISE_SD * scale, converged)


def _descend(
    curve: Curve, parameters: FloatArray, losses: FloatArray, weights: FloatArray, prior: Prior
) -> tuple[FloatArray, FloatArray, np.ndarray]:
    """Minimises weighted squares plus prior: (V, P) parameters, (V,) cost, (V,) converged."""
    precision = 1 / prior.spread**2

    def cost_of(predicted: FloatArray, at: FloatArray) -> FloatArray:
        cost = (weights * (predicted - losses) ** 2).sum(axis=1) + (precision * (at - prior.mean) ** 2).sum(axis=1)
        return np.where(np.isfinite(cost), cost, np.inf)

    predicted, derivatives = curve(parameters)
    cost = cost_of(predicted, parameters)
    damping, converged = np.full(len(cost), 1e-2), np.zeros(len(cost), bool)
    for _ in range(STEPS):
        gradient = np.einsum("vrp,vr->vp", derivatives, weights * (predicted - losses), optimize=True)
        gradient += precision * (parameters - prior.mean)
        hessian = _information(derivatives, weights) + _diagonal(precision)
        held = ((parameters <= prior.lower) & (gradient > 0)) | ((parameters >= prior.upper) & (gradient < 0))
        hessian[held[:, :, None] | held[:, None, :]] = 0
        hessian += _diagonal(held.astype(float))
        damped = hessian + _diagonal(damping[:, None] * np.diagonal(hessian, axis1=1, axis2=2))
        step = np.linalg.solve(damped, -np.where(held, 0, gradient)[:, :, None])[:, :, 0]
        trial = np.clip(parameters + np.clip(step, -2, 2), prior.lower, prior.upper)
        new_predicted, new_derivatives = curve(trial)
        new_cost = cost_of(new_predicted, trial)
        better = new_cost <= cost
        # What a nearly undamped step promises; what it brings may be lost in rounding.
        promised = -(np.where(held, 0, gradient) * step).sum(axis=1)
        converged |= ((damping < 0.1) & (promised < COST_TOLERANCE * (1 + cost))) | (damping > 1e12)
        parameters = np.where(better[:, None], trial, parameters)
        predicted = np.where(better[:, None], new_predicted, predicted)
        derivatives = np.where(better[:, None, None], new_derivatives, derivatives)
        cost = np.where(better, new_cost, cost)
        damping = np.where(better, np.maximum(damping * 0.2, 1e-10), damping * 6)
        if converged.all():
            break
    return parameters, cost, converged


def _noise(
    curve: Curve, parameters: FloatArray, losses: FloatArray, weights: FloatArray, scale: FloatArray, prior: Prior
) -> tuple[FloatArray, FloatArray]:
    """(V,) scale of the residuals, less what the parameters absorb of them, and (V, R) robust weights."""
    predicted, derivatives = curve(parameters)
    data = _information(derivatives, weights / scale[:, None] ** 2)
    absorbed = np.einsum("vpq,vqp->v", np.linalg.inv(data + _diagonal(1 / prior.spread**2)), data)
    scale, weights = noise_scale((predicted - losses).T, absorbed, scale, NOISE_FLOOR)
    return scale, weights.T


def _information(derivatives: FloatArray, weights: FloatArray) -> FloatArray:
    return (derivatives * weights[:, :, None]).swapaxes(1, 2) @ derivatives


def _diagonal(entries: FloatArray) -> FloatArray:
    return entries[:, :, None] * np.eye(entries.shape[1])
