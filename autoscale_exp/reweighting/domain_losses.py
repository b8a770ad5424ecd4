"""Losses by domain of an optimiser step, over all its batches and devices.

Letters in shapes: B rows of a batch, N predicted tokens of a batch, K domains.
"""

import torch
from pytorch_lightning import Trainer
from torch.nn.functional import one_hot

from autoscale_exp.base.arrays import FloatArray, Int64Array


class DomainLosses:
    """Sums of the token losses of each domain since the last step."""

    def __init__(self, num_domains: int) -> None:
        self.num_domains = num_domains
        self._sums = torch.zeros(2, num_domains, dtype=torch.float64)

    def add(self, losses: torch.Tensor, domains: torch.Tensor, *, counted: bool) -> None:
        """Adds (N,) losses of tokens, given their (N,) domains, unless the batch does not count.

        They are summed by a matrix product, whose order is always the same.
        """
        members = one_hot(domains, self.num_domains).double() * counted  # (N, K)
        of_tokens = torch.stack([losses.detach().double(), torch.ones_like(losses, dtype=torch.float64)])  # (2, N)
        self._sums = self._sums.to(losses.device) + of_tokens @ members

    def take(self, trainer: Trainer) -> tuple[FloatArray, Int64Array]:
        """Returns (K,) sums of losses and (K,) numbers of tokens over all devices, and starts again from 0."""
        sums, counts = trainer.strategy.reduce(self._sums, reduce_op="sum").cpu().numpy()
        self._sums = torch.zeros_like(self._sums)
        return sums, counts.astype("int64")


def mean_of_rows(losses: torch.Tensor, rows: torch.Tensor, row_weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean over rows of each row's mean loss; a row without predicted tokens counts as 0.

    Args:
        losses: (N,) losses of the tokens.
        rows: (N,) row of each token.
        row_weights: (B,) weights, whose mean is about 1.
    """
    counts = torch.bincount(rows, minlength=len(row_weights)).clamp(min=1)
    return (losses * (row_weights / counts)[rows]).sum() / len(row_weights)
