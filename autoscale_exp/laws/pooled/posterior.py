"""The posterior of the parameters of the pooled transfer law: what the runs leave open, and draws from it.

The fit weights losses as if their correlation were `noise.weighting`, though it is `noise.shared`, and its weights
depend on the losses. So the covariance is a sandwich (Huber 1967; White 1982):

    covariance = precision^-1 score precision^-1,   precision = J'WJ + prior,   score = ROBUST_VARIANCE J'WCWJ + prior.

The populations' means and effects u are unknown too: theta = spread * e + U u. So the prior precision is
spread^-2 - spread^-2 U (I + U' spread^-2 U)^-1 U' spread^-2. With few runs, u is a large part of what is open about
differences between mixtures. Precision and score are one block per validation domain, less a term of low rank in the
columns `low`, which hold U and what a run's losses share. No matrix of size (V P, V P) is ever made.

R runs, V validation domains, P parameters of each, D draws, M columns.
"""

from dataclasses import replace

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.least_squares import Solution, minimise
from autoscale_exp.laws.normal_equations import Equicorrelation, over_domains, shared_rows
from autoscale_exp.laws.pooled.solution import FormulaCurve, Noise, pooled_problem
from autoscale_exp.laws.student_t import NOISE_SD, ROBUST_VARIANCE

# Factor on the covariance, as both the law and Laplace's method are approximations. It was set on synthetic truths of
# seven forms, one of them the law's own. With it, 90 % intervals of losses and of differences between mixtures cover
# some 9 in 10 if the form is right or near, and far fewer if it is not (additive, exponential).
LAW_ERROR = 1.3
LEVEL, LEVEL_SD = 0.9, 1.645  # a 90 % interval, and its half-width in standard deviations
HIGHEST_LEVERAGE = 0.95  # with more leverage, left-out residuals are too uncertain to go by
HIGHEST_INFLATION = 9.0  # largest factor on the covariance by calibration

NUM_DRAWS = 200
DRAW_ITERATIONS = 5  # enough to bring a draw's losses to a small part of their deviation from where they belong
NUM_ANCHORS = 64  # runs at which a draw's losses are held; more runs take longer and change nothing
NUMBERS_AT_ONCE = 4_000_000  # derivatives of draws that are solved side by side, to limit memory


