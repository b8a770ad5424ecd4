"""What to train on, given what the runs leave open: the mixture, its gain with an interval, a plain verdict.

A fitted law comes with draws of its parameters. The mixture offered has the best objective on average over the draws,
not under the point estimate: where the runs say little, draws disagree and their mean is flat, so it stays moderate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_exp.laws.law import Law
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import Optimum
from autoscale_exp.mixture.allocation import FloatArray

INTERVAL = (0.05, 0.95)  # 90 %
SURE = 0.95  # probability from which a mixture is called better


@dataclass(frozen=True)
class Gain:
    """How much lower the objective is than under a reference mixture.

    Attributes:
        mean: over draws.
        interval: 90 % of draws.
        probability: share of draws in which it is lower.
        relative: mean, as a share of the reference's objective.
    """

    mean: float
    interval: tuple[float, float]
    probability: float
    relative: float

    def content(self) -> dict[str, Any]:
        """As it stands in fit.json."""
        return {
            "mean": self.mean,
            "interval": list(self.interval),
            "probability": self.probability,
            "relative": self.relative,
        }


def objective_draws(draws: Sequence[Law], objective: Objective, weights: FloatArray, budget: float) -> FloatArray:
    """(D,) objective of one mixture under each draw."""
    return np.array([float(objective(draw.predict(weights * budget))) for draw in draws])


def gain_over(reference: FloatArray, mixture: FloatArray) -> Gain:
    """The gain of a mixture from (D,) objectives of it and of a reference under the same draws."""
    gains = reference - mixture
    low, high = np.quantile(gains, INTERVAL)
    mean = float(gains.mean())
    return Gain(mean, (float(low), float(high)), float((gains > 0).mean()), mean / float(reference.mean()))


def verdict(gain: Gain, reference: str, useful: Sequence[str]) -> str:
    """A sentence for whoever decides.

    Args:
        gain: of the mixture offered.
        reference: what it is over.
        useful: names of the probes that would tell most.
    """
    low, high = gain.interval
    if gain.probability >= SURE and low > 0:
        return (
            f"better than {reference} by {gain.mean:.4f} ({gain.relative:.1%}), with 90 % probability {low:.4f} "
            f"to {high:.4f}; better at all with {gain.probability:.0%}"
        )
    text = (
        f"cannot be told apart from {reference} with these runs: the gain is {gain.mean:.4f} ({gain.relative:.1%}), "
        f"with 90 % probability between {low:.4f} and {high:.4f}"
    )
    return f"{text}; the most useful next probes are {', '.join(useful)}" if useful else text


def useful_probes(
    draws: Sequence[Law],
    objective: Objective,
    base_weights: FloatArray,
    budget: float,
    gains: FloatArray,
    *,
    factor: float = 3.0,
    count: int = 3,
) -> list[str]:
    """The probes that would narrow the gain most, best first.

    For each domain times and divided by `factor` at `budget`, the share of the gain's variance over draws that the
    probe's difference from the base, measured with the law's noise, would explain:
    cov(gain, y)^2 / (var(gain) (var(y) + 2 noise^2)).

    Args:
        draws: of the law.
        objective: what is minimised.
        base_weights: (K,) mixture that the probes vary.
        budget: tokens of the base probe.
        gains: (D,) gain of the mixture offered under each draw.
        factor: on one domain's tokens.
        count: how many to name.
    """
    law = draws[0]
    base = base_weights * budget
    slopes = 1.0 if objective.metric == "loss" else np.exp(law.predict(base))  # of the objective by each loss
    noise = float(np.linalg.norm(objective.weights * slopes * law.run_noise))
    base_outcomes = objective_draws(draws, objective, base_weights, budget)
    scored = []
    for index, domain in enumerate(law.domains):
        for name, change in ((f"{domain} x{factor:g}", factor), (f"{domain} x1/{factor:g}", 1 / factor)):
            tokens = base.copy()
            tokens[index] *= change
            outcomes = np.array([float(objective(draw.predict(tokens))) for draw in draws]) - base_outcomes
            covariance = float(np.mean((outcomes - outcomes.mean()) * (gains - gains.mean())))
            explained = covariance**2 / (gains.var() * (outcomes.var() + 2 * noise**2) + 1e-300)
            scored.append((explained, name))
    return [name for _, name in sorted(scored, key=lambda item: -item[0])[:count]]


def weight_intervals(optima: Sequence[Optimum]) -> FloatArray:
    """(2, K) ends of the 90 % intervals of the draws' own optima."""
    return np.quantile([optimum.weights for optimum in optima], INTERVAL, axis=0)
