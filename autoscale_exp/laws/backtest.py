"""How far a law would have been off: fitted without the largest scale, it predicts the runs there."""

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Backtest
from autoscale_exp.laws.law import fit_law, predicts_losses
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.table import RunTable, scales_of, select_runs


def backtest(name: str, table: RunTable, objective: Objective) -> Backtest | None:
    """Leaves the largest scale out; None if there is one scale only, or the rest is too little for the law."""
    scales = scales_of(table)
    if len(scales) < 2:
        return None
    left_out, rest = scales[-1], np.sort(np.concatenate(scales[:-1]))
    try:
        law = fit_law(name, select_runs(table, rest))
    except UserError:
        return None
    assert predicts_losses(law)
    errors = objective(law.predict(table.domain_tokens[left_out])) - objective(table.losses[left_out])
    true = objective(table.losses[left_out])
    return Backtest(
        tokens=round(float(np.median(table.domain_tokens[left_out].sum(axis=1)))),
        runs=len(left_out),
        level_error=float(errors.mean()),
        difference_error=float(errors.std()),
        difference_spread=float(true.std()),
    )