class Posterior:
    """A normal approximation to the distribution of the parameters about their most probable values."""

    def __init__(self, solution: Solution, noise: Noise, spread: FloatArray, effects: FloatArray) -> None:
        """Takes a solution, its noise, and the populations' (V, P) spreads and (V, P, M') unknown effects U."""
        size = len(noise.sd)
        weights = Equicorrelation.of(noise.weighting, size).inverse()
        correlation = Equicorrelation.of(noise.shared, size)
        self.score = Equicorrelation(
            ROBUST_VARIANCE * weights.apart**2 * correlation.apart,
            ROBUST_VARIANCE * weights.together**2 * correlation.together,
            size,
        )
        self.solution, self.noise = solution, noise
        self.spread, self.effects = spread, effects
        over = effects * spread[:, :, None] ** -2.0
        self.effect_precision = np.eye(effects.shape[2]) + over_domains(effects, over)
        information = solution.jacobian.transpose(0, 2, 1) @ solution.jacobian
        diagonal = np.arange(spread.shape[1])
        blocks, self.score_blocks = weights.apart * information, self.score.apart * information
        for each in (blocks, self.score_blocks):
            each[:, diagonal, diagonal] += spread**-2.0
        self.inverse_blocks = np.linalg.inv(blocks)
        shared = shared_rows(solution.jacobian, weights.common())
        self.low = np.concatenate([shared, over], axis=2)
        self.spread_low = self.inverse_blocks @ self.low
        # Cores of the low-rank terms: low core low' in the precision (here its inverse); for the score, the core stands
        # between two of those inverses.
        inverse_core, self.score_core = np.eye(self.low.shape[2]), np.zeros((self.low.shape[2],) * 2)
        of_effects = slice(shared.shape[2], None)
        inverse_core[of_effects, of_effects] = self.score_core[of_effects, of_effects] = self.effect_precision
        shared_part = self.score.common() / weights.common() if noise.weighting else 0.0
        self.score_core[range(shared.shape[2]), range(shared.shape[2])] = shared_part
        self.inverse_capacity = np.linalg.inv(inverse_core - over_domains(self.low, self.spread_low))

    def leverages(self) -> tuple[FloatArray, FloatArray]:
        """(R, V) variances of losses in units of their noise: under the inverse precision, and under the covariance."""
        jacobian = self.solution.jacobian
        seen = jacobian @ self.spread_low  # (V, R, M)
        own = jacobian @ self.inverse_blocks  # (V, R, P)
        explained = (own * jacobian).sum(axis=2) + ((seen @ self.inverse_capacity) * seen).sum(axis=2)
        scored = own @ self.score_blocks
        middle = over_domains(self.spread_low, self.score_blocks @ self.spread_low) - self.score_core
        middle = self.inverse_capacity @ middle @ self.inverse_capacity
        variance = (scored * own).sum(axis=2) + ((seen @ middle) * seen).sum(axis=2)
        variance += 2 * ((scored @ self.spread_low @ self.inverse_capacity) * seen).sum(axis=2)
        return explained.T, variance.T

    def calibration(self) -> float:
        """The factor on the covariance, at least 1, with which nine in ten left-out losses are in their interval.

        Left-out residuals follow from the fit's leverages, without further fits (Allen's PRESS, 1974).
        """
        explained, variance = self.leverages()
        noise = self.noise
        kept = 1 - np.clip(explained, 0.0, HIGHEST_LEVERAGE)
        run_variance = (NOISE_SD * noise.sd * noise.relative[:, None]) ** 2
        left_out_variance = run_variance + variance / noise.root_precision**2 / kept
        deviations = np.abs(self.solution.residuals / kept) / np.sqrt(left_out_variance)
        return float(np.clip((np.quantile(deviations, LEVEL) / LEVEL_SD) ** 2, 1.0, HIGHEST_INFLATION))

    def deviations(self, size: int, rng: np.random.Generator) -> FloatArray:
        """(D, V, P) draws of the parameters less their most probable values, without calibration."""
        num_validation, num_runs, num_params = self.solution.jacobian.shape
        losses = rng.standard_normal((size, num_runs, num_validation))
        together = losses.mean(axis=2, keepdims=True)
        losses = np.sqrt(self.score.apart) * (losses - together) + np.sqrt(self.score.together) * together
        # A draw from the prior, times the prior's precision, has that precision as its covariance.
        parameters = rng.standard_normal((size, num_validation, num_params)) * self.spread
        parameters += np.einsum("vpm,dm->dvp", self.effects, rng.standard_normal((size, self.effects.shape[2])))
        parameters *= self.spread**-2.0
        means = np.linalg.solve(self.effect_precision, np.einsum("vpm,dvp->md", self.effects, parameters))
        parameters -= np.einsum("vpm,md->dvp", self.effects, means) * self.spread**-2.0
        right = parameters.transpose(1, 2, 0)  # (V, P, D)
        right = right + self.solution.jacobian.transpose(0, 2, 1) @ losses.transpose(2, 1, 0)
        spread = self.inverse_capacity @ over_domains(self.spread_low, right)
        return np.asarray((self.inverse_blocks @ right + self.spread_low @ spread).transpose(2, 0, 1))


def draw_parameters(
    curve: FormulaCurve, solution: Solution, posterior: Posterior, rng: np.random.Generator
) -> FloatArray:
    """Draws (D, V, P) parameters from the posterior, along its curved ridges.

    Many parameters trade off along ridges that bend. A Gaussian draw far along a ridge has left it, and its losses are
    off by ten times their uncertainty. So each draw is solved for anew, near the Gaussian draw: the losses of the runs
    must be what the formula's derivatives give for that draw (randomise then optimise: Bardsley, Solonen, Haario and
    Laine 2014).
    """
    theta, noise, num_runs = solution.theta, posterior.noise, len(curve.points.log_tokens)
    num_params = theta.shape[1]
    deviations = posterior.deviations(NUM_DRAWS, rng) * np.sqrt(LAW_ERROR * posterior.calibration())
    anchors = np.sort(rng.permutation(num_runs)[:NUM_ANCHORS])
    curve = replace(curve, points=curve.points.at(anchors))
    root = noise.root_precision[anchors] * np.sqrt(num_runs / len(anchors))
    terms = curve.at(theta)
    jacobian = curve.jacobian(theta, terms)
    draws = []
    for deviation in np.array_split(deviations, -(-NUM_DRAWS * jacobian.size // NUMBERS_AT_ONCE)):
        size = len(deviation)
        losses = terms.losses.T + (jacobian @ deviation[:, :, :, None])[:, :, :, 0]  # (size, V, anchors)
        centre = (theta + deviation).reshape(-1, num_params)
        # Draws are solved side by side, as if they were more validation domains.
        problem = pooled_problem(
            curve.of(np.tile(np.arange(len(theta)), size)),
            losses.reshape(-1, len(anchors)).T,
            (centre, np.tile(posterior.spread, (size, 1))),
            np.tile(root, (1, size)),
        )
        draws.append(minimise(problem, centre, DRAW_ITERATIONS)[0].reshape(deviation.shape))
    return np.concatenate(draws)
