"""A sampler whose stages are told one after another as the run goes, for mixtures that follow the training losses."""

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.mixture.allocation import allocate_rows
from autoscale_exp.mixture.sampler import MixtureSampler


class GrowingSampler:
    """The `MixtureSampler` of the stages told so far: what was told never changes, and the rest is not known.

    Args:
        plan: pools, seed and epochs of the run, and how many rows it has in all; its own stages do not matter.

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
        """Tells the next stage: (K,) rows."""
        self.sampler = self.sampler.with_stages(np.vstack([self.sampler.stage_counts, row_counts]))

    def left(self) -> Int64Array:
        """(K,) rows that each domain may still give before its pool has been gone through `max_epochs` times."""
        return self.sampler.pool_rows * self.sampler.max_epochs - self.sampler.row_counts


def rows_within(weights: FloatArray, num_rows: int, limits: Int64Array) -> Int64Array:
    """Whole rows by weight, of which no domain gives more than its limit.

    What a domain cannot give, the others do in proportion to their weights, or to what they have left if all of these
    are 0.

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
