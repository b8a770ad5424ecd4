"""Fits the pooled transfer law: robust, with populations of parameters and noise estimated along.

Rounds of (1) the most probable parameters, by Levenberg-Marquardt; (2) Student-t weights of the losses and the noise
(iteratively reweighted least squares: Lange, Little and Taylor 1989), with noise that falls with the token budget and
that a run's validation losses share in part; (3) the populations. Then the covariance of the parameters: Laplace's
approximation in its sandwich form (Huber 1967; White 1982), calibrated on left-out runs.

R runs, V validation domains, P parameters of each.
"""

from dataclasses import dataclass, replace

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.pooled.formula import Formula
from autoscale_exp.laws.pooled.populations import marginal_precision, populations_of, prior_means, update_populations

ROUNDS = 8  # halving the distance to the populations each time leaves less than 1 %
JOINT_ROUNDS = 3  # the last rounds, in which losses of a run are taken to share noise
ITERATIONS = 100  # of a solve, which most end far sooner
RETRIES = 8  # of a step that did not lower the cost, each more damped
LONGEST_STEP = 2.0  # of a logarithm at once
TOLERANCE = 1e-6  # relative decrease of the cost at which a solve ends
HIGHEST_DAMPING = 1e4  # at which no step helps any more: a minimum to machine precision

# Zero shares of RegMix are rounded ones and their losses outliers, up to 1.8 nats off; 4 is the usual robust choice
# (Lange et al. 1989).
STUDENT_DF = 4.0
NOISE_SD = 1.25  # standard deviation of Gaussian noise over the scale of the Student-t fitted to it
NOISE_STEPS = 6  # of weights and noise in turn, which settle within a few
NOISE_FLOOR = 0.002  # nats: what rounding and evaluation leave of any loss
NOISE_COUNT = 4.0  # the noise pooled over validation domains counts as so many runs
FIRST_NOISE = 0.05  # nats, in the first round
BUDGET_COUNT = 1.0  # "noise is the same at any budget" counts as this sum of squares of log tokens
SHARED_COUNT = 10.0  # the prior correlation of a run's losses counts as so many runs
SHARED_PRIOR = 0.5
# The part of what validation domains share in a run that is taken for noise. The rest may be an error of the law, which
# weights by correlation would hide: 1 costs RegMix .0004 of Spearman, 0 or 1 lose a target of seven_tiny. Values from
# .2 to .4 do equally well; .3 was chosen with those targets in sight.
NOISE_PART = 0.3

# Variance of a Student-t fit over what its weights say: 1.4 for noise that is Student-t, 1.74 for Gaussian noise.
ROBUST_VARIANCE = 1.6
# Extra variance for what no covariance knows: the law is an approximation, and Laplace's is one too. Set on synthetic
# truths of seven forms, one of them the law's own. 90 % intervals of losses and of differences between mixtures then
# cover some 9 in 10 where the form is right or near, and far fewer where it is not (additive, exponential).
LAW_ERROR = 1.6
LEVEL, LEVEL_SD = 0.9, 1.645  # a 90 % interval, in standard deviations to either side
HIGHEST_LEVERAGE = 0.95  # above which left-out residuals are too uncertain to go by
HIGHEST_INFLATION = 9.0  # of the covariance by calibration

NUM_DRAWS = 200
SEED = 0  # of the draws, that a table has one fit
DRAW_ITERATIONS = 5  # bring a draw's losses within a small part of their own deviation of where they belong
NUM_ANCHORS = 64  # runs at which draws are held to their losses; more take longer and change nothing
DRAWS_AT_ONCE = 20  # bounds memory


