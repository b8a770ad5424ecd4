"""The `fit` job: from finished runs, or known optima, to the best mixture at any token budget."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig

from autoscale_exp.base.arrays import Int64Array
from autoscale_exp.base.composing import compose
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job, to_typed
from autoscale_exp.base.labels import short_label
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.config import FitConf
from autoscale_exp.data.store import open_store
from autoscale_exp.laws.conf import ObjectiveConf
from autoscale_exp.laws.fit_file import Fit, FitObjective, FittedMixture, NextRun, write_fit
from autoscale_exp.laws.fit_folder import (
    check_place,
    earlier_fit,
    proposals_path,
    with_earlier_targets,
    write_mixtures,
    write_next_runs,
)
from autoscale_exp.laws.law import LAWS, Law, describe_laws, takes_sizes
from autoscale_exp.laws.law_file import write_law
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.reach import check_targets, remarks_on
from autoscale_exp.laws.request import Request, make_request
from autoscale_exp.laws.solution import solve_each, solve_optima
from autoscale_exp.laws.solver.constraints import check_constraints
from autoscale_exp.lm.size import size_of
from autoscale_exp.reporting.next_steps import after_fit, all_next_runs, next_runs_command, runs_first, tell_next
from autoscale_exp.reporting.tables import show_fit
from autoscale_exp.runs.record import read_records
from autoscale_exp.runs.repeat import repeat_command
from autoscale_exp.runs.run_sheet import LEAST_TOKENS, read_optima, read_runs
from autoscale_exp.runs.table import RunTable, has_sizes, scales_of

log = logging.getLogger(__name__)

MOST_TOKENS = 10**18  # of a budget; 64 bits hold this easily


@dataclass(frozen=True)
class Fitted:
    """What the job has fitted.

    Attributes:
        fits: the fit of `objective` under None, and those of `objectives` by name.
        law_content: content of law.json.
        law: the law that all fits share; None for known optima.
        models: models of proposed runs that the runs do not have, by size.
    """

    fits: dict[str | None, Fit]
    law_content: dict[str, Any]
    law: Law | None = None
    models: Mapping[int, str] = field(default_factory=dict)


@job("fit", more_help=describe_laws)
def main(conf: FitConf) -> None:
    """Fits and writes fit.json, law.json, mixtures/ and figures."""
    check_conf(conf)
    fitted = fit_runs(conf) if conf.optima is None else fit_optima(conf)
    fits = {name: write(fit, folder_of(conf, name), conf, fitted) for name, fit in fitted.fits.items()}
    for fit in fits.values():
        show_fit(fit)
    if conf.runs is not None and Path(conf.runs).is_dir():
        for target in fits[None].targets:
            proposed = [] if target.risk and target.risk.is_enough else target.next_runs or []
            table = proposals_path(folder_of(conf), target)
            for command in all_next_runs(conf.runs, table, proposed, fitted.models):
                log.info("all runs proposed for %s tokens: %s", short_label(target.tokens), command)
    log.info("drawing figures")
    from autoscale_exp.reporting.explorer import write_explorer  # these imports take a while, so they come last
    from autoscale_exp.reporting.figures import save_fit_figures

    for name, fit in fits.items():
        save_fit_figures(fit, folder_of(conf, name))
        write_explorer(folder_of(conf, name), fit, fitted.law)
    if conf.logger:
        from autoscale_exp.reporting.tracking import log_fit  # imports torch

        for name, fit in fits.items():
            log_fit(conf.logger, folder_of(conf, name), fit, Path(str(conf.runs or conf.optima)))
    if not conf.target_tokens:
        log.warning("no mixture is written: target_tokens=[...] says for which budgets")
    more = f", and to a folder there for each of {', '.join(conf.objectives)}" if conf.objectives else ""
    log.info("written to '%s'%s", conf.output_dir, more)
    tell_next(log.info, runs_first(fits[None]))
    tell_next(log.info, after_fit(conf.runs, conf.output_dir, fits[None]))


def check_conf(conf: FitConf) -> None:
    """Checks the keys of the job that need no runs.

    Raises:
        UserError: a value is out of range, or keys exclude each other.
    """
    if (conf.runs is None) == (conf.optima is None):
        raise UserError("give either runs=<runs.csv or sweep folder> or optima=<optima.csv>, one of the two")
    for index, budget in enumerate(conf.target_tokens):
        check_range({f"target_tokens[{index}]": budget}, 1, MOST_TOKENS)
    check_range({"target_params": conf.target_params}, 1)
    for index, budget in enumerate(conf.next_scales):
        check_range({f"next_scales[{index}]": budget}, LEAST_TOKENS, MOST_TOKENS)
    check_range({"num_draws": conf.num_draws, "num_next_runs": conf.num_next_runs}, 0)
    check_range({"seed": conf.seed}, 0, LARGEST_SEED)
    if conf.uncertainty not in ("intervals", "none"):
        raise UserError(f"uncertainty is '{conf.uncertainty}'; allowed are intervals and none")
    if conf.optima is not None and conf.target_params is not None:
        raise UserError("target_params is given with optima, which tell of no model size; give runs=... instead")
    if conf.optima is not None and conf.objectives:
        raise UserError("objectives is given with optima, whose objective is unknown; give runs=... instead")


def fit_optima(conf: FitConf) -> Fitted:
    """Extrapolates known optima."""
    domains, budgets, weights = read_optima(Path(str(conf.optima)))
    bounds = make_bounds(conf.bounds.lower, conf.bounds.upper, domains)
    fit, law_content = solve_optima(domains, budgets, weights, bounds, conf.target_tokens)
    check_place(folder_of(conf), fit.law, fit.objective)
    return Fitted({None: fit}, law_content)


def fit_runs(conf: FitConf) -> Fitted:
    """Fits a law to runs, and finds the mixtures of every objective with it."""
    table = read_runs(Path(str(conf.runs)))
    if unseen := [domain for domain in table.domains if domain not in table.validation_domains]:
        log.warning("trained on, but no part of the objective, because no run has its loss: %s", ", ".join(unseen))
    asked = {None: conf.objective} | objectives_of(conf)
    models = next_models_of(conf)
    requests = {
        name: replace(make_request(replace(conf, objective=section), table), next_sizes=list(models))
        for name, section in asked.items()
    }
    scales = [median_tokens(table, rows) for rows in scales_of(table)]
    check_targets(conf.target_tokens, scales)
    for name, request in requests.items():
        check_constraints(request.constraints, max([*conf.target_tokens, *scales]), table.domains)
        of_request = FitObjective.of(request.objective, table.validation_domains)
        check_place(folder_of(conf, name), conf.law.name, of_request)
    tell_of_runs(table)
    found, law = solve_each(conf.law.name, table, list(requests.values()))
    fits = {
        name: with_remarks(fit, table, request) for (name, request), fit in zip(requests.items(), found, strict=True)
    }
    return Fitted(fits, law.content(), law, models)


def folder_of(conf: FitConf, objective: str | None = None) -> Path:
    """The folder of the fit of `objective`, or of one of `objectives`."""
    return Path(conf.output_dir) / (objective or "")


def write(fit: Fit, folder: Path, conf: FitConf, fitted: Fitted) -> Fit:
    """Writes a fit and its law, mixtures and proposed runs; returns it as written."""
    told = with_commands(fit, str(conf.runs), folder, fitted.models)
    typed = replace(told, overrides=list(HydraConfig.get().overrides.task))
    fit = with_earlier_targets(typed, earlier_fit(folder))
    write_law(folder, fitted.law_content)
    write_mixtures(folder, fit)
    write_next_runs(folder, fit)
    write_fit(folder, fit)  # last, as it refers to the other files
    return fit


def objectives_of(conf: FitConf) -> dict[str, ObjectiveConf]:
    """Composes the sections of `objectives`, by name, each as with objective=<name> and all other overrides as typed.

    Raises:
        UserError: an objective is listed twice.
    """
    if doubled := [name for name in conf.objectives if conf.objectives.count(name) > 1]:
        raise UserError(f"objectives names '{doubled[0]}' twice; name each of them once")
    others = [o for o in HydraConfig.get().overrides.task if not re.match(r"\+*objectives?=", o)]
    sections = {}
    for name in conf.objectives:
        composed = to_typed(compose("fit", [*others, f"objective={name}"]))
        sections[name.rpartition("/")[2]] = composed.objective
    return sections


def next_models_of(conf: FitConf) -> dict[int, str]:
    """Returns the models of `next_models` by their sizes, on the token store of the runs.

    Raises:
        UserError: the law takes no model sizes, or there is no token store, which sizes depend on.
    """
    if not conf.next_models:
        return {}
    if not takes_sizes(conf.law.name):
        others = " or ".join(filter(takes_sizes, LAWS))
        raise UserError(f"next_models is given, but law.name={conf.law.name} takes no model sizes; choose {others}")
    if not Path(str(conf.runs)).is_dir():
        raise UserError(
            f"next_models is given, but '{conf.runs}' is no sweep's folder, whose token store tells how large models "
            "are; leave next_models out: new runs are proposed of the sizes in the table"
        )
    store = open_store(read_records(Path(str(conf.runs)))[0].store, "store")
    models = {}
    for name in conf.next_models:
        model = to_typed(compose("train", [f"model={name}"]).model)
        models[size_of(model, store.vocab_size, store.seq_len, half=False).params] = name
    return models


def with_commands(fit: Fit, runs: str, folder: Path, models: Mapping[int, str]) -> Fit:
    """Adds to a fit the commands that train its next runs, as far as the folder of the runs tells.

    Args:
        fit: the fit without commands.
        runs: folder of the sweep, or a run table, which does not tell them.
        folder: folder of the fit, which has a table of proposed runs for each target.
        models: by size, the models that no run has.
    """
    if not Path(runs).is_dir():
        return fit

    def told(entry: FittedMixture, table: Path | None = None) -> FittedMixture:
        def command(run: NextRun) -> str | None:
            if run.repeats is not None:
                return repeat_command(Path(runs), run.repeats, run.run, run.seed)
            return None if table is None else next_runs_command(runs, table, entry.next_runs or [], run, models)

        proposed = entry.next_runs and [replace(run, command=command(run)) for run in entry.next_runs]
        return replace(entry, next_runs=proposed)

    return replace(
        fit,
        scales=[told(entry) for entry in fit.scales],
        targets=[told(entry, proposals_path(folder, entry)) for entry in fit.targets],
    )


def with_remarks(fit: Fit, table: RunTable, request: Request) -> Fit:
    """Adds notes to a fit on targets far beyond the runs, or beyond the text."""
    unique: Sequence[float] | None = table.unique_tokens
    if request.unique_tokens is not None:
        unique = request.unique_tokens.tolist()
    by_domain = None if unique is None else dict(zip(table.domains, unique, strict=True))
    remarks = remarks_on(fit.targets, fit.most_tokens, by_domain)
    return replace(fit, diagnostics=replace(fit.diagnostics, notes=[*fit.diagnostics.notes, *remarks]))


def median_tokens(table: RunTable, rows: Int64Array) -> float:
    """Median tokens of the runs of a scale, given their rows."""
    return float(np.median(table.domain_tokens[rows].sum(axis=1)))


def tell_of_runs(table: RunTable) -> None:
    """Logs what was read: runs by scale, domains, and validation domains."""
    scales = [
        f"{len(rows)} at {table.scales[rows[0]] if table.scales else short_label(median_tokens(table, rows))}"
        + (
            f" of {short_label(table.params[rows[0]])} parameters"
            if table.params is not None and has_sizes(table)
            else ""
        )
        for rows in scales_of(table)
    ]
    log.info("%d runs: %s", len(table.runs), ", ".join(scales))
    log.info("domains: %s", ", ".join(table.domains))
    if table.validation_domains != table.domains:
        log.info("validation domains: %s", ", ".join(table.validation_domains))


if __name__ == "__main__":
    main()
