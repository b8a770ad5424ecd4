"""How far a law would have been off: fitted without the largest scale, it predicts the runs there."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.record import RunTable, scales_of, select_runs


@dataclass(frozen=True)
class Backtest:
    """Errors at the largest scale of a law fitted to the others.

    Attributes:
        tokens: of the scale left out, the median over its runs.
        runs: predicted.
        level_error: mean of predicted less true objective.
        difference_error: root mean square error of the runs' differences from their mean.
        difference_spread: root mean square of the true differences, to compare with.
    """

    tokens: int
    runs: int
    level_error: float
    difference_error: float
    difference_spread: float

    def content(self) -> dict[str, Any]:
        """As it stands in fit.json."""
        return vars(self).copy()


def backtest(name: str, table: RunTable, objective: Objective) -> Backtest | None:
    """Leaves the largest scale out; None if there is one scale only, or the rest is too little for the law."""
    scales = scales_of(table)
    if len(scales) < 2:
        return None
    left_out, rest = scales[-1], np.sort(np.concatenate(scales[:-1]))
    try:
        law = fit_law(name, select_runs(table, rest))
    except ValueError:
        return None
    errors = objective(law.predict(table.domain_tokens[left_out])) - objective(table.losses[left_out])
    true = objective(table.losses[left_out])
    return Backtest(
        tokens=round(float(np.median(table.domain_tokens[left_out].sum(axis=1)))),
        runs=len(left_out),
        level_error=float(errors.mean()),
        difference_error=float(errors.std()),
        difference_spread=float(true.std()),
    )
