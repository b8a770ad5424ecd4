"""The `fit` job: from finished runs, or known optima, to the best mixture at any token budget."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig

from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job, to_typed
from autoscale_exp.base.labels import budget_label, short_label
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.config import FitConf
from autoscale_exp.laws.conf import ObjectiveConf
from autoscale_exp.laws.fit_file import Fit, FittedMixture, read_fit, write_fit
from autoscale_exp.laws.law import describe_laws
from autoscale_exp.laws.law_file import write_law
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solution import solve_each, solve_optima
from autoscale_exp.laws.solver.constraints import Constraints, GroupCap
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.reporting.next_steps import after_fit
from autoscale_exp.reporting.tables import show_fit
from autoscale_exp.runs.repeat import repeat_command
from autoscale_exp.runs.table import RunTable, has_sizes, read_optima, read_runs, scales_of

log = logging.getLogger(__name__)

MOST_TOKENS = 10**18  # of a budget: what 64 bits hold, by far


@job("fit", more_help=describe_laws)
def main(conf: FitConf) -> None:
    """Fits and writes fit.json, law.json, mixtures/ and figures."""
    if (conf.runs is None) == (conf.optima is None):
        raise UserError("give either runs=<runs.csv or sweep folder> or optima=<optima.csv>, one of the two")
    for index, budget in enumerate(conf.target_tokens):
        check_range({f"target_tokens[{index}]": budget}, 1, MOST_TOKENS)
    check_range({"target_params": conf.target_params}, 1)
    check_range({"num_draws": conf.num_draws}, 0)
    check_range({"seed": conf.seed}, 0, LARGEST_SEED)
    if conf.uncertainty not in ("intervals", "none"):
        raise UserError(f"uncertainty is '{conf.uncertainty}'; allowed are intervals and none")
    fits: dict[str | None, Fit]
    if conf.optima is not None:
        if conf.target_params is not None:
            raise UserError("target_params is given with optima, which tell of no model size; give runs=... instead")
        if conf.objectives:
            raise UserError("objectives is given with optima, whose objective nobody knows; give runs=... instead")
        domains, budgets, weights = read_optima(Path(conf.optima))
        bounds = make_bounds(conf.bounds.lower, conf.bounds.upper, domains)
        fit, law = solve_optima(domains, budgets, weights, bounds, conf.target_tokens)
        fits = {None: fit}
    else:
        table = read_runs(Path(str(conf.runs)))
        if unseen := [domain for domain in table.domains if domain not in table.validation_domains]:
            log.warning("trained on, but no part of the objective, because no run has its loss: %s", ", ".join(unseen))
        asked = {None: conf.objective} | objectives_of(conf)
        requests = {name: make_request(replace(conf, objective=section), table) for name, section in asked.items()}
        tell_of_runs(table)
        found, fitted_law = solve_each(conf.law.name, table, list(requests.values()))
        fits = {n: with_commands(fit, str(conf.runs)) for n, fit in zip(requests, found, strict=True)}
        law = fitted_law.content()
    for name, fit in fits.items():
        folder = Path(conf.output_dir) / (name or "")
        write_law(folder, law)
        write_mixtures(folder, fit)
        write_fit(folder, fit)  # last: it tells of the others
    for fit in fits.values():
        show_fit(fit)
    log.info("drawing figures")
    from autoscale_exp.reporting.figures import save_fit_figures  # matplotlib takes a while, once all is written

    for name, fit in fits.items():
        save_fit_figures(fit, Path(conf.output_dir) / (name or ""))
    if not conf.target_tokens:
        log.warning("no mixture is written: target_tokens=[...] says for which budgets")
    more = f", and to a folder there for each of {', '.join(conf.objectives)}" if conf.objectives else ""
    log.info("written to '%s'%s", conf.output_dir, more)
    log.info(after_fit(conf.runs, conf.output_dir, fits[None], HydraConfig.get().runtime.choices.get("experiment")))


def objectives_of(conf: FitConf) -> dict[str, ObjectiveConf]:
    """The sections of `objectives`, by name, each composed as with objective=<name> and all else as it was typed.

    Raises:
        UserError: one is listed twice.
    """
    if doubled := [name for name in conf.objectives if conf.objectives.count(name) > 1]:
        raise UserError(f"objectives names '{doubled[0]}' twice; name each of them once")
    others = [o for o in HydraConfig.get().overrides.task if not re.match(r"\+*objectives?=", o)]
    sections = {}
    for name in conf.objectives:
        composed = to_typed(hydra.compose("fit", [*others, f"objective={name}"]))
        sections[name.rpartition("/")[2]] = composed.objective
    return sections


def with_commands(fit: Fit, runs: str) -> Fit:
    """A fit whose next runs have the commands that train them, as far as the folder of the runs tells."""
    if not Path(runs).is_dir():
        return fit

    def told(entry: FittedMixture) -> FittedMixture:
        proposed = entry.next_runs and [
            run
            if run.repeats is None
            else replace(run, command=repeat_command(Path(runs), run.repeats, run.run, run.seed))
            for run in entry.next_runs
        ]
        return replace(entry, next_runs=proposed)

    return replace(fit, scales=[told(entry) for entry in fit.scales], targets=[told(entry) for entry in fit.targets])


def tell_of_runs(table: RunTable) -> None:
    """Says what was read: runs by scale, domains, and what the runs were validated on."""
    totals = table.domain_tokens.sum(axis=1)
    scales = [
        f"{len(rows)} at {table.scales[rows[0]] if table.scales else short_label(float(np.median(totals[rows])))}"
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


def make_request(conf: FitConf, table: RunTable) -> Request:
    """What the config asks, checked against the runs.

    Raises:
        UserError: a domain is unknown, or a value is not allowed; the message names the key.
    """
    section, limits = conf.objective, conf.bounds
    uniform = np.full(len(table.domains), 1 / len(table.domains))
    unique = None
    if limits.max_epochs is not None:
        known: Sequence[float] | None = table.unique_tokens
        if limits.unique_tokens is not None:
            known = in_order(limits.unique_tokens, table.domains, key="bounds.unique_tokens")
        if known is None:
            raise UserError(
                f"bounds.unique_tokens is not set, and '{conf.runs}' is no sweep's folder to take them from; "
                "give the tokens that each domain has, in the order of the domains"
            )
        unique = np.asarray(known, dtype=float)
    elif limits.unique_tokens is not None:
        raise UserError("bounds.unique_tokens is given without bounds.max_epochs; how often may they be repeated?")
    groups = []
    for name, group in limits.groups.items():
        if not (
            isinstance(group, dict)
            and set(group) == {"domains", "upper"}
            and isinstance(group["domains"], list)
            and isinstance(group["upper"], int | float)
        ):
            raise UserError(f"bounds.groups.{name} is {group}; give it as {{domains: [...], upper: <share>}}")
        unknown = [domain for domain in group["domains"] if domain not in table.domains]
        if unknown:
            raise UserError(f"bounds.groups.{name} names '{unknown[0]}'; the domains are {', '.join(table.domains)}")
        groups.append(GroupCap(name, [table.domains.index(d) for d in group["domains"]], float(group["upper"])))
    return Request(
        targets=conf.target_tokens,
        objective=make_objective(
            section.name, section.metric, section.weights, table.validation_domains, section.aggregate
        ),
        constraints=Constraints(
            make_bounds(limits.lower, limits.upper, table.domains),
            unique,
            limits.max_epochs,
            groups,
            uniform if section.no_worse_than_uniform else None,
        ),
        kl_weight=section.kl_weight,
        prior=None
        if section.prior is None
        else np.array(in_order(section.prior, table.domains, key="objective.prior")),
        num_draws=conf.num_draws if conf.uncertainty == "intervals" else 0,
        seed=conf.seed,
        params=conf.target_params,
    )


def write_mixtures(folder: Path, fit: Fit) -> None:
    """Writes a mixture file per target, and removes those that an earlier fit wrote there and this one does not."""
    targets = {budget_label(target.tokens): target for target in fit.targets}
    for label in _written_before(folder) - targets.keys():
        (folder / "mixtures" / f"{label}.yaml").unlink(missing_ok=True)  # fit.json will no longer tell of it
    for label, target in targets.items():
        origin = f"{target.method}; law {fit.law}, objective {fit.objective.name}"
        weights = np.array(list(target.weights.values()))
        path = folder / "mixtures" / f"{label}.yaml"
        write_mixture_file(path, fit.domains, weights, target.tokens, origin)


def _written_before(folder: Path) -> set[str]:
    """Labels of the mixture files that an earlier fit wrote there; others in the folder are not its own."""
    try:
        return {budget_label(target.tokens) for target in read_fit(folder, "output_dir").targets}
    except UserError:  # there is none, or one of another version, whose files stay
        return set()


if __name__ == "__main__":
    main()
