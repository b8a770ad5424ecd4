"""The discrepancy of a law, what it gets wrong beyond noise: a Gaussian process over mixtures and scales.

    loss = L_v(n) + delta_v(n) + noise         delta_v ~ GP(0, s_v s_v' k)

The model is Kennedy and O'Hagan's (2001). Near the runs delta corrects the law; away from them it widens intervals.
Noise is what a repeat with another seed shows. The kernel k is over mixtures and scales (see mixture_kernel). Its rough
part has the variance that runs have about the law, less noise. Validation domains share it as far as they share the
residuals. Its smooth part is each validation domain's own.

Beyond the runs' budgets and sizes, two terms come on top, of which the runs tell nothing: more of the smooth part, and
an error of level that all mixtures share. Both widen intervals and leave the expected losses as they are.

A draw of delta starts as a path of the prior, made of random Fourier features (Rahimi and Recht 2007). Matheron's rule
(Wilson et al. 2020) conditions it on the runs. So one draw is one function of the mixture.

R runs, K training domains, V validation domains, F features, X points.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import digamma, polygamma

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.mixture_kernel import KERNEL, kernel_between, num_rough, random_features
from autoscale_exp.laws.repetition import effective_params, effective_tokens
from autoscale_exp.runs.table import RunTable


class Reach(NamedTuple):
    """How far off a law may be beyond its runs. Chosen on the same tables as the kernel.

    Attributes:
        growth: what an e-fold beyond the runs' budgets and sizes adds to the smooth part, in its standard deviations.
        level: standard deviation of the error of level, as a part of what the budget does to losses.
        common: part of the level's variance that all validation domains share.
    """

    growth: float = 4.0
    level: float = 0.35
    common: float = 0.7


REACH = Reach()


class Seeds(NamedTuple):
    """Prior of the noise over seeds, about what repeats at 20B tokens and at a million tokens show.

    Attributes:
        sd: standard deviation of a loss over seeds at a budget of `tokens`, in nats.
        tokens: the budget that `sd` is for.
        decay: the noise falls as this power of the budget.
        repeats: the prior counts as this many repeats.
    """

    sd: float = 0.003
    tokens: float = 2e10
    decay: float = 0.16
    repeats: float = 3.0


SEEDS = Seeds()
LEAST_PART = 0.1  # smallest part of the variance about the law that is discrepancy, whatever the noise over seeds
NUGGET = 0.15  # smallest variance of a single run's noise, as a part of the variance about the law
# Standard deviation, over mixtures, budgets and sizes, of the log of the variance over seeds: two in three mixtures
# have between .45 and 2.2 times the typical variance. Public reports have noise differ up to 25-fold.
NOISE_SPREAD = 0.8
SAME = 1e-3  # largest difference of coordinates, much like logs of amounts, between runs that are repeats
TINY = 1e-12
NUM_FEATURES = 256
NUM_DRAWN = 2 * NUM_FEATURES - num_rough(NUM_FEATURES)  # smooth features count twice; see `seen_from`
SMALLEST_WEIGHT = 0.02  # smallest robust weight: an outlier has at most 50 times the noise of other runs


@dataclass(frozen=True)
class Correction:
    """One function of the mixture to be added to a law's losses. V may count the domains of several draws in turn.

    Attributes:
        discrepancy: the process that the function is of.
        at_runs: (R, V) coefficients of the kernel to each run.
        features: (V, F) coefficients of the features; None for the expected correction.
        level: (V,) error of level, nats per e-fold beyond the runs; None for the expected correction.
    """

    discrepancy: "Discrepancy"
    at_runs: FloatArray
    features: FloatArray | None = None
    level: FloatArray | None = None

    def __call__(self, domain_tokens: FloatArray, params: float | None, unique_tokens: FloatArray | None) -> FloatArray:
        """Returns the (X, V) correction of the losses at (X, K) tokens of a text with (K,) unique tokens."""
        discrepancy = self.discrepancy
        points = discrepancy.coordinates(domain_tokens, params, unique_tokens)
        kernel, features = discrepancy.seen_from(points.tobytes())
        beyond, sd = discrepancy.beyond(points), discrepancy.sd_at(points)
        sd = np.tile(sd, self.at_runs.shape[1] // sd.shape[1])
        losses = sd * (kernel @ self.at_runs)
        if self.features is not None:
            losses += sd * (features @ self.features.T)
        return losses if self.level is None else losses + beyond[:, None] * self.level

    @staticmethod
    def side_by_side(corrections: Sequence["Correction"]) -> "Correction":
        """Joins the corrections of D draws into one of D V validation domains."""
        if len(corrections) == 1:
            return corrections[0]
        return Correction(
            corrections[0].discrepancy,
            np.concatenate([each.at_runs for each in corrections], axis=1),
            np.concatenate([each.features for each in corrections if each.features is not None]),
            np.concatenate([each.level for each in corrections if each.level is not None]),
        )


@dataclass(frozen=True)
class Discrepancy:
    """The process, and the runs that it is conditioned on.

    Attributes:
        domain_tokens: (R, K) domain tokens of the runs.
        params: (R,) model sizes; all 1 if the runs do not tell theirs.
        pool_tokens: (R, K) tokens of the text that each run saw; None if the runs do not tell.
        losses: (R, V) losses of the runs.
        sd: (V,) standard deviation of delta among the runs, at their mean log budget.
        exponent: sd goes as this power of the budget.
        noise: (R, V) variance of each loss over seeds, and at least NUGGET.
        shared: correlation of the losses of one run.
        slopes: (V,) nats by which an e-fold of the largest budget lowers losses.
    """

    domain_tokens: FloatArray
    params: FloatArray
    pool_tokens: FloatArray | None
    losses: FloatArray
    sd: FloatArray
    exponent: float
    noise: FloatArray
    shared: float
    slopes: FloatArray

    def content(self) -> dict[str, Any]:
        """Returns plain JSON from which `from_content` restores the process."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in fields.items()}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "Discrepancy":
        """Restores a process from its `content`."""
        known = {key: content[key] for key in (field.name for field in dataclasses.fields(cls)) if key in content}
        arrays: dict[str, Any] = {key: np.array(v) if isinstance(v, list) else v for key, v in known.items()}
        return cls(**arrays)

    def mean(self, predicted: FloatArray) -> Correction:
        """Returns the expected correction of a law that predicts (R, V) losses for the runs."""
        return Correction(self, self._conditioned(self.losses - predicted))

    def draw(self, predicted: FloatArray, rng: np.random.Generator) -> Correction:
        """Draws a correction, of those that the runs leave open, for a law that predicts (R, V) losses for them."""
        num_runs, num_validation = self.losses.shape
        features = rng.standard_normal((num_validation, NUM_DRAWN))
        features[:, : num_rough(NUM_FEATURES)] = self._alike(rng, num_rough(NUM_FEATURES))
        noise = self._alike(rng, num_runs).T * np.sqrt(self.noise)
        path = self.sd_at(self.run_points) * (self.seen_from(self.run_points.tobytes())[1] @ features.T)
        level = np.sqrt(REACH.common) * rng.standard_normal()
        level = level + np.sqrt(1 - REACH.common) * rng.standard_normal(num_validation)
        at_runs = self._conditioned(self.losses - predicted - path - noise)
        return Correction(self, at_runs, features, REACH.level * self.slopes * level)

    def coordinates(
        self, domain_tokens: FloatArray, params: FloatArray | float | None, unique_tokens: FloatArray | None
    ) -> FloatArray:
        """(X, 2 K + 2) roots of shares, logs of shares, log budget and log size, all after repetition is discounted."""
        if params is not None:
            params = effective_params(params, domain_tokens, unique_tokens)
        tokens = np.maximum(effective_tokens(domain_tokens, unique_tokens)[0], 0.0)
        totals = np.maximum(tokens.sum(axis=1), 1.0)
        shares = tokens / totals[:, None]
        log_size = np.broadcast_to(0.0 if params is None else np.log(params / self.params.max()), len(tokens))
        return np.column_stack([np.sqrt(shares), np.log(shares + KERNEL.least_share), np.log(totals), log_size])

    def beyond(self, points: FloatArray) -> FloatArray:
        """(X,) distance of log budget and log size from the range of the runs."""
        scales, seen = points[:, -2:], self.run_points[:, -2:]
        over = np.maximum(scales - seen.max(axis=0), 0) + np.maximum(seen.min(axis=0) - scales, 0)
        return np.asarray(np.sqrt((over**2).sum(axis=1)))

    def sd_at(self, points: FloatArray) -> FloatArray:
        """(X, V) prior standard deviation of delta, without what grows beyond the runs."""
        relative = np.exp(self.exponent * (points[:, -2] - self.run_points[:, -2].mean()))
        return np.asarray(relative[:, None] * self.sd)

    @cached_property
    def run_points(self) -> FloatArray:
        """(R, 2 K + 2) coordinates of the runs."""
        return self.coordinates(self.domain_tokens, self.params, self.pool_tokens)

    @cached_property
    def seen_from(self) -> Callable[[bytes], tuple[FloatArray, FloatArray]]:
        """A function from points, as bytes, to their (X, R) kernel to the runs and their (X, F) features.

        It remembers the last points, as draws ask for the same ones in turn. The last features grow beyond the runs:
        they are the smooth features once more, and 0 among the runs.
        """
        frequencies, phases = random_features(self.domain_tokens.shape[1], NUM_FEATURES)

        @lru_cache(maxsize=4)
        def seen(content: bytes) -> tuple[FloatArray, FloatArray]:
            points = np.frombuffer(content).reshape(-1, self.run_points.shape[1])
            features = np.sqrt(2 / NUM_FEATURES) * np.cos(points @ frequencies.T + phases)
            grown = REACH.growth * self.beyond(points)[:, None] * features[:, num_rough(NUM_FEATURES) :]
            return np.add(*kernel_between(points, self.run_points)), np.hstack([features, grown])

        return seen

    @cached_property
    def _inverses(self) -> FloatArray:
        """(V, R, R) inverse covariances of the runs' losses."""
        sd, kernel = self.sd_at(self.run_points), self.seen_from(self.run_points.tobytes())[0]
        covariances = sd.T[:, :, None] * kernel * sd.T[:, None, :]
        diagonal = np.arange(len(sd))
        covariances[:, diagonal, diagonal] += self.noise.T
        return np.asarray(np.linalg.inv(covariances))

    def _conditioned(self, residuals: FloatArray) -> FloatArray:
        """(R, V) coefficients of the kernel that explain (R, V) residuals."""
        solved = (self._inverses @ residuals.T[:, :, None])[:, :, 0].T
        return np.asarray(self.sd_at(self.run_points) * solved)

    def _alike(self, rng: np.random.Generator, size: int) -> FloatArray:
        """(V, size) standard normal numbers, correlated between validation domains by `shared`."""
        own = rng.standard_normal((len(self.sd), size))
        return np.sqrt(1 - self.shared) * own + np.sqrt(self.shared) * rng.standard_normal(size)


