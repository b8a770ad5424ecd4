"""The gain of a mixture over another, with its interval over the draws of a law, and the verdict in a sentence."""

from collections.abc import Sequence

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.labels import number, number_interval, percent
from autoscale_exp.laws.fit_file import Gain, NextRun, Risk
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.solver.ensemble import Ensemble

INTERVAL = (0.05, 0.95)  # 90 %
MIDDLE_AND_ENDS = (INTERVAL[0], 0.5, INTERVAL[1])
SURE = 0.95  # probability from which a mixture is called better


def interval_of(values: FloatArray) -> tuple[float, float]:
    """Returns the 90 % interval of (D,) values under the draws."""
    low, high = np.quantile(values, INTERVAL).tolist()
    return low, high


def objective_draws(draws: Sequence[LossLaw], objective: Objective, weights: FloatArray, budget: float) -> FloatArray:
    """Returns the (D,) objectives of a mixture under each draw."""
    return objective(Ensemble(draws).predict(weights * budget))


def gain_over(reference: FloatArray, mixture: FloatArray) -> Gain:
    """Returns the gain of a mixture over a reference, from the (D,) objectives of both under the same draws."""
    gains = reference - mixture
    low, median, high = np.quantile(gains, MIDDLE_AND_ENDS).tolist()
    return Gain(median, (low, high), float((gains > 0).mean()), median / float(np.median(reference)))


def verdict(gain: Gain, reference: str, useful: Sequence[NextRun], risk: Risk | None = None) -> str:
    """Says in a sentence whether a mixture is better, worse, or cannot be told apart, and what to train next.

    Args:
        gain: the gain of the mixture offered.
        reference: the name of the mixture that it is compared with.
        useful: the proxy runs that would tell most.
        risk: the chance that the choice between the two is wrong, now and after those runs; None if unknown.
    """
    level = gain.median / gain.relative if gain.relative else 1.0
    by = f"{number(abs(gain.median), level)} ({percent(abs(gain.relative))})"
    if gain.probability >= SURE and gain.interval[0] > 0:
        between = number_interval(gain.interval, level)
        return (
            f"better than {reference} by {by}, 90 % interval {between}; the probability of being better is "
            f"{percent(gain.probability, 0)}"
        )
    if gain.probability <= 1 - SURE and gain.interval[1] < 0:
        between = number_interval((-gain.interval[1], -gain.interval[0]), level)
        return (
            f"worse than {reference} by {by}, 90 % interval {between}; the bounds or the objective's other terms keep "
            f"the mixture away from {reference}"
        )
    text = (
        f"cannot be told apart from {reference} with these runs: the gain is {number(gain.median, level)} "
        f"({percent(gain.relative)}), 90 % interval {number_interval(gain.interval, level)}"
    )
    if risk is not None and risk.is_enough:
        loses = gain.probability < 0.5
        chosen, sure = (reference, 1 - gain.probability) if loses else ("this mixture", gain.probability)
        return (
            f"{text}; enough is known: after the {len(useful)} proxy runs that would tell most, the chance of the "
            f"wrong choice would still be {percent(risk.after)}, now {percent(risk.now)}; train {chosen}, which is "
            f"better with a probability of {percent(sure, 0)}"
        )
    listed = ", ".join(f"{run.repeats or run.run} with seed {run.seed}" for run in useful)
    return f"{text}; the most useful next proxy runs are {listed}" if useful else text
