"""Populations of parameters over validation domains: the empirical-Bayes part of the pooled transfer law.

Every parameter of the formula belongs to a population, such as all own-domain exponents. The validation domains
together estimate its mean and its spread. So they lend each other strength, and few runs go a long way. This is
standard empirical Bayes (Morris 1983; Efron and Morris 1975), with the priors in `priors`.
"""

from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.pooled.formula import Formula
from autoscale_exp.laws.pooled.model_size import Size
from autoscale_exp.laws.pooled.priors import (
    EARLY_DECAY,
    EARLY_TOKENS,
    GENERIC_WEIGHT,
    OTHER_WEIGHT,
    OWN_WEIGHT,
    PRIORS,
    SIZE_PRIORS,
    Prior,
    Scalar,
)

# Part of the way to their new estimates that mean and spread move in a round. Undamped, estimates from few parameters
# oscillate.
STEP = 0.5
# The prior spread counts as this many parameters.
SPREAD_COUNT = 6.0
# Standard deviation of row and column effects of weights, in prior spreads: a domain may help all, or need all.
EFFECT_SD = 0.5
# Most of the irreducible loss of a law of one size that may be due to a lack of capacity.
MOST_LACK = 0.8
BACKFITS = 10  # iterations for row and column effects, which converge within a few
# This quantile of the losses sets the scale of irreducible losses. One outlier does not move it much.
LOW_QUANTILE = 0.02
SMALLEST_GAP = 0.1  # nats; the least gap of median to irreducible loss, for amplitudes if all runs do equally well


@dataclass(frozen=True)
class Population:
    """Parameters with a mean and a spread in common.

    Attributes:
        rows: (M,) validation domain of each parameter.
        columns: (M,) its column among the P.
        prior: prior of mean and spread.
        crossed: whether each row and each column has an effect of its own, as for the weights of other domains.
    """

    rows: Int64Array
    columns: Int64Array
    prior: Prior
    crossed: bool

    @property
    def index(self) -> tuple[Int64Array, Int64Array]:
        """Index of its parameters in a (V, P) array."""
        return self.rows, self.columns

    @property
    def effect_sd(self) -> float:
        """Standard deviation of the effects of rows and of columns."""
        return EFFECT_SD * self.prior.spread

    def centres(self, said: FloatArray, weights: FloatArray) -> FloatArray:
        """Estimates the (M,) expected parameters, less the prior's mean.

        Args:
            said: (M,) what the losses alone say of each parameter, less the prior's mean.
            weights: (M,) precisions of these.
        """
        mean = (weights * said).sum() / (weights.sum() + self.prior.mean_sd**-2)
        if not self.crossed:
            return np.full(len(said), mean)
        row, column = np.zeros(self.rows.max() + 1), np.zeros(self.columns.max() + 1)
        row_weight = np.bincount(self.rows, weights) + self.effect_sd**-2
        column_weight = np.bincount(self.columns, weights) + self.effect_sd**-2
        for _ in range(BACKFITS):
            row = np.bincount(self.rows, weights * (said - mean - column[self.columns])) / row_weight
            column = np.bincount(self.columns, weights * (said - mean - row[self.rows])) / column_weight
        return np.asarray(mean + row[self.rows] + column[self.columns])

    def unknown_effects(self, shape: tuple[int, ...]) -> FloatArray:
        """(V, P, M) what M standard normal unknowns, the mean and the row and column effects, add to the parameters."""
        by_unknown = np.full((len(self.rows), 1), self.prior.mean_sd)
        if self.crossed:
            rows, columns = (np.unique(index) == index[:, None] for index in (self.rows, self.columns))
            by_unknown = np.hstack([by_unknown, self.effect_sd * rows, self.effect_sd * columns])
        effects = np.zeros((*shape, by_unknown.shape[1]))
        effects[self.index] = by_unknown
        return effects


def populations_of(formula: Formula) -> list[Population]:
    """Lists all populations: one of each scalar, and four of weights: own or other domains, specific or generic."""
    every = np.arange(len(formula.own))
    priors_of = PRIORS | {Scalar.GENERIC_AMPLITUDE: early_prior(formula)}
    if formula.reference_params is not None:
        priors_of |= {formula.size_columns.start + size: prior for size, prior in SIZE_PRIORS.items()}
    populations = [Population(every, np.full(len(every), column), prior, False) for column, prior in priors_of.items()]
    specific, generic = formula.specific_weights.start, formula.generic_weights.start
    for of_own, priors in ((True, (OWN_WEIGHT, GENERIC_WEIGHT)), (False, (OTHER_WEIGHT, GENERIC_WEIGHT))):
        rows, domains = np.nonzero(formula.is_own == of_own)
        if len(rows):
            for start, prior in zip((specific, generic), priors, strict=True):
                populations.append(Population(rows, domains + start, prior, crossed=not of_own))
    return populations