@dataclass(frozen=True)
class Solution:
    """Most probable parameters under given noise and populations.

    Attributes:
        theta: (V, P).
        residuals: (R, V) losses less the formula's.
        jacobian: (V, R, P) of the losses, each row over its standard deviation.
        variance: (V, P) of theta.
        num_used: (V,) effective number of parameters.
        converged: whether no step lowers the cost any more.
    """

    theta: FloatArray
    residuals: FloatArray
    jacobian: FloatArray
    variance: FloatArray
    num_used: FloatArray
    converged: bool


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
class PooledFit:
    """Outcome of the fit.

    Attributes:
        theta: (V, P) most probable parameters.
        covariance: (V P, V P) of them.
        draws: (D, V, P) parameters drawn from what the runs leave open.
        mean: (V, P) of their populations.
        spread: (V, P) of their populations.
        noise: of the runs.
        converged: whether the last solve did.
    """

    theta: FloatArray
    covariance: FloatArray
    draws: FloatArray
    mean: FloatArray
    spread: FloatArray
    noise: Noise
    converged: bool


def fit_pooled(formula: Formula, domain_tokens: FloatArray, losses: FloatArray) -> PooledFit:
    """Fits the formula to runs with domain tokens (R, K) and losses (R, V)."""
    (num_runs, num_validation), populations = losses.shape, populations_of(formula)
    prior_mean = prior_means(formula, populations, losses)
    mean, spread = prior_mean.copy(), np.empty_like(prior_mean)
    for population in populations:
        prior = population.prior
        # With one validation domain there is no population to see: its parameters are as uncertain as mean and member.
        spread[population.index] = prior.spread if num_validation > 1 else np.hypot(prior.spread, prior.mean_sd)
    log_tokens = formula.log_tokens(domain_tokens)
    log_total = np.log(domain_tokens.sum(axis=1))
    noise = Noise(np.full(num_validation, FIRST_NOISE), np.ones(num_runs), 0.0, np.ones_like(losses))
    theta = prior_mean
    for step in range(ROUNDS):
        solution = _solve(formula, theta, log_tokens, losses, mean, spread, noise)
        theta = solution.theta
        noise = _estimate_noise(solution, log_total, noise)
        if step < ROUNDS - 1 and num_validation > 1:
            if step >= ROUNDS - 1 - JOINT_ROUNDS:
                noise = _estimate_sharing(solution, noise)
            mean, spread = update_populations(populations, prior_mean, mean, spread, theta, solution.variance)
    covariance = _posterior_covariance(solution, noise, marginal_precision(populations, spread))
    draws = _draw(formula, theta, covariance, log_tokens, spread, noise, np.random.default_rng(SEED))
    return PooledFit(theta, covariance, draws, mean, spread, noise, solution.converged)


def correlation_matrix(correlation: float, size: int) -> FloatArray:
    """(V, V) with one correlation between all."""
    return np.full((size, size), float(correlation)) + (1 - correlation) * np.eye(size)


