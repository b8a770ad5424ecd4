"""Weighted least squares with a normal prior, by the method of Levenberg and Marquardt. It fits every law of losses.

Each validation domain is a system of its own, and all systems are solved side by side. Validation domains that share
noise are one system. Steps are damped Gauss-Newton steps. A parameter that a limit holds stays where it is.

R runs, V validation domains, P parameters of each, S systems: V or 1.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np

from autoscale_exp.base.arrays import BoolArray, FloatArray, Int64Array
from autoscale_exp.laws.normal_equations import Equicorrelation, NormalEquations

RETRIES = 8  # more damped tries of a step that does not lower the cost
LONGEST_STEP = 2.0  # largest change of a parameter, mostly a logarithm, in one step
TOLERANCE = 1e-6  # relative decrease of the cost at which a solve ends
HIGHEST_DAMPING = 1e4  # above it no step helps any more: this is a minimum to machine precision


class Curve(Protocol):
    """The losses of the runs as a function of the parameters."""

    def at(self, theta: FloatArray) -> Any:
        """Evaluates the curve at (V, P) parameters; the result has `losses` (R, V), and `jacobian` takes it."""
        ...

    def jacobian(self, theta: FloatArray, at: Any) -> FloatArray:
        """(V, R, P) derivatives of each validation domain's losses by its own parameters; the caller may change it."""
        ...

    def of(self, domains: Int64Array) -> Self:
        """The curve of some validation domains."""
        ...


@dataclass(frozen=True)
class Problem:
    """A weighted sum of squares plus a prior, to be minimised.

    Attributes:
        curve: the losses by the parameters.
        losses: (R, V) measured losses.
        mean: (V, P) means of the prior.
        precision: (V, P) precisions of the prior.
        root: (R, V) factors of the residuals: the roots of their weights.
        weights: inverse correlation of a run's losses.
        lower: (V, P) limits of the parameters.
        upper: (V, P) limits of the parameters.
    """

    curve: Curve
    losses: FloatArray
    mean: FloatArray
    precision: FloatArray
    root: FloatArray
    weights: Equicorrelation
    lower: FloatArray
    upper: FloatArray

    @property
    def is_joint(self) -> bool:
        """Whether validation domains share noise, so that they are one system and not V."""
        return self.weights.common() > 0

    def of(self, domains: Int64Array) -> "Problem":
        """The problem of some validation domains; only for domains that do not share noise."""
        if len(domains) == len(self.mean):
            return self
        return replace(
            self,
            curve=self.curve.of(domains),
            losses=self.losses[:, domains],
            mean=self.mean[domains],
            precision=self.precision[domains],
            root=self.root[:, domains],
            lower=self.lower[domains],
            upper=self.upper[domains],
        )

    def cost(self, theta: FloatArray, at: Any) -> FloatArray:
        """(S,) cost of each system; infinite where it is not finite."""
        scaled = self.root * (at.losses - self.losses)
        squares = (self.weights.times(scaled) * scaled if self.is_joint else scaled**2).sum(axis=0)
        by_domain = squares + (self.precision * (theta - self.mean) ** 2).sum(axis=1)
        cost = by_domain.sum(keepdims=True) if self.is_joint else by_domain
        return np.where(np.isfinite(cost), cost, np.inf)

    def linearise(self, theta: FloatArray, at: Any) -> NormalEquations:
        """The normal equations at parameters (V, P)."""
        jacobian = self.curve.jacobian(theta, at)
        jacobian *= self.root.T[:, :, None]
        return NormalEquations(jacobian, self.precision, self.weights)

    def gradient(self, theta: FloatArray, at: Any, equations: NormalEquations) -> FloatArray:
        """(V, P) half the gradient of the cost."""
        scaled = self.root * (at.losses - self.losses)
        scaled = self.weights.times(scaled) if self.is_joint else scaled
        return np.asarray((scaled.T[:, None, :] @ equations.jacobian)[:, 0] + self.precision * (theta - self.mean))

    def held(self, theta: FloatArray, gradient: FloatArray) -> BoolArray:
        """(V, P) whether a parameter is on a limit, and the cost falls beyond it."""
        return ((theta <= self.lower) & (gradient > 0)) | ((theta >= self.upper) & (gradient < 0))


