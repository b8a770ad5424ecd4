"""The `predict` job: losses and objective that a fitted law expects of mixtures."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.labels import short_label
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.config import PredictConf
from autoscale_exp.laws.fit_file import FIT, Fit, FittedMixture, read_fit
from autoscale_exp.laws.law import Law, predicts_losses
from autoscale_exp.laws.law_file import read_law
from autoscale_exp.laws.objective import Objective, make_objective
from autoscale_exp.laws.prediction import Prediction, compare, predict_losses
from autoscale_exp.reporting.next_steps import after_predict
from autoscale_exp.reporting.tables import open_console, print_table
from autoscale_exp.runs.mixtures import read_mixtures

log = logging.getLogger(__name__)


@job("predict")
def main(conf: PredictConf) -> None:
    """Writes a CSV with a row per mixture: losses, objective and gains, and how far the fit may be off."""
    check_range({"num_draws": conf.num_draws}, 0)
    check_range({"params": conf.params}, 1)
    check_range({"seed": conf.seed}, 0, LARGEST_SEED)
    if not (isinstance(conf.mixtures, str) or (isinstance(conf.mixtures, list) and conf.mixtures)):
        raise UserError(f"mixtures is {conf.mixtures}; give a CSV, or one or several mixture files")
    law = read_law(Path(conf.law_file))
    if not predicts_losses(law):
        raise UserError(
            f"law_file is '{conf.law_file}', of law '{law.name}', which predicts mixtures but no losses; fit another "
            "law"
        )
    if conf.params is not None:
        law = law.at_size(conf.params, "params")
    names, tokens = read_mixtures(conf.mixtures, law.domains, conf.tokens)
    fit = fit_beside(Path(conf.law_file), law)
    objective = objective_of(conf, fit, law)
    draws = law.draws(conf.num_draws, np.random.default_rng(conf.seed)) if conf.num_draws else []
    if conf.num_draws and not draws:
        log.warning("law '%s' has no draws, so the cells of std and intervals are left blank", law.name)
    predictions = [predict_losses(law, draws, tokens)]
    if objective is not None:
        predictions += compare(law, draws, objective, tokens, fitted_weights(fit, law, tokens, conf.params))
    write_predictions(Path(conf.output), names, predictions)
    if objective is not None:
        show_predictions(names, objective.name, predictions)
    log.info("%d mixtures predicted in '%s'", len(names), conf.output)
    largest = float(tokens.sum(axis=1).max())
    target = None if fit is None else mixture_for(fit.targets, largest)
    if told := after_predict(Path(conf.law_file), round(largest) if target is None else target.tokens):
        log.info(told)


def fit_beside(law_file: Path, law: Law) -> Fit | None:
    """Reads the fit beside a law's file, if it is the fit that wrote it."""
    if not (law_file.parent / FIT).is_file():
        return None
    fit = read_fit(law_file.parent, "law_file")
    if (fit.law, fit.domains) != (law.name, law.domains):
        log.warning("'%s' is of another law than '%s', and is left out", law_file.parent / FIT, law_file)
        return None
    return fit


def objective_of(conf: PredictConf, fit: Fit | None, law: Law) -> Objective | None:
    """The objective of the config, or else of the fit; None if neither has one."""
    if (section := conf.objective) is not None:
        weights, domains = section.weights, law.validation_domains
        return make_objective(section.name, section.metric, weights, domains, section.aggregate)
    objective = None if fit is None else fit.objective.over(law.validation_domains)
    if objective is None:
        log.warning("no objective: there is no %s beside '%s'; objective=mean_loss gives one", FIT, conf.law_file)
    return objective


def fitted_weights(fit: Fit | None, law: Law, tokens: FloatArray, params: int | None = None) -> FloatArray:
    """(R, K) weights of the mixtures fitted for the budget of each row and the model size; NaN if the fit has none.

    Without `params` the size is the largest of the runs, as that of the law.
    """
    weights = np.full(tokens.shape, np.nan)
    known = [] if fit is None else [*fit.targets, *fit.scales]
    largest = None if fit is None else max((scale.params for scale in fit.scales if scale.params), default=None)
    size = params or largest
    known = [mixture for mixture in known if mixture.params == size]
    totals = tokens.sum(axis=1)
    for row, total in zip(weights, totals, strict=True):
        if mixture := mixture_for(known, total):
            row[:] = [mixture.weights[domain] for domain in law.domains]
    if fit is not None and (missing := sorted({round(total) for total in totals[np.isnan(weights[:, 0])].tolist()})):
        budgets = ",".join(map(str, missing[:3])) + (",..." if len(missing) > 3 else "")
        of_size = "" if size is None else f" and models of {short_label(size)} parameters"
        asked = "" if size == largest else f" target_params={size}"
        log.warning(
            "the fit has no mixture for these budgets%s to compare with; fit with target_tokens=[%s]%s",
            of_size,
            budgets,
            asked,
        )
    return weights


def mixture_for(known: Sequence[FittedMixture], tokens: float) -> FittedMixture | None:
    """The mixture for a number of tokens, which may differ a little from its budget, as runs have whole rows."""
    at = [mixture for mixture in known if abs(mixture.tokens - tokens) <= 0.01 * tokens]
    return min(at, key=lambda mixture: abs(mixture.tokens - tokens), default=None)


def write_predictions(path: Path, names: list[str], predictions: list[Prediction]) -> None:
    """Writes a row per mixture and a column per number; unknown numbers are blank."""
    columns = {column: values for prediction in predictions for column, values in prediction.items()}
    digits = [0 if column == "tokens" else 6 for column in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *columns])
    for name, *row in zip(names, *columns.values(), strict=True):
        writer.writerow([name, *("" if np.isnan(x) else f"{x:.{d}f}" for x, d in zip(row, digits, strict=True))])
    atomic.write_text(path, text.getvalue())


def show_predictions(names: Sequence[str], objective: str, predictions: Sequence[Prediction]) -> None:
    """Prints the objective of each mixture, best first, and its difference from uniform and the fitted mixture."""
    columns = {column: values for prediction in predictions for column, values in prediction.items()}
    rows = []
    for r in np.argsort(columns["objective"], kind="stable"):
        value, *ends = _with_ends(columns, "objective", r)
        interval = "" if np.isnan(ends).any() else f" ({ends[0]:.4f} to {ends[1]:.4f})"
        row = [names[r], short_label(columns["tokens"][r]), f"{value:.4f}{interval}"]
        for reference in ("uniform", "fitted"):
            gain, *ends = _with_ends(columns, f"gain_over_{reference}", r)
            change, high, low = (round(-x / (value + gain), 4) + 0.0 for x in (gain, *ends))  # a gain lowers; no -0
            interval = "" if np.isnan(ends).any() else f" ({low:+.1%} to {high:+.1%})"
            row.append("" if np.isnan(gain) else f"{change:+.1%}{interval}")
        rows.append(row)
    has_draws = not np.isnan(columns["objective.low"]).all()
    what = "medians and 90 % intervals over draws" if has_draws else "without draws"
    title = f"{objective} that the law expects, best first; {what}"
    print_table(open_console(), title, ["mixture", "tokens", objective, "against uniform", "against fitted"], rows)


def _with_ends(columns: Prediction, column: str, row: int) -> list[float]:
    return [float(columns[f"{column}{end}"][row]) for end in ("", ".low", ".high")]


if __name__ == "__main__":
    main()
