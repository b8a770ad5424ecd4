"""Intervals for optima: the fit repeated on losses as other seeds might have given them."""

from dataclasses import dataclass

import numpy as np

from autoscale_exp.laws.ddo import fit_ddo
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import Bounds
from autoscale_exp.mixture.allocation import FloatArray
from autoscale_exp.runs.record import RunTable

LEVELS = (0.05, 0.95)  # a 90 % interval


@dataclass(frozen=True)
class Intervals:
    """90 % intervals of domain weights.

    Attributes:
        scales: per scale (2, K) lower and upper ends.
        targets: per target (2, K).
        noise: standard deviation of the objective over seeds.
        num_resamples: fits made.
        failed: those among them whose path could not be extrapolated to the targets.
    """

    scales: list[FloatArray]
    targets: list[FloatArray]
    noise: float
    num_resamples: int
    failed: int


def noise_residuals(table: RunTable) -> FloatArray:
    """(Q, V) deviations of repeated runs from their mean, scaled to a single run's spread; Q is 0 without repeats.

    Runs repeat one another if all their domain tokens are the same.
    """
    keys = [tuple(tokens) for tokens in table.domain_tokens]
    deviations = [np.empty((0, table.losses.shape[1]))]
    for key in dict.fromkeys(keys):
        losses = table.losses[[other == key for other in keys]]
        if len(losses) > 1:
            deviations.append((losses - losses.mean(axis=0)) * np.sqrt(len(losses) / (len(losses) - 1)))
    return np.concatenate(deviations)


def resampled_intervals(
    table: RunTable, objective: Objective, bounds: Bounds, targets: list[int], *, num_resamples: int, seed: int
) -> Intervals | None:
    """Refits with a drawn deviation added to each run's losses; None if no run is repeated.

    Probes of one design share a seed, which makes their differences less noisy than two seeds are apart: the
    intervals are therefore wide rather than narrow.
    """
    residuals = noise_residuals(table)
    if not len(residuals) or num_resamples < 1:
        return None
    rng = np.random.default_rng(seed)
    scales, extrapolated, failed = [], [], 0
    for _ in range(num_resamples):
        signs = rng.choice([-1.0, 1.0], size=(len(table.runs), 1))
        losses = table.losses + signs * residuals[rng.integers(len(residuals), size=len(table.runs))]
        try:
            law = fit_ddo(table, objective, bounds, losses=losses)
            optima = [law.scale_optimum(scale).weights for scale in law.scales]
            path = law.path() if targets else None
            extrapolated.append([path.optimum(budget).weights for budget in targets] if path else [])
            scales.append(optima)
        except ValueError:
            failed += 1
    if not scales:
        return None
    noise = float(np.std(objective(table.losses.mean(axis=0) + residuals), ddof=0))
    return Intervals(_quantiles(scales), _quantiles(extrapolated), noise, num_resamples, failed)


def _quantiles(weights: list[list[FloatArray]]) -> list[FloatArray]:
    return [np.quantile(np.array(of_entry), LEVELS, axis=0) for of_entry in zip(*weights, strict=True)]