def _solve(
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
    inverse_correlation = _inverse(correlation_matrix(noise.weighting, losses.shape[1]))
    shape = (1, theta.size) if noise.weighting else theta.shape  # (systems, parameters)
    diagonal = np.arange(shape[1])

    def cost(residuals: FloatArray, theta: FloatArray) -> FloatArray:
        scaled = root * residuals
        by_domain = (scaled @ inverse_correlation * scaled).sum(axis=0) + (prior * (theta - mean) ** 2).sum(axis=1)
        return by_domain.reshape(shape[0], -1).sum(axis=1)

    def linearise(theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        terms = formula.terms(theta, log_tokens)
        jacobian = formula.jacobian(theta, log_tokens, terms)
        jacobian *= root.T[:, :, None]
        if noise.weighting:
            return terms.losses, jacobian, joint_information(jacobian, inverse_correlation)[None]
        return terms.losses, jacobian, jacobian.transpose(0, 2, 1) @ jacobian

    predicted, jacobian, information = linearise(theta)
    now, damping = cost(predicted - losses, theta), np.full(shape[0], 1e-2)
    done = np.zeros(shape[0], dtype=bool)
    for _ in range(iterations or ITERATIONS):
        scaled = (root * (predicted - losses)) @ inverse_correlation
        gradient = (scaled.T[:, None, :] @ jacobian)[:, 0] + prior * (theta - mean)
        for _ in range(RETRIES):
            damped = information.copy()
            damped[:, diagonal, diagonal] += prior.reshape(shape)
            damped[:, diagonal, diagonal] *= 1 + damping[:, None]
            step = np.linalg.solve(damped, gradient.reshape(*shape, 1)).reshape(theta.shape)
            trial = theta - np.clip(step, -LONGEST_STEP, LONGEST_STEP)
            trial_cost = cost(formula.terms(trial, log_tokens).losses - losses, trial)
            better = ~done & (trial_cost <= now)  # who is done stays, so that no domain waits on rounding in another
            done |= np.where(better, now - trial_cost < TOLERANCE * (1 + now), damping > HIGHEST_DAMPING)
            moved = np.broadcast_to(better[:, None], shape).reshape(theta.shape)
            theta, now = np.where(moved, trial, theta), np.where(better, trial_cost, now)
            damping = np.where(better, np.maximum(damping * 0.3, 1e-9), damping * 5)
            if better.any() or done.all():
                break
        predicted, jacobian, information = linearise(theta)
        if done.all():
            break
    precision = information.copy()
    precision[:, diagonal, diagonal] += prior.reshape(shape)
    inverse = _inverse(precision)
    num_used = np.einsum("spq,sqp->sp", inverse, information).reshape(theta.shape).sum(axis=1)
    variance = inverse[:, diagonal, diagonal].reshape(theta.shape)
    return Solution(theta, losses - predicted, jacobian, variance, num_used, bool(done.all()))


def _inverse(matrices: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrices), dtype=np.float64)


def joint_information(jacobian: FloatArray, weights: FloatArray) -> FloatArray:
    """(V P, V P) sum over runs of jacobian[u] weights[u, v] jacobian[v], from (V, R, P) and (V, V)."""
    num_validation, num_runs, num_params = jacobian.shape
    flat = jacobian.transpose(1, 0, 2).reshape(num_runs, -1)
    information = flat.T @ flat
    blocks = information.reshape(num_validation, num_params, num_validation, num_params)
    blocks *= weights[:, None, :, None]
    return information


def _estimate_noise(solution: Solution, log_total: FloatArray, noise: Noise) -> Noise:
    """Noise by budget and validation domain, and the robust weights, from the residuals of a solve."""
    residuals = solution.residuals
    num_runs = len(residuals)
    log_size = np.log(np.mean((residuals / noise.sd) ** 2, axis=1) + 1e-3)  # of each run's squared deviation
    centred = log_total - log_total.mean()
    slope = centred @ (log_size - log_size.mean()) / (centred @ centred + BUDGET_COUNT)
    exponent = float(np.clip(slope, -2, 0)) / 2  # never louder with more tokens
    relative = np.exp(exponent * centred)
    scaled = residuals / relative[:, None]
    left = np.maximum(num_runs - solution.num_used, 0.1 * num_runs)  # degrees of freedom
    sd, weights = noise.sd, noise.weights
    for _ in range(NOISE_STEPS):
        weights = (STUDENT_DF + 1) / (STUDENT_DF + (scaled / sd) ** 2)
        squares = (weights * scaled**2).sum(axis=0)
        pooled = np.exp(np.mean(np.log(squares / left + 1e-12)))
        sd = np.maximum(np.sqrt((squares + NOISE_COUNT * pooled) / (left + NOISE_COUNT)), NOISE_FLOOR)
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


def _posterior_covariance(solution: Solution, noise: Noise, prior_precision: FloatArray) -> FloatArray:
    """(V P, V P) of the parameters.

    The fit weights losses as if they were correlated by `noise.weighting`, though they are by `noise.shared`, and with
    weights that depend on them: hence a sandwich. The populations' means are unknown, not given, in `prior_precision`
    (V P, V P): with few runs they are a large part of what is open about differences between mixtures.
    """
    size = len(noise.sd)
    weights = _inverse(correlation_matrix(noise.weighting, size))
    score = ROBUST_VARIANCE * weights @ correlation_matrix(noise.shared, size) @ weights
    inverse = _inverse(joint_information(solution.jacobian, weights) + prior_precision)
    covariance = inverse @ (joint_information(solution.jacobian, score) + prior_precision) @ inverse
    covariance *= LAW_ERROR * _calibration(solution, noise, inverse, covariance)
    return (covariance + covariance.T) / 2


def _calibration(solution: Solution, noise: Noise, inverse: FloatArray, covariance: FloatArray) -> float:
    """What to multiply the covariance by, at least 1, for nine in ten left-out losses to be inside their interval.

    Left-out residuals follow from the fit's leverages, without a fit more (Allen's PRESS, 1974).
    """
    explained, variance = _variances(solution.jacobian, inverse), _variances(solution.jacobian, covariance)
    kept = 1 - np.clip(explained, 0.0, HIGHEST_LEVERAGE)
    run_variance = (NOISE_SD * noise.sd * noise.relative[:, None]) ** 2
    left_out_variance = run_variance + variance / noise.root_precision**2 / kept
    deviations = np.abs(solution.residuals / kept) / np.sqrt(left_out_variance)
    return float(np.clip((np.quantile(deviations, LEVEL) / LEVEL_SD) ** 2, 1.0, HIGHEST_INFLATION))


def _variances(jacobian: FloatArray, covariance: FloatArray) -> FloatArray:
    """(R, V) variances of losses with derivatives (V, R, P) under a covariance (V P, V P)."""
    num_validation, _, num_params = jacobian.shape
    blocks = covariance.reshape(num_validation, num_params, num_validation, num_params)
    return np.stack([((own @ blocks[v, :, v]) * own).sum(axis=1) for v, own in enumerate(jacobian)], axis=1)


def _draw(
    formula: Formula,
    theta: FloatArray,
    covariance: FloatArray,
    log_tokens: FloatArray,
    spread: FloatArray,
    noise: Noise,
    rng: np.random.Generator,
) -> FloatArray:
    """(D, V, P) parameters from the posterior, along its curved ridges.

    Many parameters trade off against each other along ridges that bend: a Gaussian draw far along one has left it, and
    its losses are off by ten times what they are known to. So each draw is solved for anew: near the Gaussian draw,
    with losses of the runs as that draw's should be by the formula's derivatives (randomise then optimise: Bardsley,
    Solonen, Haario and Laine 2014).
    """
    (num_validation, num_params), num_runs = theta.shape, len(log_tokens)
    anchors = np.sort(rng.permutation(num_runs)[:NUM_ANCHORS])
    log_tokens, weights = log_tokens[anchors], noise.weights[anchors] * num_runs / len(anchors)
    terms = formula.terms(theta, log_tokens)
    jacobian = formula.jacobian(theta, log_tokens, terms)
    values, vectors = np.linalg.eigh(covariance)  # which Cholesky's root may not survive: it spans twelve orders
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws = []
    for start in range(0, NUM_DRAWS, DRAWS_AT_ONCE):
        size = min(DRAWS_AT_ONCE, NUM_DRAWS - start)
        deviation = (rng.standard_normal((size, len(root))) @ root.T).reshape(size, num_validation, num_params)
        losses = terms.losses.T + (jacobian @ deviation[:, :, :, None])[:, :, :, 0]  # (size, V, anchors)
        # Draws are solved side by side, as if they were further validation domains.
        solution = _solve(
            replace(formula, own=np.tile(formula.own, size)),
            (theta + deviation).reshape(-1, num_params),
            log_tokens,
            losses.reshape(-1, len(anchors)).T,
            (theta + deviation).reshape(-1, num_params),
            np.tile(spread, (size, 1)),
            Noise(np.tile(noise.sd, size), noise.relative[anchors], noise.exponent, np.tile(weights, (1, size))),
            DRAW_ITERATIONS,
        )
        draws.append(solution.theta.reshape(deviation.shape))
    return np.concatenate(draws)
