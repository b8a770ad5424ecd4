"""What a law gets wrong, beside the noise of its runs: a Gaussian process over mixtures and scales on top of the law.

    loss = L_v(n) + delta_v(n) + noise         delta_v ~ GP(0, s_v s_v' k)

after Kennedy and O'Hagan (2001). Where runs are near, delta corrects the law; away from them it widens intervals. Noise
is what a repeat with another seed shows. The kernel k is of mixtures and scales (see mixture_kernel). Its rough part is
what runs scatter by about the law, less noise; validation domains share it as far as they share the residuals. Its
smooth part is each validation domain's own. Beyond the runs' budgets and sizes more of the kind comes on top, which the
runs do not tell of and which leaves the expected losses alone, and an error of level that all mixtures have in common.

A draw of delta is a path of the prior, made of random Fourier features (Rahimi and Recht 2007), conditioned on the runs
by Matheron's rule (Wilson et al. 2020), so that one draw is one function of the mixture.

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
    """How far off a law may be where no run is. Chosen on the same tables.

    Attributes:
        growth: standard deviation of what comes on top for each e-fold beyond the runs' budgets and sizes, of which no
            run tells, in those of the smooth part.
        level: standard deviation of the common error of level, as a part of what the budget does to losses.
        common: part of its variance that validation domains have in common.
    """

    growth: float = 4.0
    level: float = 0.35
    common: float = 0.7


REACH = Reach()


class Seeds(NamedTuple):
    """What seeds do where nothing is repeated: about what repeats of 20B tokens and of a million tokens differ by.

    Attributes:
        sd: standard deviation of a loss over seeds, nats, at `tokens`.
        tokens: that `sd` is for.
        decay: power of the budget that it falls as.
        repeats: how many it counts as where there are some.
    """

    sd: float = 0.003
    tokens: float = 2e10
    decay: float = 0.16
    repeats: float = 3.0


SEEDS = Seeds()
LEAST_PART = 0.1  # of the variance about the law, which is discrepancy whatever seeds may do
NUGGET = 0.15  # of the variance about the law, the least that a run's loss is taken to be off by itself
# Standard deviation, over mixtures, budgets and sizes, of the log of the variance over seeds: two in three mixtures
# have between .45 and 2.2 times the typical variance. Public reports have noise differ up to 25-fold.
NOISE_SPREAD = 0.8
SAME = 1e-3  # difference of coordinates, about that of the logs of amounts, up to which runs are repeats
TINY = 1e-12
NUM_FEATURES = 256
NUM_DRAWN = 2 * NUM_FEATURES - num_rough(NUM_FEATURES)  # the smooth ones come twice; see `seen_from`
SMALLEST_WEIGHT = 0.02  # of a robust fit: an outlier has at most 50 times the noise of others


@dataclass(frozen=True)
class Correction:
    """One function of the mixture that a law is off by; (R, V) and the like may be of several draws side by side.

    Attributes:
        discrepancy: that it is of.
        at_runs: (R, V) coefficients of the kernel to each run.
        features: (V, F) coefficients of the features; None for the mean.
        level: (V,) nats per e-fold beyond the runs.
    """

    discrepancy: "Discrepancy"
    at_runs: FloatArray
    features: FloatArray | None = None
    level: FloatArray | None = None

    def __call__(self, domain_tokens: FloatArray, params: float | None, unique_tokens: FloatArray | None) -> FloatArray:
        """(X, V) to be added to the law's losses at (X, K) tokens of a text with (K,) unique ones."""
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
        """All of several draws' in turn, as one of as many times V validation domains."""
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
        domain_tokens: (R, K) of the runs.
        params: (R,) model sizes; all 1 where the runs do not tell.
        pool_tokens: (R, K) tokens of the text that each run saw; None where the runs do not tell.
        losses: (R, V).
        sd: (V,) of delta among the runs, at their mean log budget.
        exponent: of the budget that it goes as.
        noise: (R, V) variance of a run's losses by themselves: over seeds, and at least NUGGET.
        shared: correlation of a run's losses.
        slopes: (V,) what an e-fold of the largest budgets lowers losses by, nats.
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
        """Plain JSON from which `from_content` makes the same process again."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in fields.items()}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "Discrepancy":
        """The process that `content` was made of."""
        fields: dict[str, Any] = {key: np.array(v) if isinstance(v, list) else v for key, v in content.items()}
        return cls(**fields)

    def mean(self, predicted: FloatArray) -> Correction:
        """The expected correction of a law that predicts (R, V) for the runs."""
        return Correction(self, self._conditioned(self.losses - predicted))

    def draw(self, predicted: FloatArray, rng: np.random.Generator) -> Correction:
        """A correction drawn from what the runs leave open, of a law that predicts (R, V) for them."""
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
        """(X, 2 K + 2): roots of shares, logs of shares, log budget, log size; of what repetition leaves of them."""
        if params is not None:
            params = effective_params(params, domain_tokens, unique_tokens)
        tokens = np.maximum(effective_tokens(domain_tokens, unique_tokens)[0], 0.0)
        totals = np.maximum(tokens.sum(axis=1), 1.0)
        shares = tokens / totals[:, None]
        log_size = np.broadcast_to(0.0 if params is None else np.log(params / self.params.max()), len(tokens))
        return np.column_stack([np.sqrt(shares), np.log(shares + KERNEL.least_share), np.log(totals), log_size])

    def beyond(self, points: FloatArray) -> FloatArray:
        """(X,) distance of log budget and log size from those of the runs."""
        scales, seen = points[:, -2:], self.run_points[:, -2:]
        over = np.maximum(scales - seen.max(axis=0), 0) + np.maximum(seen.min(axis=0) - scales, 0)
        return np.asarray(np.sqrt((over**2).sum(axis=1)))

    def sd_at(self, points: FloatArray) -> FloatArray:
        """(X, V) standard deviation of delta before any run is seen, but for what grows beyond the runs."""
        relative = np.exp(self.exponent * (points[:, -2] - self.run_points[:, -2].mean()))
        return np.asarray(relative[:, None] * self.sd)

    @cached_property
    def run_points(self) -> FloatArray:
        """(R, 2 K + 2) coordinates of the runs."""
        return self.coordinates(self.domain_tokens, self.params, self.pool_tokens)

    @cached_property
    def seen_from(self) -> Callable[[bytes], tuple[FloatArray, FloatArray]]:
        """Of points' bytes: the (X, R) kernel to the runs and (X, F) features. Draws ask of the same points in turn.

        The last features are of what grows beyond the runs: the smooth ones once more, and 0 among the runs.
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
        """(R, V) coefficients of the kernel from (R, V) residuals."""
        solved = (self._inverses @ residuals.T[:, :, None])[:, :, 0].T
        return np.asarray(self.sd_at(self.run_points) * solved)

    def _alike(self, rng: np.random.Generator, size: int) -> FloatArray:
        """(V, size) standard normal numbers that validation domains share in part."""
        own = rng.standard_normal((len(self.sd), size))
        return np.sqrt(1 - self.shared) * own + np.sqrt(self.shared) * rng.standard_normal(size)


