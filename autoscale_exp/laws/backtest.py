"""How far a law would have been off: fitted without the largest scale, it predicts the runs there."""

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Backtest
from autoscale_exp.laws.law import LossLaw, fit_law, predict_runs, predicts_losses
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.table import RunTable, scales_of, select_runs


def fit_smaller_scales(name: str, table: RunTable) -> LossLaw | None:
    """The law without the largest scale; None if there is one scale only, or the rest is too little for the law."""
    scales = scales_of(table)
    if len(scales) < 2:
        return None
    try:
        law = fit_law(name, select_runs(table, np.sort(np.concatenate(scales[:-1]))))
    except UserError:
        return None
    assert predicts_losses(law)
    return law


def backtest(law: LossLaw, table: RunTable, objective: Objective) -> Backtest:
    """The errors at the largest scale of a law that was fitted to the others."""
    left_out = scales_of(table)[-1]
    errors = objective(predict_runs(law, select_runs(table, left_out))) - objective(table.losses[left_out])
    true = objective(table.losses[left_out])
    return Backtest(
        tokens=round(float(np.median(table.domain_tokens[left_out].sum(axis=1)))),
        runs=len(left_out),
        level_error=float(errors.mean()),
        difference_error=float(errors.std()),
        difference_spread=float(true.std()),
    )
