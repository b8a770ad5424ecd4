"""The objective: a weighted mean of loss or perplexity over validation domains, or the worst of them."""

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
    """J = sum_v w_v L_v or sum_v w_v exp(L_v); for the worst, the largest L_v or exp(L_v).

    The two metrics can lead to quite different optima: perplexity gives more weight to domains of high loss.

    Attributes:
        name: for people.
        metric: loss (nats per token) or perplexity.
        weights: (V,) weights of the validation domains, summing to 1; the worst ignores them.
        aggregate: mean or worst.
    """

    name: str
    metric: str
    weights: FloatArray
    aggregate: str = "mean"

    def __call__(self, losses: FloatArray) -> FloatArray:
        """Returns the (...,) objectives of (..., V) losses."""
        values = losses if self.metric == "loss" else np.exp(losses)
        return values @ self.weights if self.aggregate == "mean" else values.max(axis=-1)


def make_objective(
    name: str,
    metric: str,
    weights: Any,
    validation_domains: Sequence[str],
    aggregate: str = "mean",
) -> Objective:
    """Makes an objective over `validation_domains`.

    Args:
        name: for people.
        metric: loss or perplexity.
        weights: a list in the order of the domains, or a mapping by name, which gives 0 to domains that it leaves out;
            equal weights if None or empty.
        validation_domains: (V,) names.
        aggregate: mean or worst.

    Raises:
        UserError: an unknown metric, aggregate or domain, or weights that are not shares of 1.
    """
    if metric not in METRICS:
        raise UserError(f"objective.metric is '{metric}'; allowed are {', '.join(METRICS)}")
    if aggregate not in AGGREGATES:
        raise UserError(f"objective.aggregate is '{aggregate}'; allowed are {', '.join(AGGREGATES)}")
    if not weights:
        return Objective(name, metric, np.full(len(validation_domains), 1 / len(validation_domains)), aggregate)
    listed = in_order(weights, validation_domains, key="objective.weights", others=0.0)
    return Objective(name, metric, check_weights(listed, validation_domains, key="objective.weights"), aggregate)
