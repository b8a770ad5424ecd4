"""The most probable parameters of the pooled transfer law under given noise and populations.

Levenberg-Marquardt on weighted squares, where noise may fall with the token budget and a run's validation losses share
it in part.

R runs, V validation domains, P parameters of each.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autoscale_exp.base.arrays import BoolArray, FloatArray, Int64Array
from autoscale_exp.laws.pooled.formula import Formula, Terms
from autoscale_exp.laws.pooled.normal_equations import Equicorrelation, NormalEquations
from autoscale_exp.laws.pooled.points import Points
from autoscale_exp.laws.student_t import NOISE_SD

RETRIES = 8  # of a step that did not lower the cost, each more damped
LONGEST_STEP = 2.0  # of a logarithm at once
TOLERANCE = 1e-6  # relative decrease of the cost at which a solve ends
HIGHEST_DAMPING = 1e4  # at which no step helps any more: a minimum to machine precision


@dataclass(frozen=True)
class Solution:
    """Most probable parameters under given noise and populations.

    Attributes:
        theta: (V, P).
        residuals: (R, V) losses less the formula's.
        equations: the normal equations there.
        converged: whether no step lowers the cost any more.
    """

    theta: FloatArray
    residuals: FloatArray
    equations: NormalEquations
    converged: bool

    @property
    def jacobian(self) -> FloatArray:
        """(V, R, P) of the losses, each row over its standard deviation."""
        return self.equations.jacobian

    @cached_property
    def variance(self) -> FloatArray:
        """(V, P) of theta."""
        return self.equations.variance()

    @property
    def num_used(self) -> FloatArray:
        """(V,) effective number of parameters: of each, the part of its precision that the runs add."""
        return np.asarray((1 - self.variance * self.equations.prior).sum(axis=1))


@dataclass(frozen=True)
class Noise:
    """Of the runs' losses.

    Attributes:
        sd: (V,) scale of the Student-t at the runs' mean log budget.
        relative: (R,) the same of each run over it.
        exponent: power of the budget that noise goes as, at most 0.
        weights: (R, V) robust weights.
        shared: correlation of a run's losses.
        weighting: the part of it that the fit goes by.
    """

    sd: FloatArray
    relative: FloatArray
    exponent: float
    weights: FloatArray
    shared: float = 0.0
    weighting: float = 0.0

    @property
    def run_sd(self) -> FloatArray:
        """(V,) standard deviation of a loss, root mean square over the runs."""
        return np.asarray(NOISE_SD * self.sd * np.sqrt(np.mean(self.relative**2)))

    @property
    def root_precision(self) -> FloatArray:
        """(R, V) robust weight over noise, as residuals are multiplied by."""
        return np.asarray(np.sqrt(self.weights) / (self.sd * self.relative[:, None]))


@dataclass(frozen=True)
class Problem:
    """Weighted squares with a prior, to be minimised.

    Attributes:
        formula: of the losses.
        points: of the R runs.
        losses: (R, V).
        mean: (V, P) of the prior.
        precision: (V, P) of the prior.
        root: (R, V) that residuals are multiplied by.
        weights: inverse correlation of a run's losses.
    """

    formula: Formula
    points: Points
    losses: FloatArray
    mean: FloatArray
    precision: FloatArray
    root: FloatArray
    weights: Equicorrelation

    @property
    def is_joint(self) -> bool:
        """Whether validation domains share noise, so that they are one system and not V."""
        return self.weights.common() > 0

    def of(self, domains: Int64Array) -> "Problem":
        """The problem of some validation domains, where these are systems of their own."""
        if len(domains) == len(self.mean):
            return self
        return replace(
            self,
            formula=replace(self.formula, own=self.formula.own[domains]),
            losses=self.losses[:, domains],
            mean=self.mean[domains],
            precision=self.precision[domains],
            root=self.root[:, domains],
        )

    def terms(self, theta: FloatArray) -> Terms:
        """The formula's at the runs."""
        return self.formula.terms(theta, self.points)

    def cost(self, terms: Terms, theta: FloatArray) -> FloatArray:
        """(S,) of each system."""
        scaled = self.root * (terms.losses - self.losses)
        squares = (self.weights.times(scaled) * scaled if self.is_joint else scaled**2).sum(axis=0)
        by_domain = squares + (self.precision * (theta - self.mean) ** 2).sum(axis=1)
        return by_domain.sum(keepdims=True) if self.is_joint else by_domain

    def linearise(self, terms: Terms, theta: FloatArray) -> NormalEquations:
        """The normal equations at parameters (V, P)."""
        jacobian = self.formula.jacobian(theta, terms)
        jacobian *= self.root.T[:, :, None]
        return NormalEquations(jacobian, self.precision, self.weights)

    def gradient(self, terms: Terms, theta: FloatArray, equations: NormalEquations) -> FloatArray:
        """(V, P) half the cost's."""
        scaled = self.root * (terms.losses - self.losses)
        scaled = self.weights.times(scaled) if self.is_joint else scaled
        return np.asarray((scaled.T[:, None, :] @ equations.jacobian)[:, 0] + self.precision * (theta - self.mean))


def solve(
    formula: Formula,
    theta: FloatArray,
    points: Points,
    losses: FloatArray,
    mean: FloatArray,
    spread: FloatArray,
    noise: Noise,
    iterations: int,
) -> Solution:
    """The most probable parameters near `theta` (V, P), under a prior of `mean` and `spread` (V, P)."""
    weights = Equicorrelation.of(noise.weighting, losses.shape[1]).inverse()
    problem = Problem(formula, points, losses, mean, spread**-2.0, noise.root_precision, weights)
    theta, converged = minimise(problem, theta, iterations)
    terms = problem.terms(theta)
    return Solution(theta, losses - terms.losses, problem.linearise(terms, theta), converged)


def minimise(problem: Problem, theta: FloatArray, iterations: int) -> tuple[FloatArray, bool]:
    """Levenberg-Marquardt from `theta` (V, P), and whether no step lowers the cost any more.

    A system per validation domain, side by side until it is done, or one system of all.
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
    return theta, bool(done.all())


def _descend(problem: Problem, theta: FloatArray, damping: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """A step of each system that lowers its cost; (V, P) parameters, (S,) damping, (S,) whether there is none."""
    terms = problem.terms(theta)
    equations, now = problem.linearise(terms, theta), problem.cost(terms, theta)
    gradient = problem.gradient(terms, theta, equations)
    done = np.zeros(len(now), dtype=bool)
    for _ in range(RETRIES):
        step = np.clip(equations.step(gradient, damping), -LONGEST_STEP, LONGEST_STEP)
        trial = theta - np.where(done[:, None], 0.0, step)  # no domain waits on rounding in another that is done
        cost = problem.cost(problem.terms(trial), trial)
        better = ~done & (cost <= now)
        done |= np.where(better, now - cost < TOLERANCE * (1 + now), damping > HIGHEST_DAMPING)
        theta, now = np.where(better[:, None], trial, theta), np.where(better, cost, now)
        damping = np.where(better, np.maximum(damping * 0.3, 1e-9), damping * 5)
        if better.any() or done.all():
            break
    return theta, damping, done
