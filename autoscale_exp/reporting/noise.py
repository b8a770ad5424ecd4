"""The noise of means over few seeds. Mixtures lend one another what they show of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from autoscale_exp.base.arrays import FloatArray

CONFIDENCE = 0.9  # level of intervals, as in a fit
MOST_SEEDS = 100  # most seeds to consider for settling a question


@dataclass(frozen=True)
class Noise:
    """The noise of one mixture's difference from the reference.

    Attributes:
        deviation: standard deviation of the difference at a single seed.
        prior: degrees of freedom that the differences of other mixtures lend.
        sharing: number of independent mixtures that all differences are worth; it limits the degrees of freedom.
    """

    deviation: float
    prior: float
    sharing: float

    def margin(self, num_seeds: int) -> float:
        """Half the width of the 90 % interval of the mean over `num_seeds` seeds, by Student's t."""
        own = num_seeds - 1
        freedom = min(own + self.prior, own * self.sharing)
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * self.deviation / math.sqrt(num_seeds)

    def seeds_to_settle(self, mean: float, num_seeds: int) -> int | None:
        """Seeds in all at which the interval would leave zero out for the same mean; None if above `MOST_SEEDS`."""
        more = range(num_seeds + 1, MOST_SEEDS + 1)
        return next((count for count in more if abs(mean) > self.margin(count)), None)


def noise_of_differences(differences: FloatArray) -> list[Noise]:
    """Estimates the noise of each mixture's difference from one reference.

    Each variance is estimated by its own seeds, and drawn towards those of the other mixtures, the more so the more
    alike they are. Two seeds alone tell little, but a mixture whose runs are erratic must not blur the others.

    Source: Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3 (1), article 3, section 6: the
    variances have a scaled inverse chi-squared prior, whose parameters are found from the moments of their logarithms.
    Departure: the degrees of freedom are no more than those of all differences together. These share the reference's
    runs, so that two of them correlate by 1/2 and their squares by 1/4, which leaves K / (1 + (K - 1) / 4) mixtures'.

    Args:
        differences: (K, seeds) differences, with two or more seeds.

    Returns:
        (K,) noise; for a single mixture, that of the paired t test.
    """
    count, own = len(differences), differences.shape[1] - 1
    variances = differences.var(axis=1, ddof=1)
    sharing = count / (1 + (count - 1) / 4)
    if count == 1:
        return [Noise(math.sqrt(variances[0]), 0.0, sharing)]
    alike = Noise(math.sqrt(variances.mean()), math.inf, sharing)
    if not variances.all():  # 0 has no logarithm
        return [alike] * count
    logarithms = np.log(variances)
    beyond_chance = float(logarithms.var(ddof=1) - special.polygamma(1, own / 2))
    if beyond_chance <= 0:
        return [alike] * count
    prior = 2 * _inverse_trigamma(beyond_chance)
    centre = logarithms.mean() - special.digamma(own / 2) + special.digamma(prior / 2) - math.log(prior / own)
    moderated = (prior * math.exp(centre) + own * variances) / (prior + own)
    return [Noise(math.sqrt(variance), prior, sharing) for variance in moderated]


def _inverse_trigamma(value: float) -> float:
    """The x > 0 whose trigamma function is `value`: between 1 / value and that plus the square root."""
    low, high = 1 / value / 2, 1 / value + 1 / math.sqrt(value)
    return float(optimize.brentq(lambda x: special.polygamma(1, x) - value, low, high))


def mean_margin(values: Sequence[FloatArray]) -> float | None:
    """Half the width of the 90 % interval of each group's mean over seeds, by Student's t; None for single seeds.

    The groups are of equal size, and their noise is pooled, as two seeds that happen to agree make nothing certain.
    """
    num_seeds = len(values[0])
    freedom = len(values) * (num_seeds - 1)
    if not freedom:
        return None
    deviation = math.sqrt(sum(float(((group - group.mean()) ** 2).sum()) for group in values) / freedom)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * deviation / math.sqrt(num_seeds)
