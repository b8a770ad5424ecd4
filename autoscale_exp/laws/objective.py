"""What is minimised: a weighted mean, or the worst, over validation domains of loss or of perplexity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.weights import check_weights

METRICS = ("loss", "perplexity")
AGGREGATES = ("mean", "worst")


@dataclass(frozen=True)
class Objective:
    """J = sum over v of w_v L_v, or of w_v exp(L_v); or the largest L_v or exp(L_v).

    The two metrics can lead to quite different optima: perplexity weighs the domains that are hard to predict more.

    Attributes:
        name: for people.
        metric: loss (nats per token) or perplexity.
        weights: (V,) of the validation domains, summing to 1; without effect on the worst.
        aggregate: mean or worst.
    """

    name: str
    metric: str
    weights: FloatArray
    aggregate: str = "mean"

    def __call__(self, losses: FloatArray) -> FloatArray:
        """(...,) objective of (..., V) losses."""
        values = losses if self.metric == "loss" else np.exp(losses)
        return values @ self.weights if self.aggregate == "mean" else values.max(axis=-1)


def make_objective(
    name: str,
    metric: str,
    weights: Any,
    validation_domains: Sequence[str],
    aggregate: str = "mean",
) -> Objective:
    """An objective over `validation_domains`, equally weighted unless told otherwise.

    Args:
        name: for people.
        metric: loss or perplexity.
        weights: a list in the order of the domains, or by name, where a domain without one has 0; None or empty: equal.
        validation_domains: (V,) names.
        aggregate: mean or worst.

    Raises:
        UserError: an unknown metric or domain, or weights that are not shares of 1.
    """
    if metric not in METRICS:
        raise UserError(f"objective.metric is '{metric}'; allowed are {', '.join(METRICS)}")
    if aggregate not in AGGREGATES:
        raise UserError(f"objective.aggregate is '{aggregate}'; allowed are {', '.join(AGGREGATES)}")
    if not weights:
        return Objective(name, metric, np.full(len(validation_domains), 1 / len(validation_domains)), aggregate)
    listed = in_order(weights, validation_domains, key="objective.weights", others=0.0)
    return Objective(name, metric, check_weights(listed, validation_domains, key="objective.weights"), aggregate)
