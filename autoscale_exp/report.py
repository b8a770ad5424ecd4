"""The `report` job: a search, its fit and its target runs as summary.json, a terminal table and one HTML page."""

import logging
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.labels import budget_label
from autoscale_exp.config import ReportConf
from autoscale_exp.laws.fit_file import Fit, read_fit
from autoscale_exp.reporting.comparison import (
    MixtureRuns,
    group_by_mixture,
    objective_of_fit,
    require_domains,
    speedup,
)
from autoscale_exp.reporting.downstream import Table as DownstreamTable
from autoscale_exp.reporting.downstream import downstream_table, read_evaluated_runs
from autoscale_exp.reporting.page import render_page
from autoscale_exp.reporting.tables import show_downstream
from autoscale_exp.runs.record import RECORD, RunRecord, read_records

log = logging.getLogger(__name__)


@job("report")
def main(conf: ReportConf) -> None:
    """Writes summary.json and report.html."""
    fit = read_fit(Path(conf.fit), "fit")
    autoscale = read_fit(Path(conf.autoscale), "autoscale") if conf.autoscale else None
    objective = objective_of_fit(fit, conf.fit)
    search = read_records(Path(conf.search))
    if not any(Path(conf.targets).glob(f"runs/*/{RECORD}")):
        raise UserError(
            f"targets is '{conf.targets}', which has no finished run; train the mixtures to compare with "
            f"output_dir={conf.targets}, or give targets=<their output_dir>"
        )
    targets = read_records(Path(conf.targets))
    for record in search + targets:
        require_domains(record, "trained", record.tokens, fit.domains)
        require_domains(record, "validated", record.losses, objective.validation_domains)
    mixtures = group_by_mixture(targets, objective)
    mixtures = {
        name: mixtures[name] for name in sorted(mixtures, key=lambda n: (n != conf.reference, n != "fitted", n))
    }
    if conf.reference not in mixtures:
        raise UserError(
            f"reference is '{conf.reference}', but the target runs are of {', '.join(mixtures)}; choose one of these "
            "with reference=..., or train it at the target, too"
        )
    downstream = downstream_table(read_evaluated_runs(Path(conf.targets)))
    summary = summarise(search, fit, mixtures, conf.reference, downstream)
    folder = Path(conf.output_dir)
    atomic.write_json(folder / "summary.json", summary)
    page = render_page(search, fit, autoscale, mixtures, conf.reference, summary, downstream)
    atomic.write_text(folder / "report.html", page)
    show(summary, mixtures, conf.reference)
    if downstream:
        show_downstream(downstream, list(mixtures))
    log.info("written to '%s'", folder / "report.html")


def summarise(
    search: list[RunRecord],
    fit: Fit,
    mixtures: dict[str, MixtureRuns],
    reference: str,
    downstream: DownstreamTable,
) -> dict[str, Any]:
    """The content of summary.json.

    `weights` are the fitted ones for the target's budget, None if the fit has no such target. `speedup_vs_<reference>`
    has those of the other mixtures by name, see `speedup`. Seconds are of training, added up over runs, however many
    ran at a time. `downstream` has the runs' evaluations, by task and mixture.
    """
    others = [name for name in mixtures if name != reference]
    if not others:
        raise UserError(f"all target runs are of '{reference}'; train another mixture to compare it with")
    runs = [record for mixture in mixtures.values() for record in mixture.records]
    budget = runs[0].token_budget
    fitted = next((target for target in fit.targets if target.tokens == budget), None)
    search_seconds = sum(record.seconds for record in search)
    return {
        "objective": fit.objective.name,
        "scales": [scale.tokens for scale in fit.scales],
        "target_tokens": budget,
        "weights": fitted and fitted.weights,
        "final": {name: mixture.final.tolist() for name, mixture in mixtures.items()},
        "downstream": {task: {name: score.values for name, score in row.items()} for task, row in downstream.items()},
        f"speedup_vs_{reference}": {name: speedup(mixtures[name], mixtures[reference]) for name in others},
        "search_tokens": sum(sum(record.tokens.values()) for record in search),
        "search_seconds": round(search_seconds, 1),
        "seconds": round(search_seconds + sum(record.seconds for record in runs), 1),
    }


def show(summary: dict[str, Any], mixtures: dict[str, MixtureRuns], reference: str) -> None:
    """Prints the comparison."""
    base = mixtures[reference]
    table = Table(title=f"{summary['objective']} after {budget_label(summary['target_tokens'])} tokens")
    for column in ("mixture", "final, per seed", "mean", f"against {reference}", "sooner"):
        table.add_column(column, justify="left" if column == "mixture" else "right")
    for name, mixture in mixtures.items():
        values = ", ".join(f"{value:.4f}" for value in mixture.final)
        mean = float(mixture.final.mean())
        change = f"{mean / base.final.mean() - 1:+.2%}" if mixture is not base else ""
        saved = speedup(mixture, base) if mixture is not base else None
        sooner = "" if saved is None else f"{saved:+.1%}"
        spread = "" if math.isnan(mixture.spread) else f" ± {mixture.spread:.4f}"
        table.add_row(name, values, f"{mean:.4f}{spread}", change, sooner)
    console = Console()
    console.print(table)
    console.print(
        f"search: {summary['search_tokens'] / 1e6:.1f}M tokens in {summary['search_seconds']:.0f} s of training; "
        f"a target run: {summary['target_tokens'] / 1e6:.1f}M tokens",
        highlight=False,
    )


if __name__ == "__main__":
    main()