def seed_variance(
    points: FloatArray, losses: FloatArray, about_law: FloatArray, relative: FloatArray, shared: float
) -> FloatArray:
    """Estimates the (R, V) variances of losses over seeds, from a prior and from repeated runs.

    Each run's variance is a typical one times a factor, the same in all validation domains. The log of the factor is a
    Gaussian process over mixtures, budgets and sizes, so that repeats tell most of the runs near them. A group of
    repeats measures it with the bias and variance of the log of a chi-square. Over the runs, the mean factor is 1.

    Args:
        points: (R, 2 K + 2) coordinates of the runs.
        losses: (R, V) losses of the runs.
        about_law: (V,) variance about the law, at the runs' mean log budget.
        relative: (R,) variance at each run's budget over that at the mean log budget.
        shared: correlation of a run's deviations.
    """
    groups = repeats_of(points)
    count = np.array([len(group) - 1 for group in groups])
    squares = np.array([((losses[g] - losses[g].mean(axis=0)) ** 2).sum(axis=0) / relative[g[0]] for g in groups])
    squares = squares.reshape(len(groups), losses.shape[1])
    usual = (SEEDS.sd * (np.exp(points[:, -2]) / SEEDS.tokens) ** -SEEDS.decay) ** 2 / relative
    prior_seed = np.minimum(usual.mean(), (1 - LEAST_PART) * about_law)
    seed = (SEEDS.repeats * prior_seed + squares.sum(axis=0)) / (SEEDS.repeats + count.sum())
    variances = relative[:, None] * seed
    if not groups:
        return variances
    half = count * losses.shape[1] / (1 + (losses.shape[1] - 1) * shared) / 2  # of the degrees of freedom
    told = np.log((squares / seed).mean(axis=1) / count + TINY) - digamma(half) + np.log(half)
    first, prior = points[[group[0] for group in groups]], NOISE_SPREAD**2
    covariance = prior * np.add(*kernel_between(first, first)) + np.diag(polygamma(1, half))
    near = prior * np.add(*kernel_between(points, first))
    gain = np.linalg.solve(covariance, near.T).T
    # The expected factor; before any repeat it is 1, so that the mean of the log is -prior / 2.
    factor = np.exp(gain @ (told + prior / 2) - (gain * near).sum(axis=1) / 2)
    # All repeats together tell the typical noise better than the logs of each group do, so the mean factor is set to 1.
    return np.asarray(variances * (factor / factor.mean())[:, None])


