"""The predictions of a law of losses for mixtures: losses, objective, and gains over reference mixtures."""

from collections.abc import Sequence

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.gains import MIDDLE_AND_ENDS
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective

Prediction = dict[str, FloatArray]  # (R,) numbers by column; NaN if unknown


def predict_losses(law: LossLaw, draws: Sequence[LossLaw], tokens: FloatArray) -> Prediction:
    """Predicts losses in nats per token for (R, K) domain tokens, with their standard deviations over draws."""
    losses = law.predict(tokens)
    spread = np.std([draw.predict(tokens) for draw in draws], axis=0) if draws else np.full_like(losses, np.nan)
    names = law.validation_domains
    return {f"loss.{v}": losses[:, i] for i, v in enumerate(names)} | {
        f"std.{v}": spread[:, i] for i, v in enumerate(names)
    }


def compare(
    law: LossLaw, draws: Sequence[LossLaw], objective: Objective, tokens: FloatArray, fitted: FloatArray
) -> list[Prediction]:
    """Predicts the objective, and the gains over the uniform and the fitted mixture at the same budget.

    All are medians over draws, as in a fit.

    Args:
        law: the law.
        draws: draws of the law, for 90 % intervals.
        objective: the objective.
        tokens: (R, K) domain tokens.
        fitted: (R, K) weights of the mixture fitted for each row's budget; NaN if there is none.
    """
    totals = tokens.sum(axis=1, keepdims=True)
    values = _values(law, draws, objective, tokens)
    budget: Prediction = {"tokens": totals[:, 0]}
    predictions = [budget, _with_interval("objective", values)]
    for name, weights in {"uniform": np.full_like(tokens, 1 / tokens.shape[1]), "fitted": fitted}.items():
        gains = _values(law, draws, objective, weights * totals) - values
        predictions.append(_with_interval(f"gain_over_{name}", gains))
    return predictions


def _values(law: LossLaw, draws: Sequence[LossLaw], objective: Objective, tokens: FloatArray) -> FloatArray:
    """Returns (D, R) objectives under each draw, or (1, R) under a law without draws; NaN where the tokens are."""
    known = ~np.isnan(tokens).any(axis=1)
    laws = draws or [law]
    values = np.full((len(laws), len(tokens)), np.nan)
    if known.any():
        values[:, known] = [objective(each.predict(tokens[known])) for each in laws]
    return values


def _with_interval(name: str, values: FloatArray) -> Prediction:
    low, median, high = np.quantile(values, MIDDLE_AND_ENDS, axis=0)
    unknown = np.full_like(median, np.nan)
    ends = (low, high) if len(values) > 1 else (unknown, unknown)
    return {name: median, f"{name}.low": ends[0], f"{name}.high": ends[1]}
