"""Compares mixtures with a reference, seed by seed: how much lower or higher they end, and whether beyond the noise."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoscale_exp.reporting.noise import noise_of_differences
from autoscale_exp.reporting.target_runs import MixtureRuns


@dataclass(frozen=True)
class Difference:
    """The final objective of a mixture less that of the reference, seed by seed; lower is better.

    Attributes:
        mixture: name of the mixture.
        reference: name of the reference.
        mean: mean over seeds.
        interval: 90 % interval of the mean by Student's t; None for a single seed.
        base: mean objective of the reference, in which shares are told.
        num_seeds: number of seeds compared.
        seeds_to_settle: seeds in all at which an interval of the same mean and noise would leave zero out; None
            if it already does, if the noise is unknown, or if `MOST_SEEDS` would not be enough.
    """

    mixture: str
    reference: str
    mean: float
    interval: tuple[float, float] | None
    base: float
    num_seeds: int
    seeds_to_settle: int | None

    @property
    def is_better(self) -> bool:
        """Whether the mixture ends lower by more than the noise."""
        return self.interval is not None and self.interval[1] < 0

    @property
    def is_worse(self) -> bool:
        """Whether the mixture ends higher by more than the noise."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def within_noise(self) -> bool:
        """Whether nothing can be told: the interval contains zero, or there is none."""
        return not (self.is_better or self.is_worse)

    @property
    def verdict(self) -> str:
        """The verdict, in two words at most."""
        if self.interval is None:
            return "one seed"
        return "better" if self.is_better else "worse" if self.is_worse else "within noise"


def compare(mixtures: Mapping[str, MixtureRuns], reference: str) -> dict[str, Difference]:
    """Compares every other mixture with the reference, by name.

    Runs of one seed have the same initial weights and the same order of each domain's rows, so mixtures are
    compared seed by seed. `noise_of_differences` estimates the noise; for two mixtures this is the paired t test.
    """
    base = mixtures[reference].final
    num_seeds = len(base)
    by_seed = {name: mixture.final - base for name, mixture in mixtures.items() if name != reference}
    if num_seeds == 1 or not by_seed:
        return {
            name: Difference(name, reference, float(own[0]), None, float(base[0]), num_seeds, None)
            for name, own in by_seed.items()
        }
    differences = {}
    for (name, own), noise in zip(by_seed.items(), noise_of_differences(np.stack([*by_seed.values()])), strict=True):
        mean, margin = float(own.mean()), noise.margin(num_seeds)
        differences[name] = Difference(
            mixture=name,
            reference=reference,
            mean=mean,
            interval=(mean - margin, mean + margin),
            base=float(base.mean()),
            num_seeds=num_seeds,
            seeds_to_settle=None if abs(mean) > margin else noise.seeds_to_settle(mean, num_seeds),
        )
    return differences