def early_prior(formula: Formula) -> Prior:
    """Prior of the generic amplitude at the smallest runs, where what any text teaches may be learnt long since."""
    prior = PRIORS[Scalar.GENERIC_AMPLITUDE]
    smallest = formula.reference_tokens / np.exp(formula.log_generic_unit)
    lower = EARLY_DECAY * max(0.0, float(np.log(smallest / EARLY_TOKENS)))
    return Prior(prior.mean - lower, float(np.hypot(prior.mean_sd, lower / 3)), prior.spread)


def prior_means(formula: Formula, populations: list[Population], losses: FloatArray) -> FloatArray:
    """Returns the (V, P) prior means, with irreducible losses and amplitudes in units of the (R, V) losses."""
    means = np.empty((len(formula.own), formula.num_params))
    for population in populations:
        means[population.index] = population.prior.mean
    low = np.quantile(losses, LOW_QUANTILE, axis=0)
    gap = np.median(losses, axis=0) - np.exp(PRIORS[Scalar.IRREDUCIBLE].mean) * low
    means[:, Scalar.IRREDUCIBLE] += np.log(low)
    amplitudes = [Scalar.SPECIFIC_AMPLITUDE, Scalar.GENERIC_AMPLITUDE]
    if formula.reference_params is not None:
        amplitudes.append(formula.size_columns.start + Size.AMPLITUDE)
    means[:, amplitudes] += np.log(np.maximum(gap, SMALLEST_GAP))[:, None]
    return means


def update_populations(
    populations: list[Population],
    prior_mean: FloatArray,
    mean: FloatArray,
    spread: FloatArray,
    theta: FloatArray,
    variance: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Returns (V, P) means and spreads after a round, from the parameters `theta` that were fitted under the old ones.

    Args:
        populations: all populations of parameters.
        prior_mean: (V, P) means before any run was seen.
        mean: (V, P) means that theta was fitted under.
        spread: (V, P) spreads that theta was fitted under.
        theta: (V, P) fitted parameters.
        variance: (V, P) variances of theta, from losses and populations together.
    """
    mean, spread = mean.copy(), spread.copy()
    precision = np.maximum(1 / variance - spread**-2.0, 1e-9)  # of what the losses alone say
    said = (theta / variance - mean * spread**-2.0) / precision - prior_mean
    for population in populations:
        index = population.index
        old_spread = float(spread[index][0])
        weights = 1 / (1 / precision[index] + old_spread**2)
        centres = population.centres(said[index], weights)
        squares = (theta[index] - prior_mean[index] - centres) ** 2 + variance[index]
        mean[index] += STEP * (prior_mean[index] + centres - mean[index])
        count = SPREAD_COUNT * population.prior.spread**2
        target = (squares.sum() + count) / (len(squares) + SPREAD_COUNT)
        spread[index] *= (target / old_spread**2) ** (STEP / 2)
    return mean, spread


def unknown_effects(populations: list[Population], shape: tuple[int, ...]) -> FloatArray:
    """(V, P, M) what the unknown means and effects of all populations add to the parameters."""
    return np.concatenate([population.unknown_effects(shape) for population in populations], axis=2)


def prior_sizes(theta: FloatArray, rng: np.random.Generator | None) -> FloatArray:
    """Returns (D, V, P + 4) parameters: those of a law of one size, (D, V, P), and parameters of model size.

    The latter are the priors' means or, given `rng`, drawn from the priors. The loss by a lack of capacity is taken
    from the irreducible loss, so that losses at the one size stay as they are.
    """
    shape = theta.shape[:-1]
    columns = []
    for prior in SIZE_PRIORS.values():
        means, deviations = (
            (np.zeros((len(theta), 1)), np.zeros(shape))
            if rng is None
            else (
                rng.standard_normal((len(theta), 1)),
                rng.standard_normal(shape),
            )
        )
        columns.append(prior.mean + prior.mean_sd * means + prior.spread * deviations)
    size, floor = np.stack(columns, axis=-1), np.exp(theta[..., Scalar.IRREDUCIBLE])
    lack = np.minimum(np.exp(size[..., Size.AMPLITUDE]) * floor, MOST_LACK * floor)
    size[..., Size.AMPLITUDE] = np.log(lack)
    theta = theta.copy()
    theta[..., Scalar.IRREDUCIBLE] = np.log(floor - lack)
    return np.concatenate([theta, size], axis=-1)
