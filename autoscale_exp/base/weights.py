"""Weights that are shares of 1: of domains in a mixture, or of validation domains in an objective."""

import math
from collections.abc import Sequence

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError

SUM_TOLERANCE = 1e-6


def check_weights(weights: Sequence[float], domains: Sequence[str], *, key: str) -> FloatArray:
    """Checks that numbers are shares of 1, and returns them as an array in the order of `domains`.

    Raises:
        UserError: wrong length, an entry negative or not finite, or a sum that differs from 1 by more than 1e-6.
            The message starts with `key`, the name the user knows the weights by.
    """
    if len(weights) != len(domains):
        raise UserError(
            f"{key} has {len(weights)} entries but data.domains has {len(domains)} "
            f"({', '.join(domains)}); give one weight per domain, in that order"
        )
    for domain, weight in zip(domains, weights, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise UserError(f"{key}: the weight of '{domain}' is {weight}; allowed are numbers from 0 to 1")
    total = math.fsum(weights)
    if abs(total - 1) > SUM_TOLERANCE:
        raise UserError(f"{key} sum to {total:.9g}, not to 1; divide each weight by {total:.9g}")
    return np.asarray(weights, dtype=np.float64) / total
