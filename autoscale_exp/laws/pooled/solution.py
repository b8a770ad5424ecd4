"""The fit of the pooled transfer law under given noise and populations, as a least-squares problem.

Noise may fall with the token budget, and the losses of a run share a part of it.

R runs, V validation domains, P parameters of each.
"""

from dataclasses import dataclass, replace

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.least_squares import Problem
from autoscale_exp.laws.normal_equations import Equicorrelation
from autoscale_exp.laws.pooled.formula import Formula, Terms
from autoscale_exp.laws.pooled.points import Points
from autoscale_exp.laws.student_t import NOISE_SD


@dataclass(frozen=True)
class Noise:
    """Noise of the runs' losses.

    Attributes:
        sd: (V,) scale of the Student-t noise at the runs' mean log budget.
        relative: (R,) scale of each run's noise, relative to sd.
        exponent: noise goes as this power of the budget, at most 0.
        weights: (R, V) robust weights.
        shared: correlation of a run's losses.
        weighting: the correlation that the fit uses, a part of `shared`.
    """

    sd: FloatArray
    relative: FloatArray
    exponent: float
    weights: FloatArray
    shared: float = 0.0
    weighting: float = 0.0

    @property
    def run_sd(self) -> FloatArray:
        """(V,) standard deviation of a loss: root mean square over the runs."""
        return np.asarray(NOISE_SD * self.sd * np.sqrt(np.mean(self.relative**2)))

    @property
    def root_precision(self) -> FloatArray:
        """(R, V) factors of the residuals: root of the robust weight over the noise."""
        return np.asarray(np.sqrt(self.weights) / (self.sd * self.relative[:, None]))


@dataclass(frozen=True)
class FormulaCurve:
    """The formula at the runs; see `least_squares.Curve`."""

    formula: Formula
    points: Points

    def at(self, theta: FloatArray) -> Terms:
        """Evaluates the formula's parts at (V, P) parameters."""
        return self.formula.terms(theta, self.points)

    def jacobian(self, theta: FloatArray, at: Terms) -> FloatArray:
        """(V, R, P) derivatives of the losses."""
        return self.formula.jacobian(theta, at)

    def of(self, domains: Int64Array) -> "FormulaCurve":
        """The formula of some validation domains."""
        return replace(self, formula=replace(self.formula, own=self.formula.own[domains]))


def pooled_problem(
    curve: FormulaCurve,
    losses: FloatArray,
    prior: tuple[FloatArray, FloatArray],
    root: FloatArray,
    weighting: float = 0.0,
) -> Problem:
    """Makes the least-squares problem of a curve and (R, V) losses.

    Args:
        curve: the formula at R points.
        losses: (R, V) measured losses.
        prior: mean and spread, (V, P) each.
        root: (R, V) factors of the residuals.
        weighting: the correlation of a run's losses that the fit uses.
    """
    mean, spread = prior
    weights = Equicorrelation.of(weighting, losses.shape[1]).inverse()
    limit = np.full(mean.shape, np.inf)
    return Problem(curve, losses, mean, spread**-2.0, root, weights, -limit, limit)
