"""What is minimised: a weighted mean, or the worst, over validation domains of loss or of perplexity."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
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
    weights: Mapping[str, float] | None,
    validation_domains: Sequence[str],
    aggregate: str = "mean",
) -> Objective:
    """An objective over `validation_domains`, equally weighted unless told otherwise.

    Raises:
        UserError: an unknown metric or domain, or weights that are not shares of 1.
    """
    if metric not in METRICS:
        raise UserError(f"objective.metric is '{metric}'; allowed are {', '.join(METRICS)}")
    if aggregate not in AGGREGATES:
        raise UserError(f"objective.aggregate is '{aggregate}'; allowed are {', '.join(AGGREGATES)}")
    if not weights:
        return Objective(name, metric, np.full(len(validation_domains), 1 / len(validation_domains)), aggregate)
    unknown = [domain for domain in weights if domain not in validation_domains]
    if unknown:
        raise UserError(
            f"objective.weights names '{unknown[0]}', but the runs were validated on {', '.join(validation_domains)}"
        )
    if not math.isfinite(sum(weights.values())):
        raise UserError(f"objective.weights is {dict(weights)}; the weights must be finite numbers")
    listed = [weights.get(domain, 0.0) for domain in validation_domains]
    return Objective(name, metric, check_weights(listed, validation_domains, key="objective.weights"), aggregate)