def seed_variance(
    points: FloatArray, losses: FloatArray, about_law: FloatArray, relative: FloatArray, shared: float
) -> FloatArray:
    """(R, V) variances of losses over seeds: a prior's, and what repeated runs show, each for the runs near it.

    The log of what multiplies the variance of a run, in all validation domains alike, is a Gaussian process over
    mixtures, budgets and sizes. A group of repeats tells of it with the bias and variance of the log of a chi-square.
    Over the runs, the factors have a mean of 1.

    Args:
        points: (R, 2 K + 2) coordinates of the runs.
        losses: (R, V).
        about_law: (V,) variance about the law, at the runs' mean log budget.
        relative: (R,) variance at each run's budget over that.
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
    # The repeats together tell how much noise there is, better than the logs of each group do: only its place is new.
    return np.asarray(variances * (factor / factor.mean())[:, None])


def repeats_of(points: FloatArray) -> list[Int64Array]:
    """The rows of each group of two or more runs that differ in their seeds alone."""
    same = np.abs(points[:, None] - points[None, :]).max(axis=2) < SAME
    firsts = np.unique(same.argmax(axis=1))
    return [rows for rows in (np.flatnonzero(same[first]) for first in firsts) if len(rows) > 1]


def discrepancy_of(
    table: RunTable, *, sd: FloatArray, exponent: float, weights: FloatArray, shared: float, slopes: FloatArray
) -> Discrepancy:
    """The process for a law fitted to the runs of a table.

    Args:
        table: R runs.
        sd: (V,) standard deviation of losses about the law, at the runs' mean log budget.
        exponent: of the budget that it goes as.
        weights: (R, V) robust weights of the fit.
        shared: correlation of a run's deviations.
        slopes: (V,) what an e-fold of the largest budgets lowers losses by, nats.
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
