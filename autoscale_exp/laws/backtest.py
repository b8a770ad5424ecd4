"""The back-test: how far off a law predicts the largest runs if it is fitted without them."""

from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Backtest
from autoscale_exp.laws.law import LossLaw, fit_law, predict_runs, predicts_losses
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.table import RunTable, has_sizes, scales_of, select_runs


@dataclass(frozen=True)
class Trial:
    """A law that has not seen some runs.

    Attributes:
        left_out: which runs these are, in words.
        rows: their rows in the table.
        law: the law fitted to all others.
    """

    left_out: str
    rows: Int64Array
    law: LossLaw


def largest_runs(table: RunTable) -> dict[str, Int64Array]:
    """Rows of the runs that a back-test leaves out: those of the largest budget, the largest size, and either."""
    totals, scales = table.domain_tokens.sum(axis=1), scales_of(table)
    if table.params is None or not has_sizes(table):
        return {"largest budget": scales[-1]} if len(scales) > 1 else {}
    largest = table.params == table.params.max()
    budget = max(float(np.median(totals[rows])) for rows in scales)
    of_budget = np.zeros(len(totals), dtype=bool)
    for rows in scales:
        of_budget[rows] = np.isclose(np.median(totals[rows]), budget, rtol=0.01)
    parts = {"largest size": largest, "largest budget": of_budget, "largest size and budget": largest | of_budget}
    kept: dict[str, Int64Array] = {}
    for name, rows in parts.items():
        if not rows.all() and not any(np.array_equal(np.flatnonzero(rows), other) for other in kept.values()):
            kept[name] = np.flatnonzero(rows)
    return kept


def fit_without_largest(name: str, table: RunTable) -> list[Trial]:
    """Fits the law without the largest runs; no trial if all runs are of one scale, or the others are too few."""
    trials = []
    for left_out, rows in largest_runs(table).items():
        others = np.setdiff1d(np.arange(len(table.runs)), rows)
        try:
            law = fit_law(name, select_runs(table, others))
        except UserError:
            continue
        assert predicts_losses(law)
        if has_sizes(table) and not has_sizes(select_runs(table, others)):
            continue  # one size does not tell of another
        trials.append(Trial(left_out, rows, law))
    return trials


def backtest(trial: Trial, table: RunTable, objective: Objective) -> Backtest:
    """Measures the errors of a law at the runs that it has not seen."""
    left_out = select_runs(table, trial.rows)
    true = objective(left_out.losses)
    errors = objective(predict_runs(trial.law, left_out)) - true
    return Backtest(
        left_out=trial.left_out,
        tokens=round(float(np.median(left_out.domain_tokens.sum(axis=1)))),
        runs=len(trial.rows),
        level_error=float(errors.mean()),
        difference_error=float(errors.std()),
        difference_spread=float(true.std()),
    )