@dataclass(frozen=True)
class Solution:
    """The most probable parameters under given noise and priors.

    Attributes:
        theta: (V, P) parameters.
        residuals: (R, V) measured losses less the curve's.
        equations: the normal equations at theta.
        converged: (V,) whether no step lowers the cost any more.
    """

    theta: FloatArray
    residuals: FloatArray
    equations: NormalEquations
    converged: BoolArray

    @property
    def jacobian(self) -> FloatArray:
        """(V, R, P) derivatives of the losses, each row divided by its standard deviation."""
        return self.equations.jacobian

    @cached_property
    def variance(self) -> FloatArray:
        """(V, P) variances of theta."""
        return self.equations.variance()

    @property
    def num_used(self) -> FloatArray:
        """(V,) effective number of parameters: each counts by the part of its precision that the runs add."""
        return np.asarray((1 - self.variance * self.equations.prior).sum(axis=1))


def solve(problem: Problem, theta: FloatArray, iterations: int) -> Solution:
    """Finds the most probable parameters near `theta` (V, P)."""
    theta, converged = minimise(problem, theta, iterations)
    at = problem.curve.at(theta)
    return Solution(theta, problem.losses - at.losses, problem.linearise(theta, at), converged)


def minimise(problem: Problem, theta: FloatArray, iterations: int) -> tuple[FloatArray, BoolArray]:
    """Finds the (V, P) parameters of least cost near `theta`, and (V,) whether no step lowers the cost any more.

    A system that is done takes no further steps.
    """
    theta = theta.copy()
    num_systems = 1 if problem.is_joint else len(theta)
    damping, done = np.full(num_systems, 1e-2), np.zeros(num_systems, dtype=bool)
    for _ in range(iterations):
        left = np.flatnonzero(~done)
        domains = np.arange(len(theta)) if problem.is_joint else left
        theta[domains], damping[left], done[left] = _descend(problem.of(domains), theta[domains], damping[left])
        if done.all():
            break
    return theta, np.broadcast_to(done, len(theta))


def _descend(problem: Problem, theta: FloatArray, damping: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Takes a step of each system that lowers its cost.

    Returns:
        (V, P) parameters, (S,) damping for the next step, and (S,) whether the system is done.
    """
    at = problem.curve.at(theta)
    equations, now = problem.linearise(theta, at), problem.cost(theta, at)
    gradient = problem.gradient(theta, at, equations)
    held = problem.held(theta, gradient)
    if held.any():  # a parameter without a slope and without an effect on losses takes no step
        gradient = np.where(held, 0.0, gradient)
        equations = NormalEquations(equations.jacobian * ~held[:, None, :], problem.precision, problem.weights)
    done = np.zeros(len(now), dtype=bool)
    for _ in range(RETRIES):
        step = np.clip(equations.step(gradient, damping), -LONGEST_STEP, LONGEST_STEP)
        # A system that is done stays put, so that its rounding errors hold up no other.
        trial = np.clip(theta - np.where(done[:, None], 0.0, step), problem.lower, problem.upper)
        cost = problem.cost(trial, problem.curve.at(trial))
        better = ~done & (cost <= now)
        done |= np.where(better, now - cost < TOLERANCE * (1 + now), damping > HIGHEST_DAMPING)
        theta, now = np.where(better[:, None], trial, theta), np.where(better, cost, now)
        damping = np.where(better, np.maximum(damping * 0.3, 1e-9), damping * 5)
        if better.any() or done.all():
            break
    return theta, damping, done
