"""The `fit` job: from finished runs, or known optima, to the best mixture at any token budget. Imports no torch."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from autoscale_exp import atomic
from autoscale_exp.config import FitConf, job
from autoscale_exp.laws.autoscale import ScalePath
from autoscale_exp.laws.ddo import DdoLaw, fit_ddo, law_content
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import Optimum, make_bounds
from autoscale_exp.laws.resampling import Intervals, resampled_intervals
from autoscale_exp.mixture.allocation import FloatArray
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.runs.design import budget_label
from autoscale_exp.runs.record import RunTable, read_optima, read_runs

log = logging.getLogger(__name__)

LAWS = ("ddo",)


@job("fit")
def main(conf: FitConf) -> None:
    """Fits and writes fit.json, law.json, mixtures/ and figures."""
    if (conf.runs is None) == (conf.optima is None):
        raise ValueError("give either runs=<runs.csv or sweep folder> or optima=<optima.csv>, one of the two")
    if conf.law.name not in LAWS:
        raise ValueError(f"law.name is '{conf.law.name}'; allowed are {', '.join(LAWS)}")
    if any(budget < 1 for budget in conf.target_tokens):
        raise ValueError(f"target_tokens is {conf.target_tokens}; token budgets must be positive")
    content = fit_runs(conf) if conf.runs is not None else fit_optima(conf)
    folder = Path(conf.output_dir)
    for target in content["targets"]:
        write_mixture_file(
            folder / "mixtures" / f"{budget_label(target['tokens'])}.yaml",
            content["domains"],
            np.array(list(target["weights"].values())),
            target["tokens"],
            f"{target['method']}, law {content['law']}, objective {content['objective']['name']}",
        )
    atomic.write_json(folder / "fit.json", content)
    show(content)
    from autoscale_exp.reporting.figures import save_fit_figures  # matplotlib takes a while, once all is written

    save_fit_figures(content, folder)
    log.info("written to '%s'", folder)


def fit_runs(conf: FitConf) -> dict[str, Any]:
    """Fits the law to runs; returns the content of fit.json and writes law.json."""
    table = read_runs(Path(conf.runs or ""))
    section = conf.objective
    objective = make_objective(section.name, section.metric, section.weights, table.validation_domains)
    bounds = make_bounds(conf.bounds.lower, conf.bounds.upper, table.domains)
    law = fit_ddo(table, objective, bounds)
    optima = [law.scale_optimum(scale) for scale in law.scales]
    path = law.path() if conf.target_tokens else None
    targets = [path.optimum(budget) for budget in conf.target_tokens] if path else []
    intervals = resampled_intervals(
        table, objective, bounds, conf.target_tokens, num_resamples=conf.num_resamples, seed=conf.seed
    )
    atomic.write_json(Path(conf.output_dir) / "law.json", law_content(law))
    return {
        "law": conf.law.name,
        "objective": {"name": objective.name, "metric": objective.metric}
        | {"weights": dict(zip(table.validation_domains, objective.weights.tolist(), strict=True))},
        "domains": table.domains,
        "scales": [
            describe(optimum, table.domains, intervals.scales[i] if intervals else None) | {"runs": len(rows)}
            for i, (optimum, rows) in enumerate(zip(optima, law.rows, strict=True))
        ],
        "targets": [
            describe(optimum, table.domains, intervals.targets[i] if intervals else None)
            for i, optimum in enumerate(targets)
        ],
        "diagnostics": diagnostics(table, law, path, intervals),
    }


def fit_optima(conf: FitConf) -> dict[str, Any]:
    """Extrapolates known optima; returns the content of fit.json and writes law.json."""
    domains, budgets, weights = read_optima(Path(conf.optima or ""))
    bounds = make_bounds(conf.bounds.lower, conf.bounds.upper, domains)
    path = ScalePath.through(budgets, list(weights), domains, bounds)
    order = np.argsort(budgets)
    known = [Optimum(budgets[i], weights[i], bounds.describe(weights[i], domains), "given") for i in order]
    atomic.write_json(
        Path(conf.output_dir) / "law.json",
        {"law": "autoscale_path", "domains": domains, "budgets": path.budgets}
        | {"intercept": path.intercept.tolist(), "slope": path.slope.tolist()},
    )
    return {
        "law": "autoscale_path",
        "objective": {"name": "that of the given optima", "metric": None, "weights": None},
        "domains": domains,
        "scales": [describe(optimum, domains, None) for optimum in known],
        "targets": [describe(path.optimum(budget), domains, None) for budget in conf.target_tokens],
        "diagnostics": {"path_residual": path.residual, "notes": []},
    }


def describe(optimum: Optimum, domains: list[str], interval: FloatArray | None) -> dict[str, Any]:
    """An optimum as an entry of fit.json. `interval` is (2, K), or None where nothing is known of the noise."""
    return {
        "tokens": optimum.tokens,
        "weights": dict(zip(domains, optimum.weights.tolist(), strict=True)),
        "domain_tokens": dict(zip(domains, (optimum.weights * optimum.tokens).tolist(), strict=True)),
        "objective_value": optimum.objective_value,
        "active_bounds": optimum.active_bounds,
        "interval": None if interval is None else dict(zip(domains, interval.T.tolist(), strict=True)),
        "method": optimum.method,
        "kkt_residual": optimum.kkt_residual,
    }


def diagnostics(table: RunTable, law: DdoLaw, path: ScalePath | None, intervals: Intervals | None) -> dict[str, Any]:
    """What to know before believing the fit."""
    notes = [f"{budget_label(scale.tokens)}: {note}" for scale in law.scales for note in scale.notes]
    if intervals is None:
        notes.append("no run is repeated with another seed, so the noise is unknown and there are no intervals")
    elif intervals.failed:
        notes.append(f"{intervals.failed} of {intervals.num_resamples} resamples had no extrapolation")
    return {
        "num_runs": len(table.runs),
        "seed_noise": intervals.noise if intervals else None,
        "path_residual": path.residual if path else None,
        "responses": [
            [
                {"domain": d, "points": scale.points[i], "offset": float(scale.offset[i])}
                | {"exponent": float(scale.exponent[i]), "floor": float(scale.floor[i])}
                | {"residual": float(scale.residual[i])}
                for i, d in enumerate(law.domains)
            ]
            for scale in law.scales
        ],
        "notes": notes,
    }


def show(content: dict[str, Any]) -> None:
    """Prints the weights by scale and target."""
    columns = content["scales"] + content["targets"]
    table = Table(title=f"domain weights, law {content['law']}, objective {content['objective']['name']}")
    table.add_column("domain")
    for i, entry in enumerate(columns):
        kind = "optimum" if i < len(content["scales"]) else "extrapolated"
        table.add_column(f"{budget_label(entry['tokens'])}\n{kind}", justify="right")
    for domain in content["domains"]:
        cells = []
        for entry in columns:
            interval = entry["interval"] and entry["interval"][domain]
            spread = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
            cells.append(f"{entry['weights'][domain]:.4f}{spread}")
        table.add_row(domain, *cells)
    console = Console()
    console.print(table)
    for entry in columns:
        for bound in entry["active_bounds"]:
            console.print(f"{budget_label(entry['tokens'])}: on a bound: {bound}", highlight=False)
    for note in content["diagnostics"]["notes"]:
        console.print(f"note: {note}", highlight=False)


if __name__ == "__main__":
    main()
