"""Fits the pooled transfer law: robust, with populations of parameters and noise estimated along.

Rounds of (1) the most probable parameters, by Levenberg-Marquardt; (2) Student-t weights of the losses and the noise
(iteratively reweighted least squares: Lange, Little and Taylor 1989), with noise that falls with the token budget and
that a run's validation losses share in part; (3) the populations. Then draws of the parameters (see `posterior`).

R runs, V validation domains, P parameters of each.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.progress import Progress
from autoscale_exp.laws.least_squares import Solution, solve
from autoscale_exp.laws.pooled.formula import Formula
from autoscale_exp.laws.pooled.populations import populations_of, prior_means, unknown_effects, update_populations
from autoscale_exp.laws.pooled.posterior import Posterior, draw_parameters
from autoscale_exp.laws.pooled.solution import FormulaCurve, Noise, pooled_problem
from autoscale_exp.laws.repetition import effective_tokens
from autoscale_exp.laws.student_t import noise_scale

log = logging.getLogger(__name__)

ROUNDS = 8  # halving the distance to the populations each time leaves less than 1 %
# Of the last round, which most end sooner, and of those before: what these leave, the next takes up, while populations
# and noise still move.
ITERATIONS, EARLY_ITERATIONS = 100, 50
JOINT_ROUNDS = 3  # the last rounds, in which losses of a run are taken to share noise

NOISE_FLOOR = 0.002  # nats: what rounding and evaluation leave of any loss
FIRST_NOISE = 0.05  # nats, in the first round
BUDGET_COUNT = 1.0  # "noise is the same at any budget" counts as this sum of squares of log tokens
SHARED_COUNT = 10.0  # the prior correlation of a run's losses counts as so many runs
SHARED_PRIOR = 0.5
# The part of what validation domains share in a run that is taken for noise. The rest may be an error of the law, which
# weights by correlation would hide: 1 costs RegMix .0004 of Spearman, 0 or 1 lose a target of seven_tiny. Values from
# .2 to .4 do equally well; .3 was chosen with those targets in sight.
NOISE_PART = 0.3

SEED = 0  # of the draws, that a table has one fit


@dataclass(frozen=True)
class PooledFit:
    """Outcome of the fit.

    Attributes:
        theta: (V, P) most probable parameters.
        draws: makes (D, V, P) parameters drawn from what the runs leave open.
        mean: (V, P) of their populations.
        spread: (V, P) of their populations.
        noise: of the runs.
        converged: whether the last solve did.
    """

    theta: FloatArray
    draws: Callable[[], FloatArray]
    mean: FloatArray
    spread: FloatArray
    noise: Noise
    converged: bool


def fit_pooled(
    formula: Formula,
    domain_tokens: FloatArray,
    losses: FloatArray,
    params: FloatArray | None = None,
    pool_tokens: FloatArray | None = None,
) -> PooledFit:
    """Fits the formula to runs.

    Args:
        formula: of the losses.
        domain_tokens: (R, K).
        losses: (R, V).
        params: (R,) model sizes, if the formula takes them.
        pool_tokens: (R, K) tokens of the text that a run saw; None where nothing is repeated.
    """
    (num_runs, num_validation), populations = losses.shape, populations_of(formula)
    prior_mean = prior_means(formula, populations, losses)
    mean, spread = prior_mean.copy(), np.empty_like(prior_mean)
    for population in populations:
        prior = population.prior
        # With one validation domain there is no population to see: its parameters are as uncertain as mean and member.
        spread[population.index] = prior.spread if num_validation > 1 else np.hypot(prior.spread, prior.mean_sd)
    points = formula.points(domain_tokens, params, pool_tokens)
    curve = FormulaCurve(formula, points)
    log_total = np.log(effective_tokens(domain_tokens, pool_tokens)[0].sum(axis=1))
    noise = Noise(np.full(num_validation, FIRST_NOISE), np.ones(num_runs), 0.0, np.ones_like(losses))
    theta = prior_mean
    progress = Progress(log, f"law of {num_validation} validation domains")
    for step in range(ROUNDS):
        progress.tell(f"round {step + 1} of {ROUNDS}")
        iterations = ITERATIONS if step == ROUNDS - 1 else EARLY_ITERATIONS
        problem = pooled_problem(curve, losses, (mean, spread), noise.root_precision, noise.weighting)
        solution = solve(problem, theta, iterations)
        theta = solution.theta
        noise = _estimate_noise(solution, log_total, noise)
        if step < ROUNDS - 1 and num_validation > 1:
            if step >= ROUNDS - 1 - JOINT_ROUNDS:
                noise = _estimate_sharing(solution, noise)
            mean, spread = update_populations(populations, prior_mean, mean, spread, theta, solution.variance)

    def draws() -> FloatArray:
        progress.tell("draws of the parameters")
        posterior = Posterior(solution, noise, spread, unknown_effects(populations, spread.shape))
        return draw_parameters(curve, solution, posterior, np.random.default_rng(SEED))

    return PooledFit(theta, draws, mean, spread, noise, bool(solution.converged.all()))


def _estimate_noise(solution: Solution, log_total: FloatArray, noise: Noise) -> Noise:
    """Noise by budget and validation domain, and the robust weights, from the residuals of a solve."""
    residuals = solution.residuals
    log_size = np.log(np.mean((residuals / noise.sd) ** 2, axis=1) + 1e-3)  # of each run's squared deviation
    centred = log_total - log_total.mean()
    slope = centred @ (log_size - log_size.mean()) / (centred @ centred + BUDGET_COUNT)
    exponent = float(np.clip(slope, -2, 0)) / 2  # never louder with more tokens
    relative = np.exp(exponent * centred)
    scaled = residuals / relative[:, None]
    sd, weights = noise_scale(scaled, solution.num_used, noise.sd, NOISE_FLOOR)
    return replace(noise, sd=sd, relative=relative, exponent=exponent, weights=weights)


def _estimate_sharing(solution: Solution, noise: Noise) -> Noise:
    """The correlation of a run's losses, such as a seed or a schedule causes, from the residuals of a solve."""
    scaled = noise.root_precision * solution.residuals
    num_runs, num_validation = scaled.shape
    left = max(num_runs - solution.num_used.mean(), 1.0)
    excess = (scaled.mean(axis=1) ** 2).mean() * num_validation / (scaled**2).mean() - 1  # (V - 1) correlation
    shared = (excess / (num_validation - 1) * left + SHARED_PRIOR * SHARED_COUNT) / (left + SHARED_COUNT)
    shared = float(np.clip(shared, 0.0, 0.95))
    return replace(noise, shared=shared, weighting=NOISE_PART * shared)
