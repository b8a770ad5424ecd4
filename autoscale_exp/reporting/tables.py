"""Fits as a person reads them in a terminal."""

from rich.console import Console
from rich.table import Table

from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.fit_file import Fit, FittedMixture
from autoscale_exp.reporting.downstream import Table as DownstreamTable


def show_fit(fit: Fit) -> None:
    """Prints weights by scale and target, what holds them, verdicts, and what to know before trusting them."""
    console = Console(highlight=False, soft_wrap=True)
    columns = fit.scales + fit.targets
    table = Table(title=f"domain weights, law {fit.law}, objective {fit.objective.name}")
    table.add_column("domain")
    for i, entry in enumerate(columns):
        kind = "scale" if i < len(fit.scales) else "target"
        table.add_column(f"{kind} {short_label(entry.tokens)}", justify="right")
    for domain in fit.domains:
        cells = []
        for entry in columns:
            interval = entry.interval and entry.interval[domain]
            spread = f"  {interval[0]:.2f}-{interval[1]:.2f}" if interval else ""
            cells.append(f"{entry.weights[domain]:.4f}{spread}")
        table.add_row(domain, *cells)
    console.print(table)
    for entry in columns:
        label = short_label(entry.tokens)
        for bound in entry.active_bounds:
            console.print(f"{label}: on a bound: {bound}")
    for entry in fit.targets:
        if entry.converged is False:
            console.print(f"{short_label(entry.tokens)}: this is no exact optimum ({entry.method}); do not rely on it")
        if entry.verdict:
            console.print(f"{short_label(entry.tokens)}: {entry.verdict}")
        _show_other_metric(console, fit, entry)
    tested = fit.diagnostics.backtest
    if tested:
        console.print(
            f"back-test: without the runs at {short_label(tested.tokens)} the law predicts their mean off by "
            f"{tested.level_error:+.4f} and their differences within {tested.difference_error:.4f}, "
            f"where they spread by {tested.difference_spread:.4f}"
        )
    for note in fit.diagnostics.notes:
        console.print(f"note: {note}")


def show_downstream(downstream: DownstreamTable, mixtures: list[str]) -> None:
    """Prints scores by task and mixture; those that are best by more than the noise have a star."""
    table = Table(title="downstream; * better than every other by more than the noise")
    table.add_column("task")
    for name in mixtures:
        table.add_column(name, justify="right")
    for task, row in downstream.items():
        scores = [row.get(name) for name in mixtures]
        table.add_row(task, *(score.text + "*" * score.best if score else "" for score in scores))
    Console(highlight=False).print(table)


def _show_other_metric(console: Console, fit: Fit, entry: FittedMixture) -> None:
    """The optimum under the other metric, where it differs by more than the interval."""
    other = "perplexity" if fit.objective.metric == "loss" else "loss"
    weights, interval = entry.weights_under(other), entry.interval
    if not weights or not interval:
        return
    outside = [d for d in fit.domains if not interval[d][0] <= weights[d] <= interval[d][1]]
    if outside:
        mine = ", ".join(f"{d} {entry.weights[d]:.3f}" for d in fit.domains)
        theirs = ", ".join(f"{d} {weights[d]:.3f}" for d in fit.domains)
        console.print(
            f"{short_label(entry.tokens)}: the objective decides: {fit.objective.metric} gives {mine}; "
            f"{other} gives {theirs}"
        )
