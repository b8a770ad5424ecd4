"""A sampler whose stages are added during the run, for mixtures that follow the training losses."""

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.mixture.allocation import allocate_rows
from autoscale_exp.mixture.sampler import MixtureSampler


class GrowingSampler:
    """The `MixtureSampler` of the stages so far. These never change, and the rest is unknown.

    Args:
        plan: a sampler with the pools, seed, epochs and number of rows of the run; its own stages do not matter.

    Attributes:
        sampler: the sampler of the stages so far.
        num_rows: rows of the whole run.
    """

    def __init__(self, plan: MixtureSampler) -> None:
        self.sampler = plan.with_stages(np.empty((0, len(plan.domains)), np.int64))
        self.num_rows = plan.num_rows

    @property
    def known_rows(self) -> int:
        """Rows of the stages so far."""
        return self.sampler.num_rows

    def rows(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """The rows at positions start .. stop - 1 of the stages so far; see `MixtureSampler.rows`."""
        return self.sampler.rows(start, stop)

    def append(self, row_counts: Int64Array) -> None:
        """Adds the next stage, of (K,) rows."""
        self.sampler = self.sampler.with_stages(np.vstack([self.sampler.stage_counts, row_counts]))

    def left(self) -> Int64Array:
        """(K,) rows that each domain may still give within `max_epochs` epochs of its pool."""
        return self.sampler.pool_rows * self.sampler.max_epochs - self.sampler.row_counts


def rows_within(weights: FloatArray, num_rows: int, limits: Int64Array) -> Int64Array:
    """Allocates whole rows by weight, with no domain above its limit.

    The rows that a domain cannot give come from the others, in proportion to their weights, or to what they have left
    if all weights are 0.

    Args:
        weights: (K,) shares summing to 1.
        num_rows: rows of the run in all.
        limits: (K,) most rows of each domain; their sum is at least `num_rows`.

    Returns:
        (K,) rows summing to `num_rows`, allocated by the largest-remainder method.
    """
    assert limits.sum() >= num_rows, "the run's plan left room"
    rows = weights * num_rows
    while np.any(over := rows > limits):
        rows = np.where(over, limits, rows)
        free = rows < limits
        if not free.any():
            break
        shares = np.where(free, weights if weights[free].any() else limits - rows, 0)
        rows += (num_rows - rows.sum()) * shares / shares.sum()
    return allocate_rows(rows, seq_len=1)