def repeats_of(points: FloatArray) -> list[Int64Array]:
    """Returns the rows of each group of two or more runs that differ only in their seeds."""
    same = np.abs(points[:, None] - points[None, :]).max(axis=2) < SAME
    firsts = np.unique(same.argmax(axis=1))
    return [rows for rows in (np.flatnonzero(same[first]) for first in firsts) if len(rows) > 1]


def discrepancy_of(
    table: RunTable, *, sd: FloatArray, exponent: float, weights: FloatArray, shared: float, slopes: FloatArray
) -> Discrepancy:
    """Makes the process for a law fitted to the runs of a table.

    Args:
        table: R runs.
        sd: (V,) standard deviation of losses about the law, at the runs' mean log budget.
        exponent: sd goes as this power of the budget.
        weights: (R, V) robust weights of the fit.
        shared: correlation of a run's deviations.
        slopes: (V,) nats by which an e-fold of the largest budget lowers losses.
    """
    params = np.ones(len(table.runs)) if table.params is None else table.params
    runs = (table.domain_tokens, params, table.pool_tokens, table.losses)
    process = Discrepancy(*runs, sd, exponent, np.ones_like(table.losses), shared, slopes)
    log_total = process.run_points[:, -2]
    relative = np.exp(2 * exponent * (log_total - log_total.mean()))
    seed = seed_variance(process.run_points, table.losses, sd**2, relative, shared)
    typical = (seed / relative[:, None]).mean(axis=0)
    rough = np.maximum(sd**2 - typical, LEAST_PART * sd**2)
    noise = np.maximum(seed, NUGGET * relative[:, None] * sd**2) / np.maximum(weights, SMALLEST_WEIGHT)
    return replace(process, sd=np.sqrt(rough / KERNEL.rough), noise=noise)
