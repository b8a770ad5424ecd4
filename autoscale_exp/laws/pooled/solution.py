"""The most probable parameters of the pooled transfer law under given noise and populations.

Levenberg-Marquardt on weighted squares, where noise may fall with the token budget and a run's validation losses share
it in part.

R runs, V validation domains, P parameters of each.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoscale_exp.base.arrays import BoolArray, FloatArray
from autoscale_exp.laws.pooled.formula import Formula, Terms
from autoscale_exp.laws.pooled.normal_equations import Equicorrelation, NormalEquations

ITERATIONS = 100  # of a solve, which most end far sooner
RETRIES = 8  # of a step that did not lower the cost, each more damped
LONGEST_STEP = 2.0  # of a logarithm at once
TOLERANCE = 1e-6  # relative decrease of the cost at which a solve ends
HIGHEST_DAMPING = 1e4  # at which no step helps any more: a minimum to machine precision
NOISE_SD = 1.25  # standard deviation of Gaussian noise over the scale of the Student-t fitted to it


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


def solve(
    formula: Formula,
    theta: FloatArray,
    log_tokens: FloatArray,
    losses: FloatArray,
    mean: FloatArray,
    spread: FloatArray,
    noise: Noise,
    iterations: int | None = None,
) -> Solution:
    """Levenberg-Marquardt from `theta` (V, P): a system per validation domain, or one of all if they share noise."""
    root, prior = noise.root_precision, spread**-2.0
    weights = Equicorrelation.of(noise.weighting, losses.shape[1]).inverse()
    num_systems = 1 if noise.weighting else len(theta)

    def cost(terms: Terms, theta: FloatArray) -> FloatArray:
        scaled = root * (terms.losses - losses)
        by_domain = (weights.times(scaled) * scaled).sum(axis=0) + (prior * (theta - mean) ** 2).sum(axis=1)
        return by_domain.reshape(num_systems, -1).sum(axis=1)

    def linearise(terms: Terms, theta: FloatArray) -> NormalEquations:
        jacobian = formula.jacobian(theta, log_tokens, terms)
        jacobian *= root.T[:, :, None]
        return NormalEquations(jacobian, prior, weights)

    terms = formula.terms(theta, log_tokens)
    equations = linearise(terms, theta)
    now, damping = cost(terms, theta), np.full(num_systems, 1e-2)
    done = np.zeros(num_systems, dtype=bool)
    for _ in range(iterations or ITERATIONS):
        scaled = weights.times(root * (terms.losses - losses))
        gradient = (scaled.T[:, None, :] @ equations.jacobian)[:, 0] + prior * (theta - mean)
        for _ in range(RETRIES):
            step = np.clip(equations.step(gradient, damping), -LONGEST_STEP, LONGEST_STEP)
            # Who is done stays, so that no domain waits on rounding in another.
            trial = theta - np.where(_by_domain(done, theta), 0.0, step)
            trial_terms = formula.terms(trial, log_tokens)
            trial_cost = cost(trial_terms, trial)
            better = ~done & (trial_cost <= now)
            moved = better | done
            done |= np.where(better, now - trial_cost < TOLERANCE * (1 + now), damping > HIGHEST_DAMPING)
            theta, now = np.where(_by_domain(moved, theta), trial, theta), np.where(better, trial_cost, now)
            damping = np.where(better, np.maximum(damping * 0.3, 1e-9), damping * 5)
            if better.any() or done.all():
                break
        terms = trial_terms if moved.all() else formula.terms(theta, log_tokens)
        equations = linearise(terms, theta)
        if done.all():
            break
    return Solution(theta, losses - terms.losses, equations, bool(done.all()))


def _by_domain(of_systems: BoolArray, theta: FloatArray) -> BoolArray:
    """(V, 1) of each validation domain, from (V,), or from (1,) for all of them."""
    return np.broadcast_to(of_systems[:, None], (len(theta), 1))
